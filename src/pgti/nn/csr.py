"""Matrices of CSR and their products, in a fixed order where a GPU must repeat them."""

import warnings

import torch
from torch import Tensor

from pgti.shapes import NF

__all__ = ["add_ordered_product", "csr_matrix", "multiply_into", "needs_order"]

_NUMBERS_AT_ONCE = 1 << 26
"""Products of values and features in memory at a time: 256 MiB in float32."""


def csr_matrix(
    rows: Tensor, columns: Tensor, values: Tensor, num_columns: int | None = None
) -> Tensor:
    """The CSR matrix over these arrays, unchecked; square unless `num_columns` is given."""
    size = (len(rows) - 1, len(rows) - 1 if num_columns is None else num_columns)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Sparse CSR tensor support is in beta state", category=UserWarning
        )
        return torch.sparse_csr_tensor(rows, columns, values, size, check_invariants=False)


def multiply_into(out: Tensor, matrix: Tensor, x_NF: NF, *, accumulate: bool) -> Tensor:
    """Write matrix @ x to `out`, or add it."""
    if needs_order(matrix):
        return add_ordered_product(matrix, x_NF, out, accumulate=accumulate)
    # The variant with `out` is the one that autocast leaves alone.
    return torch.addmm(out, matrix, x_NF, beta=1.0 if accumulate else 0.0, out=out)


def needs_order(matrix: Tensor) -> bool:
    """Whether the product is cuSPARSE's, which may add up in another order each time, and must not.

    `torch.use_deterministic_algorithms` asks for that; torch itself does not refuse the product.
    """
    is_sparse = matrix.is_cuda and matrix.layout == torch.sparse_csr
    return is_sparse and torch.are_deterministic_algorithms_enabled()


def add_ordered_product(matrix: Tensor, x_NF: NF, out_NF: NF, *, accumulate: bool) -> NF:
    """Write matrix @ x to out, or add it; without gradients and without waiting for a device.

    It adds up in at least float32, by `index_add_`, which torch makes deterministic, and writes a
    product for each value and feature to memory, so that it is slower than cuSPARSE.

    Args:
        matrix: CSR, [N, M].
        x_NF: [M, F].
        out_NF: [N, F].
        accumulate: add to `out` instead of overwriting it.
    """
    starts, columns, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    of_rows = torch.arange(len(starts) - 1, device=starts.device)
    row_of_value = of_rows.repeat_interleave(starts.diff(), output_size=len(values))
    precision = torch.promote_types(x_NF.dtype, torch.float32)
    weights_E1 = values.to(precision).unsqueeze(1)
    size = max(1, _NUMBERS_AT_ONCE // max(1, len(values)))
    parts = torch.split(x_NF, size, dim=1), torch.split(out_NF, size, dim=1)
    for x_part, out_part in zip(*parts, strict=True):
        sums = weights_E1.new_zeros(out_part.shape)
        sums.index_add_(0, row_of_value, x_part.index_select(0, columns).to(precision) * weights_E1)
        if accumulate:
            sums += out_part
        out_part.copy_(sums)
    return out_NF
