"""`pgti bench loader`: how fast batches are made."""

from pathlib import Path

from rich.table import Table

from pgti.bench import to_json
from pgti.bench.devices import Device
from pgti.bench.loader import LoaderResult, measure_loader
from pgti.bench.loader_options import LoaderOptions
from pgti.bench.peers import find_pgt
from pgti.bench.plot import Bar, Chart, check_plot
from pgti.cli.bench_output import binary_size, finish, number, times
from pgti.cli.output import log, print_json, show
from pgti.errors import ConfigError

__all__ = ["bench_loader_command"]

_TITLE = "Making batches"
_GIGA = 1e9


def bench_loader_command(
    *,
    shape: str | None = None,
    num_steps: int | None = None,
    store: Path | None = None,
    workdir: Path | None = None,
    window_steps: int = 12,
    batch_size: int = 64,
    block_size: int = 8,
    batches: int | None = None,
    device: Device = "cpu",
    threads: int | None = None,
    rounds: int = 5,
    pgt: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """How fast batches are made: every batching of ours, PGT's loader and a copy of memory.

    Each runs in a process of its own, in alternation, on the training windows of one series in
    shuffled order. Bytes are those of inputs and targets in float32: ours the readings and the
    time of day in, the readings out; PGT's carry the time of day in both.

    Args:
        shape: Data set whose shape a simulated series gets: metr-la (the default), pems-bay,
            pems-all-la, pems, windmill or chickenpox.
        num_steps: Rows of that series, in place of the data set's.
        store: Store to measure on, in place of a simulated series.
        workdir: Where the simulated series is made, and left for the next time; a temporary
            directory if not given.
        window_steps: Rows of a window's input, and as many to forecast.
        batch_size: Windows in a batch.
        block_size: Windows in a block of the block-shuffled order.
        batches: Batches made in a round; as many as have 2 GiB, at most an epoch's, if not given.
        device: Where our batches are made: cpu or cuda.
        threads: Threads of each process; what torch chooses if not given.
        rounds: Measurements of each.
        pgt: Python interpreter of an environment with PGT; .venv-pgt/bin/python (make bench-pgt)
            if it is there. Without one PGT is left out.
        plot: HTML file for a plot.
        json: Print one JSON object as the last line of standard output.
    """
    if store is not None and any(given is not None for given in (shape, num_steps, workdir)):
        raise ConfigError(
            f"--store names {store}, and --shape, --num-steps and --workdir make another series: "
            "give one of both"
        )
    options = LoaderOptions(
        shape="metr-la" if shape is None else shape,
        num_steps=num_steps,
        window_steps=window_steps,
        batch_size=batch_size,
        block_size=block_size,
        batches=batches,
        device=device,
        threads=threads,
        rounds=rounds,
    )
    python = find_pgt(pgt)
    check_plot(plot)
    result = measure_loader(options, store, pgt=python, workdir=workdir, log=log)
    show(_table(result))
    if json:
        print_json(to_json(result))
    finish(_TITLE, result.machine, result.left_out, plot, _charts(result))


def _table(result: LoaderResult) -> Table:
    size = result.options.batch_size
    title = (
        f"{_TITLE}: {result.num_steps:,} steps x {result.num_nodes:,} sensors ({result.dtype}), "
        f"{result.batches} batches of {size} windows"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("windows/s", "GB/s", "of memcpy", "times PGT", "in bytes/s", "peak memory"):
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
        Bar(name=each.name, value=each.bytes_per_second.scaled(1 / _GIGA))
        for each in result.loaders
    ]
    return [
        Chart(title="Inputs and targets made in a second", unit="GB/s", bars=tuple(sizes)),
        Chart(title="Windows made in a second", unit="windows/s", bars=tuple(windows)),
    ]
