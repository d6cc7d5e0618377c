"""Measuring: one session for each number of ranks, with all systems in it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pgti.bench.contest import alternate
from pgti.bench.scaling_crew import RankCrew, open_cluster
from pgti.bench.scaling_dask import DaskBatcher
from pgti.bench.scaling_model import DaskCosts, SystemParts
from pgti.bench.scaling_network import Timing, fit_line
from pgti.bench.scaling_options import DASK, ScalingOptions
from pgti.bench.worker import Worker
from pgti.errors import BenchError
from pgti.store import SeriesStore

__all__ = ["Compute", "Findings", "Round", "Sessions"]

_COLLECTIVE_BYTES = (8, 1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 22)
_REPEATS = 15
_ALONE = 10  # batches whose parts are measured alone
_COMPUTED = 4  # steps at a time whose computation is
_WHOLE_CORE = 0.95
_SHARES = (1, 2, 4)  # of a batch, that Dask fetches: what it takes for each byte follows

_IDLE_SECONDS = 1.0
_LEAST_PER_BYTE = 1e-12  # where larger batches were no slower: a terabyte a second


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Steps of one round: medians over the steps, of the slowest rank in each.

    Args:
        step: seconds.
        fetch: of them.
        compute: of them.
        communication: of them.
        sent_bytes: of rank 0, in all steps of the round.
    """

    step: float
    fetch: float
    compute: float
    communication: float
    sent_bytes: Mapping[str, int]


@dataclass(kw_only=True, slots=True)
class Compute:
    """Steps without fetch and collectives, while as many ranks took them as there are cores for.

    Args:
        cpu_seconds: processor time of each.
        seconds: of all of them by the clock, added up.
    """

    cpu_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def competitors(self, busy: int, cores: int) -> float:
        """How many processes of others ran beside so many busy ranks, if all had equal shares.

        Busy ranks and k others on C cores have C / (busy + k) of a core each. Nobody, where ranks
        had as good as a whole core each.
        """
        sharding = sum(self.cpu_seconds) / self.seconds
        return 0.0 if sharding > _WHOLE_CORE else max(0.0, cores / sharding - busy)


@dataclass(kw_only=True, slots=True)
class Findings:
    """What the sessions have measured so far."""

    rounds: dict[tuple[str, int], list[Round]] = field(default_factory=dict)
    compute: dict[int, Compute] = field(default_factory=dict)
    systems: dict[str, SystemParts] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)
    made_bytes: dict[str, int] = field(default_factory=dict)
    dask: DaskCosts | None = None
    gradient_bytes: int = 0
    control_bytes: int = 0
    parameters: int = 0


