"""`pgti bench scaling`: six systems measured with local ranks, and modelled beyond."""

from pathlib import Path

from rich.table import Table

from pgti.bench import to_json
from pgti.bench.plot import check_plot
from pgti.bench.scaling import measure_scaling
from pgti.bench.scaling_options import DASK, SYSTEMS, ScalingOptions, systems_named, world_sizes
from pgti.bench.scaling_plot import write_scaling_plot
from pgti.bench.scaling_results import Measured, Ratio, ScalingResult
from pgti.cli.bench_output import finish
from pgti.cli.output import log, print_json, show

__all__ = ["bench_scaling_command"]

_MEASURED_STYLE, _MODELLED_STYLE = "cyan", "magenta"


def bench_scaling_command(
    *,
    systems: str = ",".join(SYSTEMS),
    ranks: str = "1,2,4",
    rounds: int = 3,
    batch_size: int = 64,
    steps: int = 5,
    hidden: int = 16,
    store: Path | None = None,
    workdir: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """The paper's scaling study: measured with local ranks, modelled up to 128.

    Standard DDP fetched through Dask as in the paper, a strong DDP baseline, and four of our
    systems. Each rank is a process of one thread with a batch of its own, so an epoch has fewer
    steps the more ranks there are. Beyond the ranks measured, a step is modelled from its parts:
    that is no measurement, and it is told apart everywhere.

    Args:
        systems: Systems to compare, with commas: dask, windows, replicated, device, partitioned,
            partitioned-global.
        ranks: Numbers of local ranks to measure, with commas; 1 is among them.
        rounds: Measurements of each system at each number of ranks.
        batch_size: Windows of each rank in a step.
        steps: Optimiser steps of a round.
        hidden: Units of the DCRNN that is trained.
        store: A store; a simulated series of METR-LA's 207 sensors and two weeks if not given.
        workdir: Where the simulated store is left for the next time.
        plot: HTML file for a plot.
        json: Print one JSON object as the last line of standard output.
    """
    check_plot(plot)
    options = ScalingOptions(
        systems=systems_named(systems),
        ranks=world_sizes(ranks),
        rounds=rounds,
        batch_size=batch_size,
        steps=steps,
        hidden=hidden,
    )
    result = measure_scaling(options, store, workdir=workdir, log=log)
    show(_measured_table(result))
    cores = result.machine.cores
    for crowd in (each for each in options.ranks if each > cores):
        log(f"{crowd} ranks share {cores} cores: they measure the sharing, not scaling")
    show(_modelled_table(result))
    for ratio in result.ratios:
        log(_told(ratio))
    if result.ratios and DASK in result.options.systems:
        log(
            f"the paper measured {result.paper_ratio} times (its first version said "
            f"{result.paper_ratio_v1}) at 128 GPUs, over whole runs; nothing here ran on a GPU, "
            "or on 128 of anything"
        )
    if json:
        print_json(to_json(result))
    if result.load_before is not None:
        log(f"load of the machine in the minute before: {result.load_before:.1f} processes")
    finish("Scaling", result.machine, result.left_out, None, ())
    if plot is not None:
        write_scaling_plot(plot, result)
        log(f"the plot is in {plot}")


def _measured_table(result: ScalingResult) -> Table:
    options = result.options
    table = Table(
        title=f"measured: {result.num_nodes:,} sensors, {options.batch_size} windows a rank, "
        f"{result.parameters:,} parameters; ms a step, median of {options.rounds} rounds",
        title_justify="left",
        title_style=_MEASURED_STYLE,
    )
    table.add_column("system", no_wrap=True)
    for name in ("ranks", "step", "least to most", "fetch", "compute", "commun.", "kB sent"):
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
        _milliseconds(each.modelled.step),
        f"{100 * each.model_error:+.0f} %",
    )


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
    table.add_column("ms a step", justify="right", style=_MODELLED_STYLE)
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
                end_section=system == options.systems[-1],
            )
    return table


def _told(ratio: Ratio) -> str:
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
    return (
        f"modelled, {ratio.network}, {ratio.ranks} ranks, {compute}: "
        f"a step in times of replicated's: {others or 'nothing else was measured'}"
    )
