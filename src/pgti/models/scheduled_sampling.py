"""Scheduled sampling: a decoder that emits a step at a time sees the truth at some of them.

Bengio et al., Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks, NeurIPS
2015, section 2.4, with inverse sigmoid decay. As DCRNN, MegaCRN and HimNet train, one coin per
decoder step decides for the whole batch whether the next step's input is the truth.
"""

import math
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from pgti.models.base import TeacherForcing

__all__ = [
    "Truth",
    "next_input",
    "sampled_truths",
    "scheduled_sampling_coins",
    "teaching_probability",
]

Truth: TypeAlias = Tensor | tuple[Tensor, Tensor] | None
"""The decoder's next input [N, B, C_out]; one and whether to take it; None for the forecast."""

_LARGEST_EXPONENT = 700.0  # exp of more overflows a float64


def sampled_truths(teacher: TeacherForcing | None, horizon: int, decay: float) -> list[Truth]:
    """For each of H decoder steps, the truth if it is the next one's input.

    Args:
        teacher: the truth; None for a decoder that sees its own forecasts alone.
        horizon: H.
        decay: as in `teaching_probability`.
    """
    if teacher is None:
        return [None] * horizon
    targets_HNBC = teacher.targets_BHNC.permute(1, 2, 0, 3)
    if torch.compiler.is_compiling():  # the same graph for all coins
        arguments = (teacher.seed, horizon, decay, targets_HNBC.device)
        coins_H = _coins(teacher.step_tensor, *arguments)
        return list(zip(targets_HNBC.unbind(), coins_H.unbind(), strict=True))
    coins = scheduled_sampling_coins(teacher.seed, teacher.step, horizon, decay)
    return [
        truth_NBC if coin else None for truth_NBC, coin in zip(targets_HNBC, coins, strict=True)
    ]


def next_input(forecast_NBC: Tensor, truth: Truth) -> Tensor:
    """The input of the next decoder step."""
    if truth is None:
        return forecast_NBC
    if isinstance(truth, Tensor):
        return truth
    truth_NBC, coin = truth
    return torch.where(coin, truth_NBC, forecast_NBC)


def teaching_probability(step: int, decay: float) -> float:
    """Probability that the input of a decoder step is the truth: inverse sigmoid decay.

    tau / (tau + exp(step / tau)) with tau = `decay`, after `step` optimizer steps.
    """
    return decay / (decay + math.exp(min(step / decay, _LARGEST_EXPONENT)))


def scheduled_sampling_coins(seed: int, step: int, horizon: int, decay: float) -> list[bool]:
    """For each of `horizon` decoder steps, whether the next one's input is the truth; pure."""
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    coins: list[bool] = (generator.random(horizon) < teaching_probability(step, decay)).tolist()
    return coins


@torch.library.custom_op("pgti::scheduled_sampling_coins", mutates_args=())
def _coins(step: Tensor, seed: int, horizon: int, decay: float, device: torch.device) -> Tensor:
    """`scheduled_sampling_coins` on a device, for the compiler; the step is on the host."""
    coins_H = torch.tensor(scheduled_sampling_coins(seed, int(step), horizon, decay))
    return coins_H.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else coins_H


@_coins.register_fake
def _(step: Tensor, seed: int, horizon: int, decay: float, device: torch.device) -> Tensor:  # noqa: ARG001
    return torch.empty(horizon, dtype=torch.bool, device=device)