class Sessions:
    """Measures the systems at one number of ranks after the other.

    Args:
        options: what to measure.
        store: whose windows.
        windows: directory of the windows that were written out.
        cores: of this machine.
        log: told what is being done, a line each.
    """

    def __init__(
        self,
        options: ScalingOptions,
        store: SeriesStore,
        windows: Path,
        cores: int,
        log: Callable[[str], None],
    ) -> None:
        self.found = Findings()
        self._options, self._store, self._windows = options, store, windows
        self._cores, self._say = cores, log

    def measure(self, world_size: int) -> None:
        """Measure at this number of ranks.

        Raises:
            BenchError: a rank or the cluster failed.
        """
        options = self._options
        self._say(f"{_ranks(world_size)}: starting")
        with RankCrew(world_size) as crew:
            self._prepare(crew)
            own = [name for name in options.systems if name != DASK]
            for system in own:
                self._build(crew, system, str(self._windows) if system == "windows" else "")
            if own:
                self._take_turns(crew, own)
            if DASK in options.systems:
                self._with_dask(crew)

    def _prepare(self, crew: RankCrew) -> None:
        """Open the store on every rank, and measure what no system has a part in."""
        options = self._options
        told = crew.ask(
            do="prepare",
            store=str(self._store.path.resolve()),
            window_steps=options.window_steps,
            batch_size=options.batch_size,
            hidden=options.hidden,
            seed=options.seed,
        )[0]
        self.found.gradient_bytes = told["gradient_bytes"]
        self.found.control_bytes = told["control_bytes"]
        self.found.parameters = told["parameters"]
        world_size = crew.world_size
        self._compute(crew)
        if world_size > 1:
            reply = crew.ask(do="collectives", sizes=list(_COLLECTIVE_BYTES), repeats=_REPEATS)
            self.found.timings += [
                Timing(ranks=world_size, num_bytes=size, seconds=seconds)
                for size, seconds in zip(_COLLECTIVE_BYTES, reply[0]["seconds"], strict=True)
            ]

    def _compute(self, crew: RankCrew) -> None:
        """What a step computes, without fetch and collectives; once in a while, as loads change."""
        compute = self.found.compute.setdefault(crew.world_size, Compute())
        busy = min(crew.world_size, self._cores)
        for reply in crew.ask(do="compute", first=busy, count=_COMPUTED):
            compute.cpu_seconds += reply["cpu_seconds"]
            compute.seconds += sum(reply["seconds"])

    def _build(self, crew: RankCrew, system: str, place: str) -> None:
        """Build a system's loader; one rank alone tells what making a batch takes."""
        told = crew.ask(do="build", system=system, place=place)[0]
        if crew.world_size > 1 or system == DASK:
            return
        reply = self._fetched(crew, system, self._options.batch_size)
        self.found.systems[system] = SystemParts(
            prefetched=told["prefetched"],
            host_seconds=statistics.median(reply["host"]),
            assemble_seconds=statistics.median(reply["assemble"]),
        )

    def _fetched(self, crew: RankCrew, system: str, batch_size: int) -> dict[str, Any]:
        return crew.ask(do="fetch", system=system, count=_ALONE, batch_size=batch_size)[0]

    def _take_turns(self, crew: RankCrew, systems: Sequence[str]) -> None:
        runs = {name: partial(self._round, crew, name) for name in systems}

        def end_round(done: int) -> None:
            self._compute(crew)
            self._say(f"{who}: round {done} of {rounds} is done")

        who, rounds = f"{_ranks(crew.world_size)}, {', '.join(systems)}", self._options.rounds
        alternate(
            runs,
            rounds,
            warmups=0,
            after_round=end_round,
        )

    def _round(self, crew: RankCrew, system: str) -> float:
        """One round: an epoch's first steps.

        Raises:
            BenchError: a rank failed, or the ranks ended with different parameters.
        """
        rounds = self.found.rounds.setdefault((system, crew.world_size), [])
        replies = crew.ask(do="steps", system=system, epoch=len(rounds), count=self._options.steps)
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

    def _with_dask(self, crew: RankCrew) -> None:
        """Dask's cluster takes part while its own system is measured, and no longer."""
        world_size = crew.world_size
        self._say(f"{_ranks(world_size)}: starting Dask with as many workers")
        with ExitStack() as stack:
            cluster = stack.enter_context(open_cluster())
            started = cluster.ask(
                do="start",
                store=str(self._store.path.resolve()),
                window_steps=self._options.window_steps,
                workers=world_size,
            )
            self.found.made_bytes[DASK] = started["bytes"]
            self._build(crew, DASK, started["address"])
            if world_size == 1:
                self._fit_dask(crew, cluster, started["bytes"] / started["windows"])
            self._take_turns(crew, [DASK])
            crew.ask(do="drop", system=DASK)

    def _fit_dask(self, crew: RankCrew, cluster: Worker, window_bytes: float) -> None:
        """What a call and a byte take, from batches of several sizes."""
        batch_size, calls = self._options.batch_size, DaskBatcher.CALLS
        idle = _idle_shares(cluster)
        points, spent, assemble = [], dict.fromkeys(idle, 0.0), 0.0
        for size in sorted({max(1, batch_size // sharding) for sharding in _SHARES}):
            before = cluster.ask(do="cpu")
            reply = self._fetched(crew, DASK, size)
            after = cluster.ask(do="cpu")
            # For each batch, the one that warms up too; what idle processes do is not its fault.
            spent = {
                name: max(0.0, after[name] - before[name] - sharding * reply["seconds"])
                / reply["batches"]
                for name, sharding in idle.items()
            }
            spent["rank"] = reply["cpu_seconds"] / reply["batches"]
            assemble = statistics.median(reply["assemble"])
            points.append((size * window_bytes, statistics.median(reply["host"])))
        overhead, per_byte = fit_line(points)
        self.found.dask = DaskCosts(
            calls=calls,
            call_seconds=overhead / calls,
            bytes_per_second=1 / max(per_byte, _LEAST_PER_BYTE),
            scheduler_seconds=spent["scheduler"] / calls,
            busy_seconds=sum(spent.values()),
            batch_bytes=round(batch_size * window_bytes),
        )
        self.found.systems[DASK] = SystemParts(
            prefetched=False,
            host_seconds=self.found.dask.seconds(1, None),
            assemble_seconds=assemble,
        )


def _ranks(number: int) -> str:
    return "1 rank" if number == 1 else f"{number} ranks"


def _idle_shares(cluster: Worker) -> dict[str, float]:
    """How much of a core the processes of the cluster take while nobody asks them for anything."""
    before = cluster.ask(do="cpu")
    time.sleep(_IDLE_SECONDS)
    after = cluster.ask(do="cpu")
    return {name: (after[name] - before[name]) / _IDLE_SECONDS for name in before}
