"""`pgti-bench loader`: how fast batches are made."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import log, print_results
from pgti.errors import ConfigError
from pgti.run.results import to_json
from pgti_bench.loader.measure import LoaderResult, measure_loader
from pgti_bench.loader.options import LoaderOptions
from pgti_bench.output import binary_size, finish, number, times
from pgti_bench.pgt_environment import find_pgt
from pgti_bench.plot import Bar, Chart, check_plot, scale_spread

__all__ = ["loader_command"]

_TITLE = "Making batches"
_GIGA = 1e9
_DEFAULTS = LoaderOptions()


def loader_command(
    *,
    options: Annotated[LoaderOptions, Parameter(name="*")] = _DEFAULTS,
    store: Path | None = None,
    workdir: Path | None = None,
    pgt: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Time how batches are made: every batching of pgti, PGT's loader and a copy of memory.

    Each runs in a separate process, interleaved, on the training windows of one series in shuffled
    order. Bytes are those of inputs and targets in float32: pgti's inputs have the observation and
    the time of day, its targets the observation; PGT's have the time of day in both.

    Args:
        options: What to measure.
        store: Store to measure on, in place of a simulated series.
        workdir: Where the simulated series is written and kept for later runs; a temporary
            directory if not given.
        pgt: Python interpreter of an environment with PGT [default: .venv-pgt/bin/python, see
            make bench-pgt]. PGT is left out if it does not exist.
        plot: HTML file for a plot.
        json: Print one JSON object on standard output, and no tables.
    """
    shape = (options.shape, options.num_steps)
    is_shaped = shape != (_DEFAULTS.shape, _DEFAULTS.num_steps)
    if store is not None and (is_shaped or workdir is not None):
        raise ConfigError(
            f"--store is {store}, and --shape, --num-steps and --workdir describe a simulated "
            "series: pass one or the other"
        )
    python = find_pgt(pgt)
    check_plot(plot)
    result = measure_loader(options, store, pgt=python, workdir=workdir, log=log)
    print_results(to_json(result), _table(result), as_json=json)
    finish(_TITLE, result.machine, result.left_out, plot, _charts(result))


def _table(result: LoaderResult) -> Table:
    size = result.options.batch_size
    title = (
        f"{_TITLE}: {result.num_steps:,} steps x {result.num_nodes:,} sensors ({result.dtype}), "
        f"{result.batches} batches of {size} windows"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("windows/s", "GB/s", "of memcpy", "over PGT", "in bytes/s", "peak memory"):
        table.add_column(name, justify="right")
    for each in result.loaders:
        table.add_row(
            each.name,
            number(each.windows_per_second, digits=0),
            number(each.bytes_per_second, _GIGA),
            f"{100 * each.of_memcpy.median:.0f} %",
            times(each.over_pgt),
            times(each.bytes_over_pgt),
            binary_size(each.peak_bytes),
        )
    return table


def _charts(result: LoaderResult) -> list[Chart]:
    windows = [
        Bar(name=each.name, value=each.windows_per_second)
        for each in result.loaders
        if each.windows_per_second is not None
    ]
    sizes = [
        Bar(name=each.name, value=scale_spread(each.bytes_per_second, 1 / _GIGA))
        for each in result.loaders
    ]
    return [
        Chart(title="Inputs and targets per second", unit="GB/s", bars=tuple(sizes)),
        Chart(title="Windows per second", unit="windows/s", bars=tuple(windows)),
    ]
