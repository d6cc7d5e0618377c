"""Measures all systems, at one number of ranks after the other."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pgti.store import SeriesStore
from pgti_bench.errors import BenchError
from pgti_bench.interleave import interleave
from pgti_bench.scaling.dask import DaskBatcher
from pgti_bench.scaling.measurements import Compute, Fetches, Measurements, Round
from pgti_bench.scaling.model import DaskCosts, SystemParts
from pgti_bench.scaling.network import Timing, fit_line
from pgti_bench.scaling.options import DASK, ScalingOptions
from pgti_bench.scaling.workers import RankWorkers, open_cluster
from pgti_bench.worker import Worker

__all__ = ["ScalingRunner"]

_COLLECTIVE_BYTES = (8, 1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 22)
_ALL_REDUCES = 15
_BATCHES_ALONE = 10  # batches that one rank makes alone
_BATCHES_AT_ONCE = 4  # batches of each rank that all fetch from Dask at once, after a warm-up
_COMPUTE_STEPS = 4  # steps per measurement of computation
_FRACTIONS = (1, 2, 4)  # Dask fetches 1 / n of a batch: the cost per byte follows

_IDLE_SECONDS = 1.0
_MIN_SECONDS_PER_BYTE = 1e-12  # if larger batches were not slower: a terabyte per second


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
        self._ranks_began = 0.0

    def measure(self, world_size: int) -> None:
        """Measure at this number of ranks.

        Raises:
            BenchError: a rank or the cluster failed.
        """
        options = self._options
        self._log(f"{_ranks(world_size)}: starting")
        began = time.perf_counter()
        with RankWorkers(world_size, options.device) as ranks:
            self._prepare(ranks)
            self._ranks_began = time.perf_counter() - began
            self._measure_parts(ranks)
            own = [name for name in options.systems if name != DASK]
            for system in own:
                self._build(ranks, system, str(self._windows) if system == "windows" else "")
            if own:
                self._run_rounds(ranks, own)
            if DASK in options.systems:
                self._with_dask(ranks)

    def _prepare(self, ranks: RankWorkers) -> None:
        """Open the store on every rank, and build the network."""
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
        self.measurements.message_bytes = reply["message_bytes"]
        self.measurements.parameters = reply["parameters"]

    def _measure_parts(self, ranks: RankWorkers) -> None:
        """Measure what all systems have in common."""
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
        began = time.perf_counter()
        built = ranks.ask(do="build", system=system, place=place)[0]
        key = (system, ranks.world_size)
        self.measurements.startup_seconds[key] = (
            self._ranks_began
            + (time.perf_counter() - began)
            + self.measurements.startup_seconds.get(key, 0.0)
        )
        if ranks.world_size > 1 or system == DASK:
            return
        fetched = self._fetch(ranks, system, self._options.batch_size)
        self.measurements.systems[system] = SystemParts(
            prefetched=built["prefetched"],
            host_seconds=statistics.median(fetched["host"]),
            assemble_seconds=statistics.median(fetched["assemble"]),
        )

    def _fetch(self, ranks: RankWorkers, system: str, batch_size: int) -> dict[str, Any]:
        count = _BATCHES_ALONE
        return ranks.ask(do="fetch", first=1, system=system, count=count, batch_size=batch_size)[0]

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
            self.measurements.startup_seconds[DASK, world_size] = started["seconds"]
            self._build(ranks, DASK, started["address"])
            window_bytes = started["bytes"] / started["windows"]
            if world_size == 1:
                self._fit_dask(ranks, cluster, window_bytes)
            self._fetch_at_once(ranks, cluster, window_bytes)
            self._run_rounds(ranks, [DASK])
            ranks.ask(do="drop", system=DASK)

    def _fetch_at_once(self, ranks: RankWorkers, cluster: Worker, window_bytes: float) -> None:
        """Let all ranks fetch batches from Dask at once, without computing."""
        world_size, size = ranks.world_size, self._options.batch_size
        idle = _idle_load(cluster)["scheduler"]
        began, before = time.perf_counter(), cluster.ask(do="cpu")["scheduler"]
        replies = ranks.ask(
            do="fetch", system=DASK, count=_BATCHES_AT_ONCE, batch_size=size * world_size
        )
        spent = cluster.ask(do="cpu")["scheduler"] - before
        spent = max(0.0, spent - idle * (time.perf_counter() - began))
        num_calls = DaskBatcher.CALLS * sum(reply["batches"] for reply in replies)
        self.measurements.fetches.append(
            Fetches(
                ranks=world_size,
                batch_bytes=round(size * window_bytes),
                seconds=max(statistics.median(reply["host"]) for reply in replies),
                scheduler_seconds=spent / num_calls,
            )
        )

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
