"""What data sets need by formula, and what training, evaluating and forecasting on them take."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgti.bench.datasets import DatasetShape, MemoryNeeds
from pgti.bench.limited_run import run_limited
from pgti.bench.made_stores import Road, on_disk_bytes, synthetic_store
from pgti.bench.measured_commands import MeasuredCommand, MemoryOptions, measure_commands
from pgti.bench.results import Machine
from pgti.errors import ConfigError
from pgti.store import SeriesStore

__all__ = [
    "DatasetMemory",
    "Growth",
    "MeasuredStore",
    "MemoryResult",
    "growth_problems",
    "measure_memory",
    "unexpected_ends",
]

_LARGEST_GROWTH = 1.05
"""Of peak PSS with the length of a series: pages that are let go must not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredStore:
    """The store that commands were measured on.

    Args:
        path: the store.
        series_bytes: of its series.
        disk_bytes: that all its files take on the disk.
        is_sparse: whether most of its series is a hole.
        graph: what it was simulated on.
    """

    path: Path
    series_bytes: int
    disk_bytes: int
    is_sparse: bool
    graph: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetMemory:
    """A data set: what it needs by formula, and what was measured.

    Args:
        shape: of the data set.
        needs: by formula.
        store: that was measured on; None where nothing was.
        commands: that were measured, in their order.
    """

    shape: DatasetShape
    needs: MemoryNeeds
    store: MeasuredStore | None
    commands: tuple[MeasuredCommand, ...]

    def peaks(self, name: Literal["peak_pss_bytes", "group_peak_bytes"]) -> dict[str, int]:
        """That measure by command, of those with index batches that were done and told it."""
        sizes: dict[str, int | None] = {
            each.command: getattr(each, name)
            for each in self.commands
            if each.batching == "index" and each.outcome == "done"
        }
        return {command: size for command, size in sizes.items() if size is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """How memory grows with the length of a series, sensors and commands being the same.

    Compared are the peaks over the commands with index batches that were done on both series. A
    small command alone would tell little: half of its PSS are pages of libraries, of which it is
    charged a share that depends on who else has them open.

    Args:
        dataset: the longer one.
        reference: the shorter one.
        steps_ratio: how many times as long it is.
        pss_ratio: peak PSS over that on the reference; None where no command can be compared.
        group_ratio: the same of the peaks of the control groups; None without groups.
    """

    dataset: str
    reference: str
    steps_ratio: float
    pss_ratio: float | None
    group_ratio: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryResult:
    """Everything that was worked out and measured.

    Args:
        machine: where.
        options: of the commands.
        program_pss_bytes: what the program takes before it opens a store.
        datasets: in the order asked for.
        growth: of every measured data set over the shortest measured one with as many sensors.
        left_out: what was not measured and why, a line each.
    """

    machine: Machine
    options: MemoryOptions
    program_pss_bytes: int | None
    datasets: tuple[DatasetMemory, ...]
    growth: tuple[Growth, ...]
    left_out: tuple[str, ...]


def measure_memory(
    shapes: Sequence[DatasetShape],
    measured: Sequence[DatasetShape],
    options: MemoryOptions,
    *,
    workdir: Path,
    road: Road | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> MemoryResult:
    """Work out what data sets need, and measure what some of them take.

    Args:
        shapes: to work out.
        measured: those of them to measure, each on a simulated store of its shape.
        options: of the commands.
        workdir: where stores are made and left for the next time.
        road: graph for the data sets with as many sensors; the others get road-like graphs.
        log: told what is being done, a line each.

    Returns:
        The result. A command that is killed or refused is part of it.

    Raises:
        ConfigError: the graph fits none of the measured data sets.
        BenchError: something else is where a store should be.
        StoreError: a store cannot be made.
    """
    if road is not None and all(each.num_nodes != road.graph.num_nodes for each in measured):
        raise ConfigError(
            f"the graph {road.path} has {road.graph.num_nodes} nodes and no data set that is "
            "measured has: choose another --graph or other data sets"
        )
    others = [shape.name for shape in shapes if shape not in measured]
    left_out = [f"the measurement of {', '.join(others)}: --measure all does it"] if others else []
    program: int | None = None
    if measured:
        command = [sys.executable, "-c", "import pgti.cli.train"]
        limited = run_limited(command, options.limit_bytes)
        program = limited.peak_pss_bytes if limited.exit_code == 0 else None
        if limited.no_limit_because:
            left_out.append(
                f"the limit and the group's peak: {limited.no_limit_because}; PSS was measured"
            )
    results = []
    for shape in shapes:
        store: MeasuredStore | None = None
        commands: tuple[MeasuredCommand, ...] = ()
        if shape in measured:
            opened = synthetic_store(shape, workdir, road, log=log)
            store = _describe(opened, shape, road)
            commands = measure_commands(opened, shape, options, log)
        results.append(
            DatasetMemory(shape=shape, needs=shape.needs, store=store, commands=commands)
        )
    return MemoryResult(
        machine=Machine.here(),
        options=options,
        program_pss_bytes=program,
        datasets=tuple(results),
        growth=_growth(results),
        left_out=tuple(left_out),
    )


def unexpected_ends(result: MemoryResult) -> list[str]:
    """Commands that should have been done and are not, a line each.

    Index batches are for series of any size; device and standard batches may be refused where
    memory does not suffice, and never killed.
    """
    return [
        f"{each.command} of {dataset.shape.name} with {each.batching} batches was {each.outcome}"
        + (f" ({each.message})" if each.message else "")
        for dataset in result.datasets
        for each in dataset.commands
        if each.outcome != "done" and not (each.outcome == "refused" and each.batching != "index")
    ]


def growth_problems(result: MemoryResult) -> list[str]:
    """Longer series that take more memory than shorter ones, or may do so, a line each."""
    problems = []
    for growth in result.growth:
        pair = f"{growth.dataset} and {growth.reference}"
        if growth.pss_ratio is None:
            problems.append(f"the peak PSS of {pair} cannot be compared: no command tells both")
        elif growth.pss_ratio > _LARGEST_GROWTH:
            problems.append(
                f"{growth.dataset} takes {growth.pss_ratio:.3f} times the peak PSS of "
                f"{growth.reference}: it must be at most {_LARGEST_GROWTH} times"
            )
    return problems


def _describe(store: SeriesStore, shape: DatasetShape, road: Road | None) -> MeasuredStore:
    is_real = road is not None and road.graph.num_nodes == shape.num_nodes
    return MeasuredStore(
        path=store.path,
        series_bytes=store.num_bytes,
        disk_bytes=on_disk_bytes(store.path),
        is_sparse=shape.is_sparse,
        graph=str(road.path) if road is not None and is_real else "simulated",
    )


def _growth(datasets: Sequence[DatasetMemory]) -> tuple[Growth, ...]:
    """Every measured data set over the shortest one with the same sensors and windows."""
    growth = []
    shortest: dict[tuple[int, int], DatasetMemory] = {}
    measured = (each for each in datasets if each.commands)
    for each in sorted(measured, key=lambda dataset: dataset.shape.num_steps):
        reference = shortest.setdefault((each.shape.num_nodes, each.shape.window_steps), each)
        if reference is each:
            continue
        growth.append(
            Growth(
                dataset=each.shape.name,
                reference=reference.shape.name,
                steps_ratio=each.shape.num_steps / reference.shape.num_steps,
                pss_ratio=_ratio_of_peaks(each, reference, "peak_pss_bytes"),
                group_ratio=_ratio_of_peaks(each, reference, "group_peak_bytes"),
            )
        )
    return tuple(growth)


def _ratio_of_peaks(
    longer: DatasetMemory,
    reference: DatasetMemory,
    name: Literal["peak_pss_bytes", "group_peak_bytes"],
) -> float | None:
    """Over the commands that tell both; None where there is none."""
    sizes, others = longer.peaks(name), reference.peaks(name)
    both = sizes.keys() & others.keys()
    if not both:
        return None
    return max(sizes[command] for command in both) / max(others[command] for command in both)
