"""Memory of data sets by formula, and of training, evaluating and forecasting on them."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgti.errors import ConfigError
from pgti.run.results import Machine
from pgti.store import SeriesStore
from pgti_bench.limited_run import run_limited
from pgti_bench.memory.commands import MeasuredCommand, MemoryOptions, measure_commands
from pgti_bench.paper_datasets import DatasetShape, MemoryNeeds
from pgti_bench.synthetic_stores import Road, disk_usage, synthetic_store

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
"""Of peak PSS with the length of a series: released pages must not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredStore:
    """The store that commands were measured on.

    Attributes:
        path: the store.
        series_bytes: of its series.
        disk_bytes: disk usage of all its files.
        is_sparse: whether most of its series is a hole.
        graph: the graph it was simulated on.
    """

    path: Path
    series_bytes: int
    disk_bytes: int
    is_sparse: bool
    graph: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetMemory:
    """The memory of a data set, by formula and as measured.

    Attributes:
        shape: of the data set.
        needs: by formula.
        store: that was measured on; None if nothing was.
        commands: that were measured, in their order.
    """

    shape: DatasetShape
    needs: MemoryNeeds
    store: MeasuredStore | None
    commands: tuple[MeasuredCommand, ...]

    def peaks(self, name: Literal["peak_pss_bytes", "group_peak_bytes"]) -> dict[str, int]:
        """That measurement by command, of completed commands with index batches that report it."""
        sizes: dict[str, int | None] = {
            each.command: getattr(each, name)
            for each in self.commands
            if each.batching == "index" and each.outcome == "done"
        }
        return {command: size for command, size in sizes.items() if size is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """How memory grows with the length of a series, with the same sensors and commands.

    Compared are the peaks over the commands with index batches that completed on both series. A
    small command alone is a poor measure: half of its PSS are pages of libraries, of which it is
    charged a fraction that depends on the other processes that map them.

    Attributes:
        dataset: the longer one.
        reference: the shorter one.
        steps_ratio: its length over that of the reference.
        pss_ratio: peak PSS over that on the reference; None if no command can be compared.
        group_ratio: the same of the peaks of the control groups; None without groups.
    """

    dataset: str
    reference: str
    steps_ratio: float
    pss_ratio: float | None
    group_ratio: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryResult:
    """Everything that was computed and measured.

    Attributes:
        machine: where it was measured.
        options: of the commands.
        program_pss_bytes: memory of the program before it opens a store.
        datasets: in the given order.
        growth: of every measured data set over the shortest measured one with as many sensors.
        left_out: what was not measured and why, one line each.
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
    """Compute the memory of data sets by formula, and measure that of some of them.

    Args:
        shapes: all data sets.
        measured: those of them to measure, each on a simulated store of its shape.
        options: of the commands.
        workdir: where stores are written and kept for later runs.
        road: graph for the data sets with as many sensors; the others get road-like graphs.
        log: receives one line for each thing that is done.

    Returns:
        The result. A command that is killed or refused is part of it.

    Raises:
        ConfigError: the graph fits none of the measured data sets.
        BenchError: something else is where a store should be.
        StoreError: a store cannot be written.
    """
    if road is not None and all(each.num_nodes != road.graph.num_nodes for each in measured):
        raise ConfigError(
            f"the graph {road.path} has {road.graph.num_nodes} nodes and none of the measured data "
            "sets has as many: choose another --graph or other data sets"
        )
    others = [shape.name for shape in shapes if shape not in measured]
    left_out = [f"{', '.join(others)}: use --measure all to measure them"] if others else []
    program: int | None = None
    if measured:
        command = [sys.executable, "-c", "import pgti.cli.train, pgti.run.train"]
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
    """Commands that should have completed and did not, one line each.

    Index batches work for series of any size; device and standard batches may be refused if memory
    does not suffice, and must never be killed.
    """
    return [
        f"{each.command} of {dataset.shape.name} with {each.batching} batches was {each.outcome}"
        + (f" ({each.message})" if each.message else "")
        for dataset in result.datasets
        for each in dataset.commands
        if each.outcome != "done" and not (each.outcome == "refused" and each.batching != "index")
    ]


def growth_problems(result: MemoryResult) -> list[str]:
    """Longer series that take more memory than shorter ones, or may do so, one line each."""
    problems = []
    for growth in result.growth:
        pair = f"{growth.dataset} and {growth.reference}"
        if growth.pss_ratio is None:
            problems.append(f"the peak PSS of {pair} cannot be compared: no command reports both")
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
        disk_bytes=disk_usage(store.path),
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
    """Over the commands that report both; None if there is none."""
    sizes, others = longer.peaks(name), reference.peaks(name)
    both = sizes.keys() & others.keys()
    if not both:
        return None
    return max(sizes[command] for command in both) / max(others[command] for command in both)
