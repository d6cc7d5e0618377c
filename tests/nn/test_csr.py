"""Products with a sparse matrix in a fixed order, in place of cuSPARSE's."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pgti.nn import csr
from pgti.nn.csr import add_ordered_product, csr_matrix, needs_order


def _csr(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A matrix with an empty row and an empty column, sparse and dense."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(7, 9, generator=generator, dtype=torch.float64)
    dense = (dense * (dense.abs() > 0.8)).to(dtype)
    dense[3], dense[:, 5] = 0, 0
    where = dense != 0
    rows = torch.cat([torch.zeros(1), where.sum(1).cumsum(0)]).int()
    return csr_matrix(rows, where.nonzero()[:, 1].int(), dense[where], 9), dense


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("at_once", [1 << 26, 40])
def test_it_equals_the_dense_product(
    accumulate: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csr, "_NUMBERS_AT_ONCE", at_once)
    matrix, dense = _csr(torch.float64)
    x = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = torch.full((7, 5), 2.0 if accumulate else torch.nan, dtype=torch.float64)
    add_ordered_product(matrix, x, out, accumulate=accumulate)
    torch.testing.assert_close(out, dense @ x + (2.0 if accumulate else 0.0))


def test_sums_of_bfloat16_are_rounded_once() -> None:
    matrix, dense = _csr(torch.bfloat16)
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    out = torch.empty(7, 64, dtype=torch.bfloat16)
    add_ordered_product(matrix, x, out, accumulate=False)
    assert torch.equal(out, (dense.double() @ x.double()).bfloat16())


def test_it_is_needed_for_sparse_matrices_on_gpus_that_must_repeat_themselves() -> None:
    on_gpu = SimpleNamespace(layout=torch.sparse_csr, is_cuda=True)
    dense = SimpleNamespace(layout=torch.strided, is_cuda=True)
    assert not needs_order(on_gpu)  # type: ignore[arg-type]
    torch.use_deterministic_algorithms(True)
    try:
        assert needs_order(on_gpu)  # type: ignore[arg-type]
        assert not needs_order(dense)  # type: ignore[arg-type]
        assert not needs_order(_csr(torch.float32)[0])  # a CPU always repeats itself
    finally:
        torch.use_deterministic_algorithms(False)
