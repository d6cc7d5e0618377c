"""What the scaling study found: what was measured and what was modelled, in types of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgti.bench.results import Machine, Spread
from pgti.bench.scaling_model import ModelledStep, Parts
from pgti.bench.scaling_network import Network, Timing
from pgti.bench.scaling_options import ScalingOptions

__all__ = ["PAPER_RATIO", "PAPER_RATIO_V1", "Measured", "Modelled", "Ratio", "ScalingResult"]

PAPER_RATIO = 11.78
"""Replicated over DDP through Dask at 128 GPUs (arXiv 2507.11683, version 2 and later)."""
PAPER_RATIO_V1 = 13.1
"""The same in version 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Steps of one system with so many local ranks; each is the slowest rank's.

    Args:
        system: its name.
        ranks: how many.
        step_seconds: medians of the rounds.
        fetch_seconds: of it, until the batch is there.
        compute_seconds: of it, forward, backward and optimiser.
        communication_seconds: of it, collectives, waiting for slower ranks included.
        windows_per_second: of all ranks.
        epoch_seconds: of `epoch_windows` windows, at the median step.
        sent_bytes: that rank 0 handed over in a step, by kind.
        exchange_bytes: rows sent between ranks in the first step of an epoch, by arithmetic; 0
            where none cross.
        is_oversubscribed: whether there are more ranks than cores.
        modelled: the same step by the model.
        model_error: of it, as a share of the measured median: positive where the model is slower.
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
    """A step that nobody took.

    Args:
        system: its name.
        ranks: how many.
        network: between them.
        step: by the model.
        exchange_bytes: rows sent between all ranks in a step.
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
    """Modelled steps at the largest number of ranks in times of the replicated system's.

    Args:
        network: between the ranks.
        ranks: how many.
        compute_scale: what measured compute was multiplied by: less than 1 stands for a faster
            processor.
        over_replicated: by system.
    """

    network: str
    ranks: int
    compute_scale: float
    over_replicated: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingResult:
    """What `measure_scaling` found.

    Args:
        options: as they were asked for.
        machine: where it was measured.
        load_before: processes of others that wanted its cores in the minute before; None where
            the system does not tell.
        store: of the windows; None for a simulated one that is gone.
        num_steps: its rows.
        num_nodes: its sensors.
        train_windows: its training windows.
        parameters: that the model has.
        made_bytes: of the windows that were written out or held by Dask, by system.
        parts: what the model is made of.
        timings: of all-reduces, that the loopback network was fitted to.
        networks: that are modelled.
        measured: steps that ranks took.
        predictions: steps that nobody took.
        ratios: of the predictions.
        paper_ratio: what the paper measured at 128 GPUs.
        paper_ratio_v1: what its first version said.
        left_out: what was not measured and why, a line each.
    """

    options: ScalingOptions
    machine: Machine
    load_before: float | None
    store: Path | None
    num_steps: int
    num_nodes: int
    train_windows: int
    parameters: int
    made_bytes: Mapping[str, int]
    parts: Parts
    timings: tuple[Timing, ...]
    networks: tuple[Network, ...]
    measured: tuple[Measured, ...]
    predictions: tuple[Modelled, ...]
    ratios: tuple[Ratio, ...]
    left_out: tuple[str, ...]
    paper_ratio: float = PAPER_RATIO
    paper_ratio_v1: float = PAPER_RATIO_V1
