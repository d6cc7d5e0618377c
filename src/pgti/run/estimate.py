"""What a training run will need in memory, and what is done so that it fits."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pgti.batching import Batcher, WindowSource
from pgti.errors import ConfigError
from pgti.memory.available import available_bytes
from pgti.memory.malloc import (
    MallocPolicy,
    can_trim,
    malloc_policy,
    trim_malloc,
)
from pgti.memory.process import pss_bytes
from pgti.memory.step_peak import step_peak_bytes
from pgti.models import AbstractModel
from pgti.run.config import RunConfig
from pgti.training import HistoricalAverageForecaster, NetworkForecaster
from pgti.training.step import TrainStep

__all__ = ["MemoryEstimate", "MemoryPlan", "RankPart", "plan_memory"]

# Shares of what is free that a run may need. Measured with glibc 2.36: where activations are kept,
# a process grows to 1.6 times what its tensors need, and to 3 times where they are checkpointed, if
# the allocator has its way; to 4 times if what is freed stays; to no more than the tensors if it is
# given back at once.
_FREE_SHARE = 0.9  # operators have scratch memory that a trial does not see
_USUAL_SHARE = {False: 0.6, True: 0.33}  # by whether activations are checkpointed
_KEPT_SHARE = 0.25
_OPTIMISER_COPIES = 4  # of the parameters: two moments, and as much again during a step
_NEGLIGIBLE_FROM = 20  # windows that take so many times the parameters: these do not count
_UNKNOWN_FROM = 2**60  # more is no machine's memory: nothing tells what is free
_BATCHES_ALIVE = 4  # one in use, others ready or being read


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes that a run takes on its compute device, beyond what the process has already.

    Args:
        activations: of the passes forward and backward of a batch, gradients included.
        rows: of the series that the process holds in memory of its own.
        batches: that are read, made and used at the same time.
        optimiser: its moments, and what it needs during a step.
        baselines: tables that the forecasts are measured against, when training is over.
        series: in the page cache, which the system takes back when it wants to: not needed.
    """

    activations: int
    rows: int
    batches: int
    optimiser: int
    baselines: int
    series: int

    @property
    def needed(self) -> int:
        """The most at once."""
        return max(self.activations, self.baselines) + self.rows + self.batches + self.optimiser

    def __str__(self) -> str:
        named = ("activations", *(("rows",) * (self.rows > 0)), "batches", "optimiser", "baselines")
        parts = ", ".join(f"{name} {_size(getattr(self, name))}" for name in named)
        return f"{_size(self.needed)} ({parts}) and {_size(self.series)} of page cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """How a run will use memory.

    Args:
        estimate: what it will need.
        activation_checkpointing: whether activations are made again in the backward pass.
        freed: what becomes of freed memory.
        choices: what was found and chosen, in one line each.
    """

    estimate: MemoryEstimate
    activation_checkpointing: bool
    freed: MallocPolicy
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RankPart:
    """What one rank has of a run.

    Args:
        batch_size: windows of a batch that it takes at most.
        held_bytes: rows of the series that it holds in memory of its own.
        sharers: ranks that share the memory that is free, itself included.
    """

    batch_size: int
    held_bytes: int = 0
    sharers: int = 1


def plan_memory(
    config: RunConfig,
    source: WindowSource,
    train_step: TrainStep,
    batcher: Batcher,
    start: int,
    *,
    part: RankPart | None = None,
    checkpointed_before: bool | None = None,
) -> MemoryPlan:
    """Find what a training step takes; recompute activations where it would not fit otherwise.

    A window goes through the network and back, and where parameters count two of them: what a batch
    takes lies on a line. The network is left as the plan asks for.

    Args:
        config: batch size, precision, `activation_checkpointing` and `memory_budget`.
        source: what the windows hold.
        train_step: the step to try.
        batcher: makes the windows.
        start: first row of the window to try.
        part: what this rank has of the run; all of it if not given.
        checkpointed_before: what was chosen when the run began, if it goes on now: it stays so,
            because the last bits of gradients depend on it.

    Raises:
        ConfigError: if a step does not fit, saying what to change; or recomputation is asked of a
            model that cannot.
    """
    forecaster = train_step.forecaster
    network, wish = forecaster.network, config.training.activation_checkpointing
    can_checkpoint_activations = (
        isinstance(network, AbstractModel) and network.can_checkpoint_activations
    )
    if wish == "on" and not can_checkpoint_activations:
        raise ConfigError(
            f"activation_checkpointing is 'on' and the model {config.model.name} has no way to "
            "recompute its activations: use --activation-checkpointing auto"
        )
    if wish == "auto" and checkpointed_before is not None:
        wish = "on" if checkpointed_before and can_checkpoint_activations else "off"
    part = RankPart(batch_size=config.training.batch_size) if part is None else part
    room = _free_bytes(config, forecaster) // part.sharers
    others = _without_activations(source, forecaster, part.held_bytes)
    size = part.batch_size
    lines: dict[bool, ActivationCost] = {}
    for activation_checkpointing in {"auto": (False, True), "on": (True,), "off": (False,)}[wish]:
        if activation_checkpointing and not can_checkpoint_activations:
            continue
        if isinstance(network, AbstractModel):
            network.activation_checkpointing = activation_checkpointing
        is_last = activation_checkpointing or wish == "off" or not can_checkpoint_activations
        usable = int((_free_share(forecaster) if is_last else _USUAL_SHARE[False]) * room)
        # A trial must fit as the run must: what takes more is not tried to its end.
        with malloc_policy("trim" if is_last else "default"):
            line = _measure(train_step, batcher, start, usable, size)
        lines[activation_checkpointing] = line
        trim_malloc()  # or what a batch is made of would lie between its holes
        if others.needed(line, size) <= usable:
            return _plan(
                others,
                lines,
                activation_checkpointing=activation_checkpointing,
                size=size,
                room=room,
            )
    could = can_checkpoint_activations and True not in lines
    raise ConfigError(
        _refusal(config, forecaster, others, lines, room, size, could_checkpoint=could)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationCost:
    """Bytes of activations by batch size; infinite where the windows tried are too many.

    Args:
        tried: windows that were tried.
        peak: what they took.
        further: what each further one takes.
    """

    tried: int
    peak: float
    further: float

    def at(self, batch_size: int) -> float:
        if math.isinf(self.further) and batch_size <= self.tried:
            return self.peak
        return max(0.0, self.peak + self.further * (batch_size - self.tried))

    @property
    def too_many(self) -> str:
        """The windows that were too many, if any were."""
        windows = self.tried if math.isinf(self.peak) else self.tried + 1
        return "one window" if windows == 1 else f"{windows} windows"


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedMemory:
    """Bytes of everything but activations."""

    rows: int
    window: int
    optimiser: int
    baselines: int
    series: int

    def needed(self, line: ActivationCost, batch_size: int) -> float:
        if math.isinf(line.at(batch_size)):
            return math.inf
        return self.estimate(line, batch_size).needed

    def estimate(self, line: ActivationCost, batch_size: int) -> MemoryEstimate:
        return MemoryEstimate(
            activations=int(line.at(batch_size)),
            rows=self.rows,
            batches=self.window * batch_size,
            optimiser=self.optimiser,
            baselines=self.baselines,
            series=self.series,
        )


def _free_bytes(config: RunConfig, forecaster: NetworkForecaster) -> int:
    """What the run may still take: of its budget, else of the device or the machine."""
    device = forecaster.mean.device
    free = available_bytes(device)
    if config.memory_budget is None:
        return free
    on_gpu = device.type == "cuda"
    taken = torch.cuda.memory_allocated(device) if on_gpu else (pss_bytes() or 0)
    left = config.memory_budget - taken
    if left <= 0:
        raise ConfigError(
            f"memory_budget is {_size(config.memory_budget)} and {_size(taken)} are in use before "
            "training begins: give it more, or use --batching index"
        )
    return min(free, left)


def _free_share(forecaster: NetworkForecaster) -> float:
    """Of what is free, how much a run may need if freed memory is given back at once."""
    if forecaster.mean.device.type == "cpu" and not can_trim():
        return _USUAL_SHARE[False]
    return _FREE_SHARE


def _without_activations(
    source: WindowSource, forecaster: NetworkForecaster, held_bytes: int
) -> FixedMemory:
    meta, spec = source.store.meta, source.spec
    inputs, targets = source.num_input_channels, len(source.target_indices)
    decoded = spec.input_steps * (4 * inputs + meta.num_channels) + 5 * spec.horizon * targets
    stored = spec.span * meta.num_channels * source.store.raw.dtype.itemsize
    return FixedMemory(
        rows=held_bytes,
        window=_BATCHES_ALIVE * meta.num_nodes * (decoded + stored),
        optimiser=_OPTIMISER_COPIES * _parameter_bytes(forecaster),
        baselines=HistoricalAverageForecaster.fit_bytes(source.store, targets),
        series=source.store.num_bytes,
    )


def _parameter_bytes(forecaster: NetworkForecaster) -> int:
    return sum(each.numel() * each.element_size() for each in forecaster.parameters())


def _measure(
    train_step: TrainStep,
    batcher: Batcher,
    start: int,
    limit_bytes: int,
    batch_size: int,
) -> ActivationCost:
    """What one window takes, and what each further one does; infinite above the limit.

    Where a window outweighs the parameters, two would take twice as much: they are not tried. A
    network of one's own is tried with two windows at least: some cannot train on one.
    """
    forecaster = train_step.forecaster

    def peak(windows: int) -> float:
        batch = batcher.gather(np.full(windows, start))
        forecaster.supports.free_scratch()  # it is part of what the step takes
        differentiate = partial(train_step.differentiate, batch)
        found = step_peak_bytes(differentiate, forecaster.network, batch.x.device, limit_bytes)
        return math.inf if found is None else found

    forecaster.train()
    tried = 1 if isinstance(forecaster.network, AbstractModel) else min(2, batch_size)
    few = peak(tried)
    if batch_size == tried or few > _NEGLIGIBLE_FROM * _parameter_bytes(forecaster):
        return ActivationCost(tried=tried, peak=few, further=few / tried)
    return ActivationCost(tried=tried, peak=few, further=max(0, peak(tried + 1) - few))


def _plan(
    others: FixedMemory,
    lines: dict[bool, ActivationCost],
    *,
    activation_checkpointing: bool,
    size: int,
    room: int,
) -> MemoryPlan:
    estimate = others.estimate(lines[activation_checkpointing], size)
    freed: MallocPolicy = "retain" if estimate.needed <= _KEPT_SHARE * room else "default"
    if estimate.needed > _USUAL_SHARE[activation_checkpointing] * room:
        freed = "trim"
    free = f"; {_size(room)} are free" if room < _UNKNOWN_FROM else ""
    choices = [f"memory: about {estimate}{free}"]
    if activation_checkpointing:
        reason = "as asked"  # now, or when the run began
        if False in lines:
            kept = others.needed(lines[False], size)
            reason = f"{lines[False].too_many} would take too much otherwise"
            if math.isfinite(kept):
                reason = f"{_size(kept)} would be needed otherwise"
        choices.append(
            f"activation checkpointing on, the backward pass recomputes activations: {reason}"
        )
    return MemoryPlan(
        estimate=estimate,
        activation_checkpointing=activation_checkpointing,
        freed=freed,
        choices=tuple(choices),
    )


def _refusal(
    config: RunConfig,
    forecaster: NetworkForecaster,
    others: FixedMemory,
    lines: dict[bool, ActivationCost],
    room: int,
    size: int,
    *,
    could_checkpoint: bool,
) -> str:
    """Why nothing fits, and what would."""
    _, line = max(lines.items())  # the way that takes the least comes last
    usable = int(_free_share(forecaster) * room)
    needed = others.needed(line, size)
    about = f"more than there is for {line.too_many}"
    if math.isfinite(needed):
        about = f"about {_size(needed)}"
    changes = ["use --activation-checkpointing on"] if could_checkpoint else []
    fitting = next((b for b in range(size - 1, 0, -1) if others.needed(line, b) <= usable), 0)
    if fitting:
        factor = -(-size * config.training.accumulate // fitting)
        whole = fitting * config.training.batch_size // size  # of all ranks
        changes.append(f"use --batch-size {whole} (with --accumulate {factor} for steps of about "
                       "as many windows)")  # fmt: skip
    changes.append("make the model or --windows.input-steps smaller")
    return (
        f"training needs {about}, and {_size(usable)} of the {_size(room)} that are free may be "
        f"used: {', or '.join(changes)}"
    )


def _size(num_bytes: float) -> str:
    """Bytes for people."""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.1f} MiB"
