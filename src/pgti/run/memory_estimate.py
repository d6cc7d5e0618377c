"""What a training run takes in memory, from one trial step and the sizes of its parts."""

import math
from dataclasses import dataclass

import torch

from pgti.batching import PREFETCH_DEPTH, WindowSource
from pgti.display import size_text
from pgti.distributed import Communicator
from pgti.forecasting import (
    HistoricalAverageForecaster,
    NetworkForecaster,
    breakdown_bytes,
    num_scores,
    scored_levels,
)
from pgti.memory import device_peak_bytes
from pgti.training import TrainingConfig

__all__ = [
    "ActivationCost",
    "MemoryEstimate",
    "fixed_memory",
    "largest_peak_bytes",
    "parameter_bytes",
]

# Of the parameters: what the optimizer keeps, and two during a step. Several ranks have one more,
# the buckets of gradients, but during the backward pass those of the step are not needed yet.
_COPIES_IN_STEP = 2
_MOMENTS = {"adam": 2, "adamw": 2, "rmsprop": 1}
_BATCHES_ALIVE = 4  # one in use, the others ready or being read
_PLACE_BYTES = 17  # of a row of history: where it is, what is typical of it, whether it is there


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes that a run takes on its compute device, beyond what the process has already.

    Attributes:
        activations: of the forward and backward pass of a batch, gradients included.
        rows: of the series that the process holds in its own memory.
        batches: that are read, assembled and used at the same time, without history.
        history: of those batches: decoded for the one in use, as it is stored for all of them.
        typical: what each sensor usually reads, where inputs need it.
        optimizer: its moments, what it needs during a step, and the average of the weights.
        baselines: tables of the forecasts to compare with, built when training has ended.
        errors: temporary numbers of an evaluation that breaks errors down; on GPUs alone, whose
            batches are large beside what the process has already.
        series: in the page cache, which the system takes back when it needs to: not counted.
    """

    activations: int
    rows: int
    batches: int
    history: int
    typical: int
    optimizer: int
    baselines: int
    errors: int
    series: int

    @property
    def needed(self) -> int:
        """The most at once."""
        held = self.rows + self.batches + self.history + self.typical + self.optimizer
        return max(self.activations, self.baselines + self.errors) + held

    def __str__(self) -> str:
        some = [name for name in ("rows", "typical", "history") if getattr(self, name)]
        last = ["errors"] if self.errors else []
        named = ("activations", *some, "batches", "optimizer", "baselines", *last)
        parts = ", ".join(f"{name} {size_text(getattr(self, name))}" for name in named)
        return f"{size_text(self.needed)} ({parts}) and {size_text(self.series)} of page cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationCost:
    """Bytes of activations by batch size; infinite where the windows tried were too many.

    Attributes:
        tried: windows that were tried.
        peak: bytes that they took.
        further: bytes that each further window takes.
    """

    tried: int
    peak: float
    further: float

    def at(self, batch_size: int) -> float:
        """Bytes of a batch."""
        if math.isinf(self.further) and batch_size <= self.tried:
            return self.peak
        return max(0.0, self.peak + self.further * (batch_size - self.tried))

    @property
    def too_many(self) -> str:
        """The windows that were too many, if any were."""
        windows = self.tried if math.isinf(self.peak) else self.tried + 1
        return "one window" if windows == 1 else f"{windows} windows"


def fixed_memory(
    config: TrainingConfig,
    source: WindowSource,
    forecaster: NetworkForecaster,
    resident_bytes: int,
    num_evaluated: int,
) -> MemoryEstimate:
    """The estimate for a batch of one window, without its activations.

    Args:
        config: the optimizer, and whether weights are averaged.
        source: what the windows hold.
        forecaster: with the network to train.
        resident_bytes: of rows in memory.
        num_evaluated: windows of a batch of evaluation whose temporary numbers count.
    """
    num_targets = len(source.target_indices)
    window = source.window_bytes + source.spec.span * source.stored_row_bytes
    if source.is_exact:  # inputs in float64, before their offsets are subtracted
        readings = source.num_nodes * source.store.meta.num_channels
        window += 8 * source.spec.input_steps * readings
    return MemoryEstimate(
        activations=0,
        rows=resident_bytes,
        batches=_BATCHES_ALIVE * window,
        history=_history_bytes(source),
        typical=source.typical_bytes,
        optimizer=_optimizer_bytes(config, forecaster),
        baselines=HistoricalAverageForecaster.fit_bytes(
            source.store, num_targets, source.num_nodes
        ),
        errors=num_evaluated
        * source.num_nodes
        * num_targets
        * breakdown_bytes(source.spec.horizon, num_scores(scored_levels(forecaster))),
        series=source.series_bytes,
    )


def _optimizer_bytes(config: TrainingConfig, forecaster: NetworkForecaster) -> int:
    copies = _MOMENTS[config.optimizer.kind] + _COPIES_IN_STEP
    average = 0
    if config.ema_decay:
        average = sum(each.nbytes for each in forecaster.network.buffers())
        copies += 1
    return copies * parameter_bytes(forecaster) + average


def _history_bytes(source: WindowSource) -> int:
    """Of one window's history: decoded, and stored rows with their places in those being read."""
    stored = source.stored_row_bytes + _PLACE_BYTES
    return source.history_bytes + PREFETCH_DEPTH * source.spec.history_steps * stored


def parameter_bytes(forecaster: NetworkForecaster) -> int:
    """Bytes of a forecaster's parameters."""
    return sum(each.numel() * each.element_size() for each in forecaster.parameters())


def largest_peak_bytes(device: torch.device, communicator: Communicator) -> int | None:
    """The most that tensors took on the GPU of any rank; None on a CPU. Every rank calls it."""
    peak = device_peak_bytes(device)
    return communicator.all_reduce_max([peak or 0])[0] or None
