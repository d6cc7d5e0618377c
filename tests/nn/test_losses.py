"""Masked losses: values by hand, and gradients that what is masked cannot touch."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.nn import MaskedLoss, huber, mae, mse

LOSSES = [mae, mse, huber, functools.partial(huber, delta=2.5)]


def test_values_by_hand() -> None:
    """Errors 1, -3 and a masked one: sums 4, 10 and 0.5 + 2.5; two were observed."""
    prediction, target = torch.tensor([2.0, 1.0, 9.0]), torch.tensor([1.0, 4.0, torch.nan])
    mask = torch.tensor([True, True, False])
    for loss, expected in [(mae, 4.0), (mse, 10.0), (huber, 3.0)]:
        total, count = loss(prediction, target, mask)
        assert (total.item(), count.item()) == (expected, 2)
        assert (total.dtype, count.dtype) == (torch.float32, torch.int64)
    total, _ = huber(prediction, target, mask, delta=4.0)
    assert total.item() == 5.0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", [0.0, torch.nan, torch.inf, 1e38])
def test_masked_targets_leave_no_trace(loss: MaskedLoss, hidden: float) -> None:
    """Whatever a masked target holds, loss and gradient are those without it, and finite."""
    torch.manual_seed(0)
    prediction = torch.randn(50, requires_grad=True)
    target, mask = torch.randn(50), torch.rand(50) < 0.6
    total, count = loss(prediction, torch.where(mask, target, hidden), mask)
    (gradient,) = torch.autograd.grad(total, prediction)
    kept = prediction[mask].detach().requires_grad_()
    expected, expected_count = loss(kept, target[mask], torch.ones_like(target[mask]).bool())
    (expected_gradient,) = torch.autograd.grad(expected, kept)
    torch.testing.assert_close(total, expected)
    assert count == expected_count
    torch.testing.assert_close(gradient[mask], expected_gradient)
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_observed_is_zero_and_not_nan(loss: MaskedLoss) -> None:
    """An all-missing batch has sum 0, count 0 and zero gradients."""
    prediction = torch.randn(5, requires_grad=True)
    total, count = loss(prediction, torch.full((5,), torch.nan), torch.zeros(5).bool())
    total.backward()
    assert (total.item(), count.item()) == (0.0, 0)
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@settings(deadline=None)
@given(size=st.integers(0, 30), cut=st.integers(0, 30))
def test_parts_add_up(loss: MaskedLoss, size: int, cut: int) -> None:
    """Sums and counts of two parts are those of the whole."""
    generator = torch.Generator().manual_seed(size)
    prediction, target = torch.randn(2, size, dtype=torch.float64, generator=generator)
    mask = torch.rand(size, generator=generator) < 0.5
    whole = loss(prediction, target, mask)
    first = loss(prediction[:cut], target[:cut], mask[:cut])
    second = loss(prediction[cut:], target[cut:], mask[cut:])
    torch.testing.assert_close(first[0] + second[0], whole[0])
    assert first[1] + second[1] == whole[1]


@pytest.mark.parametrize("loss", LOSSES)
def test_low_precision_is_summed_in_float32(loss: MaskedLoss) -> None:
    """A bfloat16 prediction does not make a bfloat16 sum, which would stop growing at 256."""
    prediction = torch.zeros(5000, dtype=torch.bfloat16)
    target = torch.ones(5000, dtype=torch.bfloat16)
    total, _ = loss(prediction, target, torch.ones(5000).bool())
    assert total.dtype == torch.float32
    assert total >= 2500


def test_shapes_must_be_equal() -> None:
    """What would broadcast is refused."""
    with pytest.raises(ValueError, match=r"\(3, 1\), \(3,\) and \(3,\)"):
        mae(torch.ones(3, 1), torch.ones(3), torch.ones(3).bool())
