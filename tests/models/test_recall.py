"""The head that mixes a network's forecast with earlier days, beside a loop in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pgti.models import ModelShape
from pgti.models.heads import add_heads
from pgti.models.recall import RecallHead, rows_of_days

_DAY = 6  # rows
_SHAPE = ModelShape(
    input_steps=3,
    horizon=2,
    num_nodes=4,
    input_channels=4,
    target_channels=2,
    target_indices=(2, 0),
    calendar=("time-of-day",),
    steps_per_day=_DAY,
    history=(range(-3 * _DAY, -3 * _DAY + 5), range(-_DAY, -_DAY + 5)),
    history_channels=3,
)


def _inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Forecast, x, history and its mask of three windows, float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"generator": generator, "dtype": torch.float64}
    forecast = torch.randn(3, 2, 4, 2, **sizes)
    x, history = torch.randn(3, 3, 4, 4, **sizes), torch.randn(3, 10, 4, 3, **sizes)
    return forecast, x, history, torch.rand(3, 10, 4, 3, generator=generator) < 0.7


def _head(shape: ModelShape = _SHAPE) -> RecallHead:
    """With weights that are not 0."""
    torch.manual_seed(1)
    head = RecallHead(shape).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return head


def test_days_are_those_whose_rows_the_history_has_whole() -> None:
    """As ranges of their own, or inside a span; none without times of day."""
    assert rows_of_days(_SHAPE) == (5, 0)  # a day ago, three days ago
    assert rows_of_days(replace(_SHAPE, history=(range(-2 * _DAY, 0),))) == (6, 0)
    assert rows_of_days(replace(_SHAPE, history=(range(-_DAY, -_DAY + 4),))) == ()
    assert rows_of_days(replace(_SHAPE, steps_per_day=None)) == ()
    assert rows_of_days(replace(_SHAPE, history=())) == ()


def test_it_is_what_a_loop_over_sensors_and_steps_computes() -> None:
    """Forecasts, and the gradients of a sum of squares."""
    head = _head()
    forecast, x, history, mask = _inputs()
    forecast.requires_grad_()
    mixed = head(forecast, x, history, mask)
    expected = torch.stack(
        [_of_window(head, *each) for each in zip(forecast, x, history, mask, strict=True)]
    )
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-12)
    parameters = [forecast, *head.parameters()]
    found = torch.autograd.grad(mixed.square().sum(), parameters)
    for ours, theirs in zip(
        found, torch.autograd.grad(expected.square().sum(), parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def _of_window(
    head: RecallHead, forecast_HNC: Tensor, x_LNC: Tensor, history_RNC: Tensor, mask_RNC: Tensor
) -> Tensor:
    """A window's forecast, sensor by sensor."""
    result = torch.empty_like(forecast_HNC)
    starts, channels = (5, 0), (2, 0)
    for node in range(4):
        then = {
            (day, channel): history_RNC[start : start + 5, node, channel]
            for day, start in enumerate(starts)
            for channel in channels
        }
        close = {
            key: -torch.log((each[:3] - x_LNC[:, node, key[1]]).abs().mean() + 0.003)
            for key, each in then.items()
        }
        facts = [x_LNC[-1, node], forecast_HNC[:, node].reshape(-1)]
        for day in range(2):
            for step in range(2):
                facts += [
                    (then[day, channel][3 + step] - forecast_HNC[step, node, target])[None]
                    for target, channel in enumerate(channels)
                ]
        facts += [close[day, channel][None] for channel in channels for day in range(2)]
        facts += [
            mask_RNC[starts[day] : starts[day] + 5, node, channel].double().mean()[None]
            for channel in channels
            for day in range(2)
        ]
        units = torch.relu(head.second(torch.relu(head.first(torch.cat(facts)))))
        outputs = head.last(units).view(3, 2, 2)
        for step in range(2):
            for target, channel in enumerate(channels):
                scores = [torch.zeros((), dtype=torch.float64)]
                candidates = [forecast_HNC[step, node, target]]
                for day in range(2):
                    gain = head.closeness_gain[target, day] * close[day, channel]
                    scores.append(outputs[1 + day, step, target] + gain - 4)
                    candidates.append(then[day, channel][3 + step])
                weights = torch.softmax(torch.stack(scores), dim=0)
                mixed = (weights * torch.stack(candidates)).sum()
                result[step, node, target] = mixed + outputs[0, step, target]
    return result


def test_a_day_that_repeats_is_copied_from_the_first_step_on() -> None:
    """And the network's forecast stays where no day is like today."""
    head = RecallHead(_SHAPE).double()
    forecast, x, history, mask = _inputs()
    then = history[:, 5:]  # of yesterday
    x = torch.cat([then[:, :3], x[..., 3:]], dim=-1)
    mixed = head(forecast, x, history, mask)
    weight = 1 / 0.003 / (1 / 0.003 + torch.e**4)
    assert weight > 0.8
    torch.testing.assert_close(
        mixed, weight * then[:, 3:][..., [2, 0]] + (1 - weight) * forecast, rtol=0, atol=0.05
    )
    far = head(forecast, x + 5, history, mask)
    torch.testing.assert_close(far, forecast, rtol=0, atol=0.05)


def test_quantiles_of_a_target_copy_the_same_days() -> None:
    """Repeated targets have scores of their own, and the readings of their channel."""
    shape = replace(_SHAPE, target_channels=4, target_indices=(2, 2, 0, 0))
    forecast, x, history, mask = _inputs()
    head = RecallHead(shape).double()
    repeated = forecast.repeat_interleave(2, dim=-1)
    mixed = head(repeated, x, history, mask)
    expected = RecallHead(_SHAPE).double()(forecast, x, history, mask)
    torch.testing.assert_close(mixed, expected.repeat_interleave(2, dim=-1))


class _Reader(nn.Module):
    """Names history."""

    def forward(self, x: Tensor, history: Tensor) -> Tensor:
        return x + history


@pytest.mark.parametrize("history", [_SHAPE.history, ()])
def test_a_network_gets_a_head_where_days_are_there_and_it_does_not_read_them(
    history: tuple[range, ...],
) -> None:
    """The parameters of the head are the network's."""
    shape = replace(_SHAPE, history=history)
    network = nn.Sequential()
    assert len(add_heads(network, shape)) == bool(history)
    assert any(name.startswith("recall_head.") for name, _ in network.named_parameters()) == bool(
        history
    )
    assert not add_heads(_Reader(), shape)
