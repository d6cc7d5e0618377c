"""Results of the scaling study: measured and modelled steps, in separate types."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgti.run.results import Machine, Spread
from pgti_bench.scaling.model import ModelledStep, Parts
from pgti_bench.scaling.network import Network, Timing
from pgti_bench.scaling.options import ScalingOptions

__all__ = [
    "PAPER_EPOCH_SECONDS",
    "PAPER_RATIO",
    "PAPER_RATIOS",
    "PAPER_RATIO_V1",
    "DaskFetch",
    "Measured",
    "Modelled",
    "Ratio",
    "ScalingResult",
]

PAPER_RATIO = 11.78
"""Replicated over DDP through Dask at 128 GPUs (arXiv 2507.11683, version 2 and later)."""
PAPER_RATIO_V1 = 13.1
"""The same in version 1."""
PAPER_EPOCH_SECONDS = 290.65 * 60 / 30
"""Of the paper's PeMS on one A100 with the series on it: a thirtieth of the whole run (Table 4)."""
PAPER_RATIOS = {4: 2.16, 128: PAPER_RATIO}
"""The same by the number of GPUs: what is known of the paper's bars."""


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
        startup_seconds: until the first step: starting the ranks, and what the system prepares of
            the measured series (windows, Dask's workers, copies).
        run_seconds: of the start-up and `epochs` epochs.
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
    startup_seconds: float
    run_seconds: float
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
        run_seconds: of `epochs` epochs after the start-up that was measured with the most ranks.
    """

    system: str
    ranks: int
    network: str
    step: ModelledStep
    exchange_bytes: int
    windows_per_second: float
    epoch_seconds: float
    run_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DaskFetch:
    """Batches that W ranks fetched at the same time from W workers of Dask, without computing.

    Attributes:
        ranks: W.
        batch_bytes: of a rank's batch.
        seconds: median of the slowest rank's batches.
        scheduler_seconds: CPU time of the scheduler's process per call of `compute`.
        modelled_seconds: of the same batch by a model that knows one rank alone. The steps of
            the study are modelled with the scheduler's time per call of the most ranks.
        model_error: relative to the measured seconds; positive if the model is slower.
    """

    ranks: int
    batch_bytes: int
    seconds: float
    scheduler_seconds: float
    modelled_seconds: float
    model_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """Modelled steps at the largest number of ranks over those of the replicated system.

    Attributes:
        network: between the ranks.
        ranks: the number of ranks.
        compute_scale: factor of the measured compute time: less than 1 stands for a faster
            processor.
        over_replicated: by system.
        runs_over_replicated: the same of whole runs, with start-up; None where compute is scaled.
    """

    network: str
    ranks: int
    compute_scale: float
    over_replicated: Mapping[str, float]
    runs_over_replicated: Mapping[str, float] | None


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
        dask_fetches: of several ranks at once, by their number.
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
    dask_fetches: tuple[DaskFetch, ...]
    predictions: tuple[Modelled, ...]
    ratios: tuple[Ratio, ...]
    left_out: tuple[str, ...]
    paper_ratio: float = PAPER_RATIO
    paper_ratio_v1: float = PAPER_RATIO_V1
