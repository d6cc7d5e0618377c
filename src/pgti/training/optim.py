"""Optimizer, loss and learning rate as the configuration names them."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError, RunError
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

_ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")
_SQUARES = ("exp_avg_sq", "square_avg")  # infinite where a gradient's square exceeds float32
_STEP_TYPES = (torch.float32, torch.float64)


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


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, steps: float = math.inf
) -> float:
    """Load a state from a checkpoint: moments and the learning rate; options stay our own.

    Args:
        optimizer: new, on any device.
        state: as `plain_optimizer_state` gives it.
        steps: optimizer steps before it.

    Returns:
        The learning rate of the last step.

    Raises:
        RunError: naming what the optimizer does not have, in another shape or not at all.
    """
    rate = _check_groups(optimizer, state["param_groups"])
    own = [each for group in optimizer.param_groups for each in group["params"]]
    of_parameters = state["state"]
    if not isinstance(of_parameters, dict) or not set(of_parameters) <= set(range(len(own))):
        raise _misfit("its state is not that of the parameters that learn, by their number")
    if not of_parameters and 0 < steps < math.inf:
        raise _misfit(f"it has no state after {steps} steps")
    loaded = {
        place: _checked_moments(optimizer, own[place], of_parameters[place], place, steps)
        for place in of_parameters
    }
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict({**optimizer.state_dict(), "state": loaded})
    for group, held in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = held.fill_(rate) if isinstance(held, Tensor) else rate
    return rate


def _check_groups(optimizer: torch.optim.Optimizer, groups: object) -> float:
    """The learning rate in the groups of a checkpoint, whose other options are not read."""
    own = optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(own):
        raise _misfit(f"its param_groups are not a list of {len(own)}")
    for group, mine in zip(groups, own, strict=True):
        if not isinstance(group, dict) or not {"lr", "params"} <= set(group) <= set(mine):
            raise _misfit(f"a group has other options than {', '.join(mine)}")
        numbers = group["params"]
        is_list = isinstance(numbers, list) and all(type(each) is int for each in numbers)
        if not is_list or numbers != mine["params"]:
            raise _misfit(
                f"a group is of other parameters than the {len(mine['params'])} that learn"
            )
        rate = group["lr"]
        if not isinstance(rate, float) or not 0 <= rate < math.inf:
            raise _misfit("its learning rate is no finite number of at least 0")
    return float(groups[0]["lr"])


def _checked_moments(
    optimizer: torch.optim.Optimizer, parameter: Tensor, state: object, place: int, steps: float
) -> dict[str, Tensor]:
    """The moments of a parameter, in memory of their own that is laid out as the parameter's."""
    names = ("square_avg",) if isinstance(optimizer, torch.optim.RMSprop) else _ADAM_MOMENTS
    if not isinstance(state, dict) or set(state) != {"step", *names}:
        raise _misfit(f"the state of parameter {place} must have step, {', '.join(names)}")
    done = state["step"]
    if isinstance(done, Tensor) and done.shape == () and done.dtype in _STEP_TYPES:
        done = done.item()
    if isinstance(done, bool) or not isinstance(done, int | float):
        raise _misfit(f"the step of parameter {place} is not one number")
    if not 0 <= done <= steps or done != int(done):
        raise _misfit(f"the step of parameter {place} is {done}: it must be 0 to {steps}")
    loaded = {"step": torch.tensor(float(done), dtype=torch.float32)}
    for name in names:
        value, kind = state[name], f"{list(parameter.shape)} of {parameter.dtype}"
        same = isinstance(value, Tensor) and value.layout == parameter.layout
        if not same or (value.shape, value.dtype) != (parameter.shape, parameter.dtype):
            raise _misfit(f"the {name} of parameter {place} is no tensor {kind}")
        if not bool((value >= 0).all() if name in _SQUARES else value.isfinite().all()):
            raise _misfit(f"the {name} of parameter {place} has numbers that no training reaches")
        loaded[name] = torch.empty_like(parameter, device=value.device).copy_(value.detach())
    return loaded


def _misfit(reason: str) -> RunError:
    return RunError(
        f"the checkpoint does not fit the optimizer: {reason}; restore it from a copy, or train "
        "again"
    )


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
