"""`pgti-bench memory`: memory of data sets by formula, and what pgti takes for them."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import log, print_results
from pgti.memory.available import parse_bytes
from pgti.run.results import to_json
from pgti_bench.errors import BenchError
from pgti_bench.memory.commands import MemoryOptions
from pgti_bench.memory.measure import (
    DatasetMemory,
    MemoryResult,
    growth_problems,
    measure_memory,
    unexpected_ends,
)
from pgti_bench.output import binary_size, finish
from pgti_bench.paper_datasets import PAPER_DATASETS, DatasetShape, find_datasets
from pgti_bench.plot import Bar, Chart, Limit, check_plot
from pgti_bench.synthetic_stores import read_road

__all__ = ["memory_command"]

_PAPER = tuple(shape.name for shape in PAPER_DATASETS)
_SMALL_BYTES = 1 << 26  # of a series that `--measure small` measures
_GIB = 1 << 30
_DEFAULTS = MemoryOptions()


def memory_command(
    *,
    datasets: tuple[str, ...] = _PAPER,
    measure: Literal["small", "all", "none"] = "small",
    limit: str | None = None,
    options: Annotated[MemoryOptions, Parameter(name="*")] = _DEFAULTS,
    graph: Path | None = None,
    workdir: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Compute the memory of data sets by formula, and measure that of pgti's commands on them.

    By formula: the paper's data sets as its code holds them, and pgti's series. Measured: training,
    evaluating and forecasting on simulated stores of the same shapes, by default with a two-layer
    DCRNN, each command a separate process.

    Args:
        datasets: Comma-separated names: the paper's six, and pems-ten-years, a sparse file ten
            times as long as pems.
        measure: Which of them to measure: small (series of at most 64 MiB), all or none.
        limit: Memory limit of each command's control group, page cache included, such as 2GiB; no
            limit if not given. Without control groups only PSS is measured, and the result says so.
        options: What to run.
        graph: Graph file for the data sets with as many sensors; the others get simulated graphs.
        workdir: Where stores are written and kept for later runs; a temporary directory if not
            given. All of PeMS takes 2.3 GB.
        plot: HTML file for a plot.
        json: Print one JSON object on standard output, and no tables.
    """
    shapes = find_datasets(datasets)
    if limit is not None:
        options = replace(options, limit_bytes=parse_bytes("limit", limit))
    check_plot(plot)
    road = None if graph is None else read_road(graph)
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        result = measure_memory(
            shapes,
            [shape for shape in shapes if _is_measured(shape, measure)],
            options,
            workdir=Path(scratch) if workdir is None else workdir,
            road=road,
            log=log,
        )
    tables = [_formula_table(result)]
    if any(dataset.commands for dataset in result.datasets):
        tables.append(_measured_table(result))
    print_results(to_json(result), *tables, as_json=json)
    _log_notes(result)
    finish("Memory", result.machine, result.left_out, plot, _charts(result))
    problems = unexpected_ends(result) + growth_problems(result)
    if problems:
        raise BenchError("; ".join(problems))


def _is_measured(shape: DatasetShape, measure: str) -> bool:
    return measure == "all" or (measure == "small" and shape.needs.series <= _SMALL_BYTES)


def _log_notes(result: MemoryResult) -> None:
    program = result.program_pss_bytes
    if program is not None and any(dataset.commands for dataset in result.datasets):
        log(f"the program without data takes {binary_size(program)} (PSS)")
    for dataset in result.datasets:
        if dataset.store is not None and dataset.store.is_sparse:
            log(
                f"{dataset.shape.name} is sparse: {binary_size(dataset.store.series_bytes)} of "
                f"series take {binary_size(dataset.store.disk_bytes)} on disk"
            )
    for growth in result.growth:
        if growth.pss_ratio is None:
            continue
        group = (
            "" if growth.group_ratio is None else f", of the control group {growth.group_ratio:.3f}"
        )
        log(
            f"{growth.dataset} has {growth.steps_ratio:.0f} times the steps of "
            f"{growth.reference} and {growth.pss_ratio:.3f} times its peak PSS{group}"
        )


def _formula_table(result: MemoryResult) -> Table:
    table = Table(
        title="by formula: the paper's code in float64 (GPU-index float32), pgti's series in int16",
        title_justify="left",
    )
    table.add_column("data set")
    table.add_column("steps x sensors x features", justify="right", no_wrap=True)
    for name in ("windows", "standard", "its peak", "index", "GPU-index", "pgti"):
        table.add_column(name, justify="right")
    for dataset in result.datasets:
        shape, needs = dataset.shape, dataset.needs
        table.add_row(
            _name(shape),
            f"{shape.num_steps:,} x {shape.num_nodes:,} x {shape.num_features}",
            f"{needs.windows:,}",
            *map(
                binary_size,
                (
                    needs.standard,
                    needs.standard_peak,
                    needs.paper_index,
                    needs.paper_device,
                    needs.series,
                ),
            ),
        )
    return table


def _measured_table(result: MemoryResult) -> Table:
    limit = _common_limit(result)
    within = "" if limit is None else f", each command within {binary_size(limit)}"
    table = Table(title=f"measured{within}", title_justify="left")
    for name in ("data set", "command", "batching"):
        table.add_column(name)
    for name in ("peak PSS", "peak of the group", "seconds", "to first step"):
        table.add_column(name, justify="right")
    table.add_column("ended")
    for dataset in result.datasets:
        for each in dataset.commands:
            first = each.seconds_to_first_step
            table.add_row(
                _name(dataset.shape) if each is dataset.commands[0] else "",
                each.command,
                each.batching,
                binary_size(each.peak_pss_bytes),
                binary_size(each.group_peak_bytes),
                f"{each.seconds:.1f}",
                "-" if first is None else f"{first:.1f}",
                each.outcome,
                end_section=each is dataset.commands[-1],
            )
    return table


def _charts(result: MemoryResult) -> list[Chart]:
    """For each data set, its memory by formula beside what was measured."""
    limit = _common_limit(result)
    return [_chart(dataset, limit) for dataset in result.datasets]


def _chart(dataset: DatasetMemory, limit: int | None) -> Chart:
    needs = dataset.needs
    bars = [
        Bar(name="standard, by formula", value=needs.standard / _GIB),
        Bar(name="index, by formula", value=needs.paper_index / _GIB),
        Bar(name="pgti's series, by formula", value=needs.series / _GIB),
    ]
    for each in dataset.commands:
        name = f"{each.command}, {each.batching}"
        if each.outcome == "done" and each.peak_pss_bytes is not None:
            bars.append(Bar(name=f"{name}: PSS", value=each.peak_pss_bytes / _GIB))
        if each.outcome == "done" and each.group_peak_bytes is not None:
            bars.append(Bar(name=f"{name}: group", value=each.group_peak_bytes / _GIB))
    limits = () if limit is None else (Limit(name="limit", value=limit / _GIB),)
    title = _sparse(dataset.shape.title, dataset.shape)
    return Chart(title=title, unit="GiB", bars=tuple(bars), limits=limits)


def _common_limit(result: MemoryResult) -> int | None:
    """The limit of every command; None if one ran without it, or nothing ran."""
    limit = result.options.limit_bytes
    limits = {each.limit_bytes for dataset in result.datasets for each in dataset.commands}
    return limit if limits == {limit} else None


def _name(shape: DatasetShape) -> str:
    return _sparse(shape.name, shape)


def _sparse(text: str, shape: DatasetShape) -> str:
    return f"{text} (sparse)" if shape.is_sparse else text
