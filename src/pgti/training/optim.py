"""Optimizer, loss and learning rate as the configuration names them."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import explain_failures
from pgti.nn import MaskedLoss, check_masked_sum, huber, mae, mse, quantile
from pgti.training.config import CustomLoss, HuberLoss, TrainingConfig
from pgti.training.optimizers import AdamWOptimizer, RMSPropOptimizer
from pgti.training.schedules import (
    CosineSchedule,
    ExponentialSchedule,
    MultistepSchedule,
    PlateauSchedule,
    StepSchedule,
)

__all__ = [
    "Plateau",
    "build_loss",
    "build_optimizer",
    "check_own_loss",
    "hold_rate_on",
    "learning_rate",
    "load_optimizer",
    "plain_optimizer_state",
]

_DEVICE_OPTIONS = ("fused", "foreach", "capturable")
"""Options of an optimizer about how it computes, which belong to the device and not to the run."""


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainingConfig
) -> torch.optim.Optimizer:
    """Build the configured optimizer over the trainable parameters.

    On a GPU, Adam and AdamW update all of them in one kernel, and RMSProp in a few.

    Raises:
        ConfigError: if no parameter is trainable.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not trainable:
        raise ConfigError("the model has no trainable parameters: there is nothing to train")
    options, on_gpu = config.optimizer, trainable[0].device.type == "cuda"
    if isinstance(options, RMSPropOptimizer):
        optimizer = torch.optim.RMSprop(
            trainable,
            lr=config.learning_rate,
            alpha=options.smoothing,
            eps=options.epsilon,
            weight_decay=options.weight_decay,
            capturable=on_gpu,  # or it would read the learning rate on the host
        )
        # Steps before the first recorded one are not captured, which torch would warn of.
        optimizer._warned_capturable_if_run_uncaptured = True
        return optimizer
    kind = torch.optim.AdamW if isinstance(options, AdamWOptimizer) else torch.optim.Adam
    return kind(
        trainable,
        lr=config.learning_rate,
        eps=options.epsilon,
        weight_decay=options.weight_decay,
        fused=True if on_gpu else None,
    )


def hold_rate_on(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Put the learning rate into a tensor, from which an update on the device reads it.

    So a recorded update (`pgti.training.capture`) follows the schedule, and a usual one computes
    the same as it.
    """
    for group in optimizer.param_groups:
        # The kernel reads float32, whatever torch's default is.
        group["lr"] = torch.full((), group["lr"], dtype=torch.float32, device=device)


def plain_optimizer_state(optimizer: torch.optim.Optimizer, rate: float) -> dict[str, Any]:
    """The state of an optimizer as a checkpoint holds it: the same from any device.

    Args:
        optimizer: on any device.
        rate: its learning rate, which a GPU has in a tensor.
    """
    state = optimizer.state_dict()
    plain = {"fused": None, "foreach": None, "capturable": False, "lr": rate}
    groups = [
        {**group, **{name: each for name, each in plain.items() if name in group}}
        for group in state["param_groups"]
    ]
    return {**state, "param_groups": groups}


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state from a checkpoint; how the optimizer computes on its device stays."""
    rates = [group["lr"] for group in optimizer.param_groups]
    groups = [
        {**loaded, **{name: own[name] for name in _DEVICE_OPTIONS if name in own}}
        for loaded, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"] = rate.fill_(group["lr"])


def build_loss(config: TrainingConfig) -> MaskedLoss:
    """The loss that the configuration names: (prediction, target, mask) -> (sum, count).

    One of the user's own is missing here: it raises ConfigError when it is called.
    """
    if isinstance(config.loss, CustomLoss):
        return partial(_refuse, config.loss.name)
    if isinstance(config.loss, HuberLoss):
        return partial(huber, delta=config.loss.delta)
    if config.quantiles:
        return partial(quantile, levels=config.quantiles)
    return {"mae": mae, "mse": mse}[config.loss.kind]


def check_own_loss(loss: MaskedLoss) -> MaskedLoss:
    """The same loss, whose failures and wrong results are one clear line.

    Calling it raises ConfigError if it raises an error, returns anything but a sum and a count, or
    a sum without a gradient.
    """

    def checked(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        with explain_failures("loss failed"):
            value = loss(prediction, target, mask)
        total, count = check_masked_sum("loss", value)
        if not total.requires_grad:
            raise ConfigError(
                "loss returned a sum without a gradient: compute it from the prediction, without "
                "detach() or item()"
            )
        return total, count

    return checked


def _refuse(name: str, *_: object) -> NoReturn:
    raise ConfigError(
        f"the run has a loss of its own ({name}): train it from Python, with loss= and that "
        "function"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau:
    """State of the plateau schedule after the validations so far.

    Attributes:
        best: Lowest validation MAE so far.
        bad_validations: Validations since then, or since the rate was last reduced.
        factor: What the learning rate is multiplied by.
    """

    best: float = math.inf
    bad_validations: int = 0
    factor: float = 1.0

    def after(self, mae: float, config: TrainingConfig) -> "Plateau":
        """The state after one more validation, which gave `mae`."""
        if mae < self.best:
            return Plateau(best=mae, bad_validations=0, factor=self.factor)
        schedule = config.schedule
        if not isinstance(schedule, PlateauSchedule) or self.bad_validations < schedule.patience:
            return Plateau(
                best=self.best, bad_validations=self.bad_validations + 1, factor=self.factor
            )
        lowest = schedule.min_learning_rate / config.learning_rate
        factor = max(self.factor * schedule.factor, lowest)
        return Plateau(best=self.best, bad_validations=0, factor=factor)


def learning_rate(
    config: TrainingConfig, *, step: int, steps_per_epoch: int, plateau: Plateau
) -> float:
    """The learning rate of one optimizer step.

    It is a pure function, so that resuming a run needs no scheduler state. A cosine runs over all
    epochs; `max_steps` ends a run and does not change its schedule.

    Args:
        config: learning rate, warm-up and schedule.
        step: optimizer steps done before this one.
        steps_per_epoch: optimizer steps of an epoch.
        plateau: state of the plateau schedule.
    """
    schedule, full = config.schedule, config.learning_rate
    rising = (step + 1) / config.warmup_steps if step < config.warmup_steps else 1.0
    epoch = step // steps_per_epoch
    if isinstance(schedule, MultistepSchedule | StepSchedule | ExponentialSchedule):
        if isinstance(schedule, MultistepSchedule):
            reductions = bisect_right(schedule.milestones, epoch)
        else:
            reductions = epoch // (schedule.every if isinstance(schedule, StepSchedule) else 1)
        full = max(full * schedule.factor**reductions, schedule.min_learning_rate)
    elif isinstance(schedule, PlateauSchedule):
        full *= plateau.factor
    elif isinstance(schedule, CosineSchedule):
        falling_steps = max(1, config.epochs * steps_per_epoch - config.warmup_steps)
        done = min(1.0, max(0, step - config.warmup_steps) / falling_steps)
        span = config.learning_rate - schedule.min_learning_rate
        full = schedule.min_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * done))
    return rising * full
