"""Sums of gathered rows are the product with the operator."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pgti.nn.gathered_product import GatheredProduct


@settings(max_examples=50, deadline=None)
@given(num_nodes=st.integers(1, 40), density=st.floats(0, 1), seed=st.integers(0, 1000))
def test_it_is_the_product(num_nodes: int, density: float, seed: int) -> None:
    """Of rows of any length, none and a hub that every node is joined to among them."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(num_nodes, num_nodes))
    matrix *= random.random((num_nodes, num_nodes)) < density * random.random((num_nodes, 1))
    matrix[seed % num_nodes] = 1.0
    parts = sparse.csr_array(matrix)
    rows, columns, values = map(torch.from_numpy, (parts.indptr, parts.indices, parts.data))
    x_NF = torch.from_numpy(random.normal(size=(num_nodes, 3)))
    product = GatheredProduct(rows, columns, values)
    torch.testing.assert_close(product(x_NF), torch.from_numpy(matrix) @ x_NF)
    tables = [each for name, each in product.named_buffers() if name.startswith("values")]
    assert (
        sum(each.numel() for each in tables)
        < 4 * np.maximum(parts.indptr[1:] - parts.indptr[:-1], 1).sum()
    )
