"""Results of the scaling study: measured and modelled steps, in separate types."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgti.run.results import Machine, Spread
from pgti_bench.scaling.model import ModelledStep, Parts
from pgti_bench.scaling.network import Network, Timing
from pgti_bench.scaling.options import ScalingOptions

__all__ = ["PAPER_RATIO", "PAPER_RATIO_V1", "Measured", "Modelled", "Ratio", "ScalingResult"]

PAPER_RATIO = 11.78
"""Replicated over DDP through Dask at 128 GPUs (arXiv 2507.11683, version 2 and later)."""
PAPER_RATIO_V1 = 13.1
"""The same in version 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Measured steps of one system at one number of local ranks; each is the slowest rank's.

    Attributes:
        system: its name.
        ranks: the number of ranks.
        step_seconds: medians of the rounds.
        fetch_seconds: of a step, until the batch is available.
        compute_seconds: of a step, forward, backward and optimizer.
        communication_seconds: of a step, collectives, waiting for slower ranks included.
        windows_per_second: of all ranks.
        epoch_seconds: of `epoch_windows` windows, at the median step.
        sent_bytes: sent by rank 0 per step, by kind.
        exchange_bytes: of the rows sent between ranks in the first step of an epoch, computed
            from the schedule.
        is_oversubscribed: whether there are more ranks than cores.
        modelled: the same step by the model.
        model_error: relative to the measured median; positive if the model is slower.
    """

    system: str
    ranks: int
    step_seconds: Spread
    fetch_seconds: Spread
    compute_seconds: Spread
    communication_seconds: Spread
    windows_per_second: float
    epoch_seconds: float
    sent_bytes: Mapping[str, float]
    exchange_bytes: int
    is_oversubscribed: bool
    modelled: ModelledStep
    model_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Modelled:
    """A modelled step that was never run.

    Attributes:
        system: its name.
        ranks: the number of ranks.
        network: between them.
        step: by the model.
        exchange_bytes: of the rows sent between all ranks in a step.
        windows_per_second: of all ranks.
        epoch_seconds: of `epoch_windows` windows.
    """

    system: str
    ranks: int
    network: str
    step: ModelledStep
    exchange_bytes: int
    windows_per_second: float
    epoch_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """Modelled steps at the largest number of ranks over those of the replicated system.

    Attributes:
        network: between the ranks.
        ranks: the number of ranks.
        compute_scale: factor of the measured compute time: less than 1 stands for a faster
            processor.
        over_replicated: by system.
    """

    network: str
    ranks: int
    compute_scale: float
    over_replicated: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingResult:
    """The result of `measure_scaling`.

    Attributes:
        options: as given.
        machine: where it was measured.
        load_before: load average of the machine in the minute before; None where the system does
            not report it.
        store: of the windows; None for a temporary one.
        num_steps: its time steps.
        num_nodes: its sensors.
        train_windows: its training windows.
        parameters: number of trainable parameters of the model.
        materialized_bytes: of the windows in a file or in Dask's workers, by system.
        parts: inputs of the model.
        timings: of all-reduces, to which the loopback network is fitted.
        networks: that are modelled.
        measured: steps that ranks took.
        predictions: modelled steps.
        ratios: of the predictions.
        paper_ratio: measured by the paper at 128 GPUs.
        paper_ratio_v1: in its first version.
        left_out: what was not measured and why, one line each.
    """

    options: ScalingOptions
    machine: Machine
    load_before: float | None
    store: Path | None
    num_steps: int
    num_nodes: int
    train_windows: int
    parameters: int
    materialized_bytes: Mapping[str, int]
    parts: Parts
    timings: tuple[Timing, ...]
    networks: tuple[Network, ...]
    measured: tuple[Measured, ...]
    predictions: tuple[Modelled, ...]
    ratios: tuple[Ratio, ...]
    left_out: tuple[str, ...]
    paper_ratio: float = PAPER_RATIO
    paper_ratio_v1: float = PAPER_RATIO_V1
