"""`pgti-bench scaling`: seven systems measured with local ranks, and modelled beyond."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import log, print_results
from pgti.run.results import to_json
from pgti_bench.output import finish
from pgti_bench.plot import check_plot
from pgti_bench.scaling.measure import measure_scaling
from pgti_bench.scaling.options import DASK, ScalingOptions
from pgti_bench.scaling.plot import write_scaling_plot
from pgti_bench.scaling.results import Measured, Ratio, ScalingResult

__all__ = ["scaling_command"]

_MEASURED_STYLE, _MODELLED_STYLE = "cyan", "magenta"
_DEFAULTS = ScalingOptions()


def scaling_command(
    *,
    options: Annotated[ScalingOptions, Parameter(name="*")] = _DEFAULTS,
    store: Path | None = None,
    workdir: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Run the paper's scaling study: measured with local ranks, modelled up to 128.

    Compares DDP with windows fetched through Dask as in the paper, two strong baselines, one of
    them torch's DistributedDataParallel, and four systems of pgti. Each rank is a process of one
    thread, or with --device cuda has a GPU, and a fixed batch, so an epoch has fewer steps the
    more ranks there are. Beyond the measured numbers of ranks, a step is modelled from its parts:
    that is not a measurement, and it is always labelled as a model.

    Args:
        options: What to measure and model.
        store: A store; a simulated series of METR-LA's 207 sensors and two weeks if not given.
        workdir: Where the simulated store is kept for later runs.
        plot: HTML file for a plot.
        json: Print one JSON object on standard output, and no tables.
    """
    check_plot(plot)
    result = measure_scaling(options, store, workdir=workdir, log=log)
    cores = result.machine.cores
    is_shared = result.options.device == "cpu"
    for ranks in (each for each in result.options.ranks if each > cores and is_shared):
        log(f"{ranks} ranks share {cores} cores: this measures the sharing, not scaling")
    for ratio in result.ratios:
        log(_describe(ratio))
    if result.ratios and DASK in result.options.systems:
        log(
            f"the paper measured a ratio of {result.paper_ratio} ({result.paper_ratio_v1} in its "
            "first version) at 128 GPUs, over whole runs; nothing here ran on 128 ranks"
        )
    tables = [_measured_table(result), _modelled_table(result)]
    if result.dask_fetches:
        tables.insert(1, _fetch_table(result))
    print_results(to_json(result), *tables, as_json=json)
    if result.load_before is not None:
        log(f"load average of the machine in the minute before: {result.load_before:.1f}")
    finish("Scaling", result.machine, result.left_out)
    if plot is not None:
        write_scaling_plot(plot, result)
        log(f"the plot is in {plot}")


def _measured_table(result: ScalingResult) -> Table:
    options = result.options
    table = Table(
        title=f"measured: {result.num_nodes:,} sensors, {options.batch_size} windows per rank, "
        f"{result.parameters:,} parameters; ms per step, median of {options.rounds} rounds",
        title_justify="left",
        title_style=_MEASURED_STYLE,
    )
    table.add_column("system", no_wrap=True)
    for name in ("ranks", "step", "range", "fetch", "compute", "commun.", "kB sent", "start, s"):
        table.add_column(name, justify="right", style=_MEASURED_STYLE)
    for name in ("modelled", "error"):
        table.add_column(name, justify="right", style=_MODELLED_STYLE)
    for each in result.measured:
        table.add_row(*_measured_row(each), end_section=each.ranks == max(options.ranks))
    return table


def _measured_row(each: Measured) -> tuple[str, ...]:
    parts = (each.fetch_seconds, each.compute_seconds, each.communication_seconds)
    return (
        each.system,
        f"{each.ranks}{'*' if each.is_oversubscribed else ''}",
        _milliseconds(each.step_seconds.median),
        f"{1e3 * each.step_seconds.minimum:,.0f} to {1e3 * each.step_seconds.maximum:,.0f}",
        *(_milliseconds(part.median) for part in parts),
        f"{sum(each.sent_bytes.values()) / 1e3:,.0f}",
        f"{each.startup_seconds:,.1f}",
        _milliseconds(each.modelled.step),
        f"{100 * each.model_error:+.0f} %",
    )


def _fetch_table(result: ScalingResult) -> Table:
    table = Table(
        title=f"measured: Dask, a batch of {result.dask_fetches[0].batch_bytes / 1e6:,.1f} MB for "
        "each rank, all at once and without computing; ms",
        title_justify="left",
        title_style=_MEASURED_STYLE,
    )
    for name in ("ranks", "batch", "scheduler's CPU per call"):
        table.add_column(name, justify="right", style=_MEASURED_STYLE)
    for name in ("modelled", "error"):
        table.add_column(name, justify="right", style=_MODELLED_STYLE)
    for each in result.dask_fetches:
        table.add_row(
            f"{each.ranks}",
            _milliseconds(each.seconds),
            _milliseconds(each.scheduler_seconds),
            _milliseconds(each.modelled_seconds),
            f"{100 * each.model_error:+.0f} %",
        )
    return table


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}"


def _modelled_table(result: ScalingResult) -> Table:
    options = result.options
    table = Table(
        title=f"modelled, not measured: seconds of an epoch of {options.epoch_windows:,} windows",
        title_justify="left",
        title_style=_MODELLED_STYLE,
    )
    table.add_column("network", no_wrap=True)
    table.add_column("system", no_wrap=True)
    for ranks in options.predicted_ranks:
        table.add_column(f"{ranks} ranks", justify="right", style=_MODELLED_STYLE)
    table.add_column("ms per step", justify="right", style=_MODELLED_STYLE)
    table.add_column(f"run of {options.epochs}", justify="right", style=_MODELLED_STYLE)
    for network in result.networks:
        for system in options.systems:
            row = [
                each
                for each in result.predictions
                if (each.network, each.system) == (network.name, system)
            ]
            table.add_row(
                network.name,
                system,
                *(f"{each.epoch_seconds:,.1f}" for each in row),
                f"{1e3 * row[-1].step.step:,.0f}",
                f"{row[-1].run_seconds:,.0f}",
                end_section=system == options.systems[-1],
            )
    return table


def _describe(ratio: Ratio) -> str:
    others = ", ".join(
        f"{system} {times:.2f}"
        for system, times in ratio.over_replicated.items()
        if system != "replicated"
    )
    compute = (
        "compute as measured"
        if ratio.compute_scale == 1
        else f"compute {1 / ratio.compute_scale:.0f} times as fast"
    )
    runs = ratio.runs_over_replicated
    with_startup = (
        "" if runs is None or DASK not in runs else f"; whole runs, {DASK} {runs[DASK]:.2f}"
    )
    return (
        f"modelled, {ratio.network}, {ratio.ranks} ranks, {compute}: "
        f"step time over replicated: {others or 'nothing else was measured'}{with_startup}"
    )
