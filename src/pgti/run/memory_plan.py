"""How a training run fits into memory: one trial step, and what follows from it."""

import math
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from pgti.batching import Batcher, WindowSource
from pgti.display import size_text
from pgti.errors import ConfigError, option
from pgti.memory import (
    GPU_FRACTION,
    MallocPolicy,
    available_bytes,
    can_trim,
    malloc_policy,
    pss_bytes,
    step_peak_bytes,
    trim_malloc,
)
from pgti.models import AbstractModel
from pgti.run.config import RunConfig
from pgti.run.memory_estimate import (
    ActivationCost,
    MemoryEstimate,
    fixed_memory,
    parameter_bytes,
)
from pgti.training.step import TrainStep

__all__ = ["MemoryEstimate", "MemoryPlan", "plan_memory"]

# The fraction of free memory that an estimate may come to under each policy of malloc. Measured
# with glibc 2.36: beside the tensors alive, a process grows to 1.6 times their size by default (3
# times with activation checkpointing), to 4 times if it retains what is freed, and to no more than
# the tensors if it trims.
_RETAIN_FRACTION = 0.25
_DEFAULT_FRACTION = {False: 0.6, True: 0.33}  # by activation checkpointing
_TRIM_FRACTION = 0.9  # operators have scratch memory that the trial does not see
_NEGLIGIBLE_RATIO = (
    20  # where a window takes so many times what is constant, two take twice as much
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """How a run will use memory.

    Attributes:
        estimate: what it will need.
        activation_checkpointing: whether the backward pass recomputes activations.
        leaves_device: whether rows that were to be on the GPU leave too little room there: they are
            read on the host.
        malloc_policy: what becomes of freed memory.
        choices: what was measured and chosen, in one line each.
    """

    estimate: MemoryEstimate
    activation_checkpointing: bool
    leaves_device: bool
    malloc_policy: MallocPolicy
    choices: tuple[str, ...]


def plan_memory(  # noqa: PLR0913 - each names one fact of the run
    config: RunConfig,
    source: WindowSource,
    train_step: TrainStep,
    batcher: Batcher[Any],
    start: int,
    *,
    batch_size: int,
    num_evaluated: int = 0,
    resident_bytes: int = 0,
    may_leave_device: bool = False,
    num_sharing: int = 1,
    checkpointed_before: bool | None = None,
    agree: Callable[[bool], bool] | None = None,
) -> MemoryPlan:
    """Measure a training step, and turn on activation checkpointing where it would not fit without.

    One window goes through the network and back, and a second one where parameters or operators of
    the graph matter: the memory of a batch is linear in its windows. The network is left as the
    plan says.

    Args:
        config: batch size, precision, `activation_checkpointing` and `memory_budget`.
        source: what the windows hold.
        train_step: the step to try.
        batcher: makes the windows.
        start: first row of the window to try.
        batch_size: the most windows of a batch that this rank takes.
        num_evaluated: the most windows of a batch of evaluation that this rank takes.
        resident_bytes: of the rows that it will hold in the memory of its device.
        may_leave_device: whether they may be read on the host instead, which is tried before
            activations are checkpointed.
        num_sharing: ranks that share the free memory, itself included.
        checkpointed_before: whether the run that is resumed has used activation checkpointing; it
            continues likewise, because the last bits of gradients depend on it.
        agree: whether something is true of any rank, where ranks compute a window together and so
            have to try the same steps.

    Raises:
        ConfigError: if a step does not fit, saying what to change; or activation checkpointing is
            "on" and the model does not support it.
    """
    network = train_step.forecaster.network
    fitting = _Fitting(
        config=config,
        train_step=train_step,
        batcher=batcher,
        start=start,
        batch_size=batch_size,
        free_bytes=_free_bytes(config, train_step.device) // num_sharing,
        fixed=fixed_memory(
            config.training,
            source,
            train_step.forecaster,
            resident_bytes,
            num_evaluated if _is_gpu(train_step.device) else 0,
        ),
        num_evaluated=num_evaluated,
        agree=agree,
    )
    options = _checkpointing_options(config, network, checkpointed_before)
    costs: dict[bool, ActivationCost] = {}
    for checkpointing in options:
        if isinstance(network, AbstractModel):
            network.activation_checkpointing = checkpointing
        is_last = checkpointing == options[-1]
        costs[checkpointing] = cost = fitting.measure(is_last=is_last)
        fits = fitting.fits(cost, is_last=is_last)
        if not fits and may_leave_device and not fitting.leaves_device:
            fitting = fitting.without_rows()
            fits = fitting.fits(cost, is_last=is_last)
        if fits:
            return fitting.plan(costs, checkpointing=checkpointing)
    raise ConfigError(fitting.refusal(costs))


def _checkpointing_options(
    config: RunConfig, network: nn.Module, checkpointed_before: bool | None
) -> tuple[bool, ...]:
    """Whether to checkpoint activations: what to try, in this order."""
    setting = config.training.activation_checkpointing
    if not _can_checkpoint(network):
        if setting == "on":
            raise ConfigError(
                f"activation_checkpointing is 'on' and the model {config.model.name} has no way to "
                f"recompute its activations: use {option('activation_checkpointing', 'auto')}"
            )
        return (False,)
    if setting == "auto" and checkpointed_before is not None:
        return (checkpointed_before,)
    return {"auto": (False, True), "on": (True,), "off": (False,)}[setting]


def _can_checkpoint(network: nn.Module) -> bool:
    return isinstance(network, AbstractModel) and network.can_checkpoint_activations


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitting:
    """One rank's search for a way to train in the memory that is free."""

    config: RunConfig
    train_step: TrainStep
    batcher: Batcher[Any]
    start: int
    batch_size: int
    free_bytes: int
    fixed: MemoryEstimate  # for a batch of one window, without its activations
    num_evaluated: int = 0
    agree: Callable[[bool], bool] | None = None
    leaves_device: bool = False

    def without_rows(self) -> Self:
        """The same where rows that were to be on the device are read on the host."""
        return replace(self, fixed=replace(self.fixed, rows=0), leaves_device=True)

    def fits(self, cost: ActivationCost, *, is_last: bool) -> bool:
        """Whether training fits, on every rank that computes windows together with this one."""
        return not self.any(self.needed(cost, self.batch_size) > self.usable(is_last=is_last))

    def any(self, value: bool) -> bool:
        """Whether it is true of any rank that computes windows together with this one."""
        return value if self.agree is None else self.agree(value)

    def usable(self, *, is_last: bool) -> int:
        """Bytes that an estimate may come to; the last option is tried with a malloc that trims."""
        fraction = _DEFAULT_FRACTION[False]
        if self._on_gpu:
            fraction = GPU_FRACTION
        elif is_last and can_trim():
            fraction = _TRIM_FRACTION
        return int(fraction * self.free_bytes)

    @property
    def _on_gpu(self) -> bool:
        return _is_gpu(self.train_step.device)

    def needed(self, cost: ActivationCost, batch_size: int) -> float:
        """Bytes that training needs; infinite where the activations are."""
        if math.isinf(cost.at(batch_size)):
            return math.inf
        return self._estimate(cost, batch_size).needed

    def _estimate(self, cost: ActivationCost, batch_size: int) -> MemoryEstimate:
        return replace(
            self.fixed,
            activations=int(cost.at(batch_size)),
            batches=self.fixed.batches * batch_size,
            history=self.fixed.history * max(batch_size, self.num_evaluated),
        )

    def measure(self, *, is_last: bool) -> ActivationCost:
        """Bytes of one window and of each further one; infinite above what is usable.

        A network from elsewhere is tried with two windows at least: some cannot train on one.
        """
        # The trial must fit as the run must: it ends where it takes more.
        with malloc_policy("trim" if is_last else "default"):
            self.train_step.forecaster.train()
            is_own = isinstance(self.train_step.forecaster.network, AbstractModel)
            tried = 1 if is_own else min(2, self.batch_size)
            peak = self._peak(tried, is_last=is_last)
            further = peak / tried
            forecaster = self.train_step.forecaster
            constant = parameter_bytes(forecaster) + forecaster.supports.built_bytes
            is_small = peak <= _NEGLIGIBLE_RATIO * constant
            if self.batch_size > tried and self.any(is_small):
                further = max(0, self._peak(tried + 1, is_last=is_last) - peak)
        trim_malloc()  # or the buffers of batches would lie between the holes it left
        return ActivationCost(tried=tried, peak=peak, further=further)

    def _peak(self, num_windows: int, *, is_last: bool) -> float:
        batch = self.batcher.gather(np.full(num_windows, self.start))
        forecaster, limit_bytes = self.train_step.forecaster, self.usable(is_last=is_last)
        if self.agree is not None:  # a rank that stopped in the step would leave others waiting
            limit_bytes = sys.maxsize
        forecaster.supports.free_memory()  # it is part of what the step takes
        differentiate = partial(self.train_step.differentiate, batch)
        peak = step_peak_bytes(differentiate, forecaster.network, batch.x.device, limit_bytes)
        if peak is None and self.agree is not None:
            raise ConfigError(
                "a step of this rank's sensors exceeds the memory: use more shards "
                f"({option('shard_sensors')}), or {option('activation_checkpointing', 'on')}"
            )
        return math.inf if peak is None else peak

    def plan(self, costs: dict[bool, ActivationCost], *, checkpointing: bool) -> MemoryPlan:
        """The plan with the cost that fits."""
        estimate = self._estimate(costs[checkpointing], self.batch_size)
        policy: MallocPolicy = "trim"
        if self._on_gpu:
            policy = "default"  # what is estimated is not the host's
        elif estimate.needed <= _RETAIN_FRACTION * self.free_bytes:
            policy = "retain"
        elif estimate.needed <= _DEFAULT_FRACTION[checkpointing] * self.free_bytes:
            policy = "default"
        choices = [f"memory: about {estimate}; {size_text(self.free_bytes)} are free"]
        if checkpointing:
            reason = "as asked"  # now, or when the run began
            if False in costs:
                needed = self.needed(costs[False], self.batch_size)
                reason = f"{costs[False].too_many} would take too much otherwise"
                if math.isfinite(needed):
                    reason = f"{size_text(needed)} would be needed otherwise"
            choices.append(
                f"activation checkpointing on, the backward pass recomputes activations: {reason}"
            )
        return MemoryPlan(
            estimate=estimate,
            activation_checkpointing=checkpointing,
            leaves_device=self.leaves_device,
            malloc_policy=policy,
            choices=tuple(choices),
        )

    def refusal(self, costs: dict[bool, ActivationCost]) -> str:
        """Why nothing fits, and what would."""
        _, cost = max(costs.items())  # the option that takes the least comes last
        usable, size = self.usable(is_last=True), self.batch_size
        needed = self.needed(cost, size)
        is_known = math.isfinite(needed)
        about = f"more than there is for {cost.too_many}"
        if is_known:
            about = f"about {size_text(needed)}"
        changes = []
        if True not in costs and _can_checkpoint(self.train_step.forecaster.network):
            changes.append(f"use {option('activation_checkpointing', 'on')}")
        # What a larger batch needs is never less.
        fitting = bisect_right(range(1, size), float(usable), key=partial(self.needed, cost))
        if fitting:
            training = self.config.training
            factor = -(-size * training.accumulate // fitting)
            whole = fitting * training.batch_size // size  # of all ranks
            changes.append(
                f"use {option('batch_size', whole)} (with {option('accumulate', factor)} for steps "
                "of about as many windows)"
            )
        elif getattr(self.train_step.forecaster.network, "shard_refusal", "") is None:
            shards = 2 * self.config.shard_sensors
            changes.append(f"split the sensors over ranks ({option('shard_sensors', shards)})")
        if self.fixed.history:
            changes.append(f"shorten {option('windows.history')}")
        changes.append(f"make the model or {option('windows.input_steps')} smaller")
        return (
            f"training needs {about}, and {size_text(usable)} of the {size_text(self.free_bytes)} "
            f"that are free may be used: {', or '.join(changes)}"
        )


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _free_bytes(config: RunConfig, device: torch.device) -> int:
    """What the run may still take: of its budget, else of the device or the machine."""
    free = available_bytes(device)
    if config.memory_budget is None:
        return free
    on_gpu = _is_gpu(device)
    taken = torch.cuda.memory_allocated(device) if on_gpu else (pss_bytes() or 0)
    left = config.memory_budget - taken
    if left <= 0:
        raise ConfigError(
            f"memory_budget is {size_text(config.memory_budget)} and {size_text(taken)} are in use "
            f"before training begins: give it more, or use {option('batching', 'index')}"
        )
    return min(free, left)
