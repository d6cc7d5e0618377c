"""Masked losses: values by hand, and gradients that what is masked cannot touch."""

import functools

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.nn import MaskedLoss, huber, mae, mse, quantile

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


# -- quantiles ------------------------------------------------------------------------------------

LEVELS = (0.1, 0.4, 0.5, 0.95)


def quantile_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantiles [3, 7, 4], targets and their mask, float64."""
    generator = torch.Generator().manual_seed(2)
    prediction = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64).sort().values
    target = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    return prediction, target, torch.rand(3, 7, generator=generator) < 0.7


def test_the_quantile_loss_is_twice_the_mean_pinball_loss() -> None:
    """As scoringrules has it, for the CRPS that the quantiles stand for; and by the definition."""
    prediction, target, mask = quantile_case()
    total, count = quantile(prediction, target, mask, LEVELS)

    crps = scoringrules.crps_quantile(target.numpy(), prediction.numpy(), np.array(LEVELS))
    assert float(total) == pytest.approx(crps[mask.numpy()].sum(), rel=1e-12)
    assert int(count) == int(mask.sum())
    by_hand = 0.0
    for place in mask.nonzero().tolist():
        for level, each in zip(LEVELS, prediction[*place].tolist(), strict=True):
            error = float(target[*place]) - each
            by_hand += 2 / len(LEVELS) * (level * error if error >= 0 else (level - 1) * error)
    assert float(total) == pytest.approx(by_hand, rel=1e-12)


def test_the_quantile_loss_of_the_median_is_the_mae() -> None:
    """To the bit, so that learning rates of one suit the other."""
    prediction, target, mask = quantile_case()
    found = quantile(prediction[..., :1], target, mask, (0.5,))
    assert found == mae(prediction[..., 0], target, mask)


def test_masked_targets_leave_no_trace_in_quantiles() -> None:
    """A missing target, whatever it holds, has no gradient; the others' are right."""
    prediction, target, mask = quantile_case()
    prediction.requires_grad_()
    hidden = torch.where(mask, target, torch.nan)
    total, _ = quantile(prediction, hidden, mask, LEVELS)
    (gradient,) = torch.autograd.grad(total, prediction)
    assert (gradient[~mask] == 0).all()
    above = prediction > target[..., None]
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    expected = 2 / len(LEVELS) * torch.where(above, 1 - levels, -levels)
    torch.testing.assert_close(gradient[mask], expected[mask])


def test_sorting_quantiles_never_costs() -> None:
    """What crosses is put in order: the loss of sorted quantiles is no larger (rearrangement)."""
    generator = torch.Generator().manual_seed(4)
    crossing = torch.randn(500, 4, generator=generator)
    target, each = torch.randn(500, generator=generator), torch.ones(1, dtype=torch.bool)
    for row in range(500):
        before, _ = quantile(crossing[row][None], target[row][None], each, LEVELS)
        after, _ = quantile(crossing[row].sort().values[None], target[row][None], each, LEVELS)
        assert after <= before + 1e-6


def test_as_many_quantiles_as_levels() -> None:
    """Anything else would pair them wrongly."""
    prediction, target, mask = quantile_case()
    with pytest.raises(ValueError, match="last dimension is that of 3 quantiles"):
        quantile(prediction, target, mask, LEVELS[:3])
