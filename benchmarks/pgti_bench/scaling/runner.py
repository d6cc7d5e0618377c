"""Measures all systems, at one number of ranks after the other."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pgti.store import SeriesStore
from pgti_bench.errors import BenchError
from pgti_bench.interleave import interleave
from pgti_bench.scaling.dask import DaskBatcher
from pgti_bench.scaling.model import DaskCosts, SystemParts
from pgti_bench.scaling.network import Timing, fit_line
from pgti_bench.scaling.options import DASK, ScalingOptions
from pgti_bench.scaling.workers import RankWorkers, open_cluster
from pgti_bench.worker import Worker

__all__ = ["Compute", "Measurements", "Round", "ScalingRunner"]

_COLLECTIVE_BYTES = (8, 1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 22)
_ALL_REDUCES = 15
_BATCHES_ALONE = 10  # batches that one rank makes alone
_COMPUTE_STEPS = 4  # steps per measurement of computation
_WHOLE_CORE = 0.95
_FRACTIONS = (1, 2, 4)  # Dask fetches 1 / n of a batch: the cost per byte follows

_IDLE_SECONDS = 1.0
_MIN_SECONDS_PER_BYTE = 1e-12  # if larger batches were not slower: a terabyte per second


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


@dataclass(kw_only=True, slots=True)
class Measurements:
    """Everything measured so far.

    Attributes:
        rounds: by system and number of ranks.
        compute: by number of ranks.
        systems: what one rank alone takes to make a batch, by system.
        timings: of all-reduces.
        materialized_bytes: of the windows in a file or in Dask's workers, by system.
        dask: Dask's costs.
        gradient_bytes: of the all-reduce of gradients.
        control_bytes: of the all-reduce before it.
        parameters: number of trainable parameters.
    """

    rounds: dict[tuple[str, int], list[Round]] = field(default_factory=dict)
    compute: dict[int, Compute] = field(default_factory=dict)
    systems: dict[str, SystemParts] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    materialized_bytes: dict[str, int] = field(default_factory=dict)
    dask: DaskCosts | None = None
    gradient_bytes: int = 0
    control_bytes: int = 0
    parameters: int = 0


class ScalingRunner:
    """Measures the systems at one number of ranks after the other.

    Args:
        options: what to measure.
        store: whose windows.
        windows: directory of the written windows.
        cores: of this machine.
        log: receives one line for each thing that is done.

    Attributes:
        measurements: everything measured so far.
    """

    def __init__(
        self,
        options: ScalingOptions,
        store: SeriesStore,
        windows: Path,
        cores: int,
        log: Callable[[str], None],
    ) -> None:
        self.measurements = Measurements()
        self._options, self._store, self._windows = options, store, windows
        self._cores, self._log = cores, log

    def measure(self, world_size: int) -> None:
        """Measure at this number of ranks.

        Raises:
            BenchError: a rank or the cluster failed.
        """
        options = self._options
        self._log(f"{_ranks(world_size)}: starting")
        with RankWorkers(world_size) as ranks:
            self._prepare(ranks)
            own = [name for name in options.systems if name != DASK]
            for system in own:
                self._build(ranks, system, str(self._windows) if system == "windows" else "")
            if own:
                self._run_rounds(ranks, own)
            if DASK in options.systems:
                self._with_dask(ranks)

    def _prepare(self, ranks: RankWorkers) -> None:
        """Open the store on every rank, and measure what all systems have in common."""
        options = self._options
        reply = ranks.ask(
            do="prepare",
            store=str(self._store.path.resolve()),
            window_steps=options.window_steps,
            batch_size=options.batch_size,
            hidden=options.hidden,
            seed=options.seed,
        )[0]
        self.measurements.gradient_bytes = reply["gradient_bytes"]
        self.measurements.control_bytes = reply["control_bytes"]
        self.measurements.parameters = reply["parameters"]
        world_size = ranks.world_size
        self._compute(ranks)
        if world_size > 1:
            sizes = list(_COLLECTIVE_BYTES)
            timed = ranks.ask(do="collectives", sizes=sizes, repeats=_ALL_REDUCES)[0]
            self.measurements.timings += [
                Timing(ranks=world_size, num_bytes=size, seconds=seconds)
                for size, seconds in zip(sizes, timed["seconds"], strict=True)
            ]

    def _compute(self, ranks: RankWorkers) -> None:
        """Measure computation without fetch and collectives; repeated, because loads change."""
        compute = self.measurements.compute.setdefault(ranks.world_size, Compute())
        busy = min(ranks.world_size, self._cores)
        for reply in ranks.ask(do="compute", first=busy, count=_COMPUTE_STEPS):
            compute.cpu_seconds += reply["cpu_seconds"]
            compute.seconds += sum(reply["seconds"])

    def _build(self, ranks: RankWorkers, system: str, place: str) -> None:
        """Build a system's loader; on a single rank, measure how long it takes to make a batch."""
        built = ranks.ask(do="build", system=system, place=place)[0]
        if ranks.world_size > 1 or system == DASK:
            return
        fetched = self._fetch(ranks, system, self._options.batch_size)
        self.measurements.systems[system] = SystemParts(
            prefetched=built["prefetched"],
            host_seconds=statistics.median(fetched["host"]),
            assemble_seconds=statistics.median(fetched["assemble"]),
        )

    def _fetch(self, ranks: RankWorkers, system: str, batch_size: int) -> dict[str, Any]:
        return ranks.ask(do="fetch", system=system, count=_BATCHES_ALONE, batch_size=batch_size)[0]

    def _run_rounds(self, ranks: RankWorkers, systems: Sequence[str]) -> None:
        runs = {name: partial(self._round, ranks, name) for name in systems}

        def end_round(done: int) -> None:
            self._compute(ranks)
            self._log(f"{who}: round {done} of {rounds} is done")

        who, rounds = f"{_ranks(ranks.world_size)}, {', '.join(systems)}", self._options.rounds
        interleave(runs, rounds, warmups=0, after_round=end_round)

    def _round(self, ranks: RankWorkers, system: str) -> float:
        """Run one round: the first steps of an epoch.

        Raises:
            BenchError: a rank failed, or the ranks ended with different parameters.
        """
        rounds = self.measurements.rounds.setdefault((system, ranks.world_size), [])
        replies = ranks.ask(do="steps", system=system, epoch=len(rounds), count=self._options.steps)
        if len({reply["parameters_sum"] for reply in replies}) > 1:
            raise BenchError(f"{system}: the ranks' parameters differ after the same steps")
        parts = {
            name: np.array([reply[name] for reply in replies])
            for name in ("fetch", "compute", "communication")
        }
        steps = np.sum(list(parts.values()), axis=0)
        slowest = steps.argmax(axis=0), np.arange(steps.shape[1])
        medians = {name: float(np.median(values[slowest])) for name, values in parts.items()}
        rounds.append(
            Round(
                step=float(np.median(steps[slowest])),
                sent_bytes=replies[0]["sent_bytes"],
                **medians,
            )
        )
        return rounds[-1].step

    def _with_dask(self, ranks: RankWorkers) -> None:
        """Run Dask's cluster while its own system is measured, and no longer."""
        world_size = ranks.world_size
        self._log(f"{_ranks(world_size)}: starting Dask with equally many workers")
        with ExitStack() as stack:
            cluster = stack.enter_context(open_cluster())
            started = cluster.ask(
                do="start",
                store=str(self._store.path.resolve()),
                window_steps=self._options.window_steps,
                workers=world_size,
            )
            self.measurements.materialized_bytes[DASK] = started["bytes"]
            self._build(ranks, DASK, started["address"])
            if world_size == 1:
                self._fit_dask(ranks, cluster, started["bytes"] / started["windows"])
            self._run_rounds(ranks, [DASK])
            ranks.ask(do="drop", system=DASK)

    def _fit_dask(self, ranks: RankWorkers, cluster: Worker, window_bytes: float) -> None:
        """Fit the costs of a call and of a byte to batches of several sizes."""
        batch_size, calls = self._options.batch_size, DaskBatcher.CALLS
        idle = _idle_load(cluster)
        points, spent, assemble = [], dict.fromkeys(idle, 0.0), 0.0
        for size in sorted({max(1, batch_size // fraction) for fraction in _FRACTIONS}):
            before = cluster.ask(do="cpu")
            fetched = self._fetch(ranks, DASK, size)
            after = cluster.ask(do="cpu")
            # Per batch, the warm-up included, and without what idle processes do anyway.
            spent = {
                name: max(0.0, after[name] - before[name] - busy * fetched["seconds"])
                / fetched["batches"]
                for name, busy in idle.items()
            }
            spent["rank"] = fetched["cpu_seconds"] / fetched["batches"]
            assemble = statistics.median(fetched["assemble"])
            points.append((size * window_bytes, statistics.median(fetched["host"])))
        overhead, per_byte = fit_line(points)
        self.measurements.dask = DaskCosts(
            calls=calls,
            call_seconds=overhead / calls,
            bytes_per_second=1 / max(per_byte, _MIN_SECONDS_PER_BYTE),
            scheduler_seconds=spent["scheduler"] / calls,
            busy_seconds=sum(spent.values()),
            batch_bytes=round(batch_size * window_bytes),
        )
        self.measurements.systems[DASK] = SystemParts(
            prefetched=False,
            host_seconds=self.measurements.dask.seconds(1, None),
            assemble_seconds=assemble,
        )


def _ranks(number: int) -> str:
    return "1 rank" if number == 1 else f"{number} ranks"


def _idle_load(cluster: Worker) -> dict[str, float]:
    """CPU load of the idle cluster's processes, in cores."""
    before = cluster.ask(do="cpu")
    time.sleep(_IDLE_SECONDS)
    after = cluster.ask(do="cpu")
    return {name: (after[name] - before[name]) / _IDLE_SECONDS for name in before}
