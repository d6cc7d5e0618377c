"""What the scaling study has measured so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgti_bench.scaling.model import DaskCosts, SystemParts
from pgti_bench.scaling.network import Timing

__all__ = ["Compute", "Fetches", "Measurements", "Round"]

_WHOLE_CORE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Steps of one round: medians over the steps, of the slowest rank in each.

    Attributes:
        step: seconds of a step.
        fetch: seconds of fetching in it.
        compute: seconds of computation in it.
        communication: seconds of collectives in it.
        sent_bytes: of rank 0, in all steps of the round.
    """

    step: float
    fetch: float
    compute: float
    communication: float
    sent_bytes: Mapping[str, int]


@dataclass(kw_only=True, slots=True)
class Compute:
    """Steps without fetch and collectives, on at most as many ranks at once as there are cores.

    Attributes:
        cpu_seconds: CPU time of each.
        seconds: wall-clock time of all of them, summed.
    """

    cpu_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def competitors(self, busy: int, cores: int) -> float:
        """How many other processes competed with the busy ranks, if all got equal CPU time.

        Busy ranks and k others on C cores get C / (busy + k) of a core each. 0 if the ranks got
        nearly a whole core each.
        """
        fraction = sum(self.cpu_seconds) / self.seconds
        return 0.0 if fraction > _WHOLE_CORE else max(0.0, cores / fraction - busy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetches:
    """Batches of Dask that several ranks fetched at once.

    Attributes:
        ranks: how many.
        batch_bytes: of a rank's batch.
        seconds: of a batch: the slowest rank's median.
        scheduler_seconds: CPU time of the scheduler's process per call.
    """

    ranks: int
    batch_bytes: int
    seconds: float
    scheduler_seconds: float


@dataclass(kw_only=True, slots=True)
class Measurements:
    """Everything measured so far.

    Attributes:
        rounds: by system and number of ranks.
        compute: by number of ranks.
        systems: what one rank alone takes to make a batch, by system.
        timings: of all-reduces.
        materialized_bytes: of the windows in a file or in Dask's workers, by system.
        startup_seconds: of starting the ranks and preparing a system, by system and number of
            ranks.
        dask: Dask's costs.
        fetches: of Dask's batches by several ranks at once.
        gradient_bytes: of the all-reduce of gradients.
        message_bytes: of the all-reduce behind it.
        parameters: number of trainable parameters.
    """

    rounds: dict[tuple[str, int], list[Round]] = field(default_factory=dict)
    compute: dict[int, Compute] = field(default_factory=dict)
    systems: dict[str, SystemParts] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    materialized_bytes: dict[str, int] = field(default_factory=dict)
    startup_seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    dask: DaskCosts | None = None
    fetches: list[Fetches] = field(default_factory=list)
    gradient_bytes: int = 0
    message_bytes: int = 0
    parameters: int = 0
