"""`pgti bench step`: a training step beside its matrix products and beside PGT's."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from pgti.bench import to_json
from pgti.bench.devices import Device
from pgti.bench.own_step import LAYER
from pgti.bench.peers import find_pgt
from pgti.bench.plot import Bar, Chart, check_plot
from pgti.bench.step import OwnFigures, StepResult, measure_step
from pgti.bench.step_options import StepOptions
from pgti.cli.bench_output import binary_size, finish, milliseconds, times
from pgti.cli.model_options import option_value
from pgti.cli.output import log, print_json, show
from pgti.errors import ConfigError
from pgti.ingest import IngestOptions, read_graph
from pgti.training.config import Precision

__all__ = ["bench_step_command"]

_TITLE = "A training step"
_GIGA = 1e9


def bench_step_command(
    *,
    model: Annotated[
        dict[str, str] | None,
        Parameter(
            name="--model",
            help="layer, the recurrent layer that PGT has too (options: hidden [64], hops [2]), or "
            "a model of pgti train, and its options as --model.OPTION VALUE.",
        ),
    ] = None,
    nodes: int | None = None,
    degree: int | None = None,
    graph: Path | None = None,
    edges: tuple[str, ...] = (),
    steps: int = 12,
    batch_size: int = 64,
    precision: Literal["float32", "bfloat16", "both"] = "float32",
    activation_checkpointing: bool = False,
    device: Device = "cpu",
    threads: int | None = None,
    rounds: int = 5,
    pgt: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """A training step: ours, its own matrix products alone, and PGT's, in alternation.

    Each runs in a process of its own on the same graph, with random windows of two input channels
    and one target. PGT's BatchedDCRNN is run as its users run it, and once more with the memory
    allocator set as ours is.

    Args:
        model: Name of the model, and its options.
        nodes: Sensors of a random graph [207].
        degree: Edges that leave each of them [8].
        graph: Graph file, in place of a random graph.
        edges: Arrays or columns (source, target) or (source, target, weight) of that file.
        steps: Rows of a window's input; a model forecasts as many.
        batch_size: Windows in a step.
        precision: Of our step, or both in alternation.
        activation_checkpointing: As pgti train --activation-checkpointing on.
        device: Where to compute: cpu or cuda.
        threads: Threads of each process; what torch chooses if not given.
        rounds: Measurements of each.
        pgt: Python interpreter of an environment with PGT; .venv-pgt/bin/python (make bench-pgt)
            if it is there. Without one PGT is left out.
        plot: HTML file for a plot.
        json: Print one JSON object as the last line of standard output.
    """
    if graph is None and edges:
        raise ConfigError(f"--edges names {', '.join(edges)} and there is no --graph: name a file")
    if graph is not None and (nodes is not None or degree is not None):
        raise ConfigError(
            f"--graph names {graph}, and --nodes and --degree make another graph: give one of both"
        )
    chosen = dict(model or {})
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    options = StepOptions(
        model=chosen.pop("name", LAYER),
        model_options={key.replace("-", "_"): option_value(text) for key, text in chosen.items()},
        nodes=207 if nodes is None else nodes,
        degree=8 if degree is None else degree,
        steps=steps,
        batch_size=batch_size,
        precisions=precisions if precision == "both" else (precision,),
        activation_checkpointing=activation_checkpointing,
        device=device,
        threads=threads,
        rounds=rounds,
    )
    python = find_pgt(pgt)
    check_plot(plot)
    network = None if graph is None else read_graph(graph, IngestOptions(edges=edges))[0]
    result = measure_step(options, network, pgt=python, log=log)
    show(_table(result))
    for own in result.own:
        log(_share(own))
    if json:
        print_json(to_json(result))
    finish(_TITLE, result.machine, result.left_out, plot, _charts(result))


def _table(result: StepResult) -> Table:
    options = result.options
    sizes = {name: value for name, value in options.model_options.items() if type(value) is int}
    described = ", ".join(f"{name} {value}" for name, value in sizes.items())
    title = (
        f"{_TITLE}: {options.model} ({described}), {result.nodes:,} nodes, {result.edges:,} edges, "
        f"{options.batch_size} windows of {options.steps} steps"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("ms (median)", "lowest to highest", "times ours", "peak memory", "times ours"):
        table.add_column(name, justify="right")
    for own in result.own:
        seconds = milliseconds(own.seconds)
        table.add_row(
            f"pgti {own.precision}",
            *seconds,
            times(own.over_first),
            binary_size(own.peak_bytes),
            "",
        )
        products = own.products
        for kind, spread in (
            ("dense", products.dense_seconds),
            ("sparse", products.sparse_seconds),
        ):
            table.add_row(f"  its {kind} products alone", *milliseconds(spread), "", "", "")
    for peer in result.peers:
        memory = "-" if peer.memory_over_own is None else f"{peer.memory_over_own:.2f} x"
        table.add_row(
            peer.name,
            *milliseconds(peer.seconds),
            times(peer.over_own),
            binary_size(peer.peak_bytes),
            memory,
        )
    return table


def _share(own: OwnFigures) -> str:
    """How near the step comes to its own products."""
    products = own.products
    dense, sparse = products.count.dense_flop, products.count.sparse_flop
    rates = [f"{dense / _GIGA:,.1f} GFLOP at {dense / products.dense_seconds.median / _GIGA:,.0f}"]
    if sparse:
        rate = sparse / products.sparse_seconds.median / _GIGA
        rates.append(f"{sparse / _GIGA:,.1f} in sparse ones at {rate:,.0f}")
    ratio = own.over_products
    return (
        f"pgti {own.precision} takes {ratio.median:.2f} times its products alone "
        f"({ratio.minimum:.2f} to {ratio.maximum:.2f}): {100 / ratio.median:.0f} % of the limit; "
        f"{', '.join(rates)} GFLOP/s"
    )


def _charts(result: StepResult) -> list[Chart]:
    seconds, memory = [], []
    figures: list[Any] = [(f"pgti {own.precision}", own) for own in result.own]
    figures += [(peer.name, peer) for peer in result.peers]
    for name, each in figures:
        seconds.append(Bar(name=name, value=each.seconds))
        if isinstance(each, OwnFigures):
            products = each.products
            seconds.append(Bar(name=f"{name}: dense products", value=products.dense_seconds))
            seconds.append(Bar(name=f"{name}: sparse products", value=products.sparse_seconds))
        if each.peak_bytes is not None:
            memory.append(Bar(name=name, value=each.peak_bytes / 2**30))
    charts = [Chart(title="Time of a step", unit="s", bars=tuple(seconds))]
    if memory:
        charts.append(Chart(title="Peak memory of the process", unit="GiB", bars=tuple(memory)))
    return charts
