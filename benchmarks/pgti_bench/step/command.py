"""`pgti-bench step`: a training step beside its matrix products and beside PGT's step."""

import json as json_text
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import log, print_results
from pgti.errors import ConfigError
from pgti.ingestion import IngestOptions, read_graph
from pgti.run.results import to_json
from pgti_bench.output import binary_size, finish, milliseconds, times
from pgti_bench.pgt_environment import find_pgt
from pgti_bench.plot import Bar, Chart, check_plot
from pgti_bench.step.measure import CompiledFigures, OwnFigures, StepResult, measure_step
from pgti_bench.step.network import LAYER
from pgti_bench.step.options import StepOptions

__all__ = ["step_command"]

_TITLE = "A training step"
_GIGA = 1e9
_DEFAULTS = StepOptions()


def step_command(
    *,
    model: Annotated[
        dict[str, str] | None,
        Parameter(
            name="--model",
            help="layer, the recurrent layer that PGT has too (options: hidden [64], hops [2]), or "
            "a model of pgti train; its options as --model.OPTION VALUE.",
        ),
    ] = None,
    options: Annotated[StepOptions, Parameter(name="*")] = _DEFAULTS,
    graph: Path | None = None,
    edges: tuple[str, ...] = (),
    pgt: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Time a training step of pgti, its matrix products alone, and PGT's step, interleaved.

    Each runs in a separate process on the same graph, with random windows of two input channels
    and one target. PGT's BatchedDCRNN is run as its users run it, and once more with the memory
    allocator configured as pgti configures its own.

    Args:
        model: Name of the model, and its options.
        options: What to measure.
        graph: Graph file, in place of a random graph.
        edges: Comma-separated arrays or columns of that file: source,target or
            source,target,weight.
        pgt: Python interpreter of an environment with PGT [default: .venv-pgt/bin/python, see
            make bench-pgt]. PGT is left out if it does not exist.
        plot: HTML file for a plot.
        json: Print one JSON object on standard output, and no tables.
    """
    if graph is None and edges:
        raise ConfigError(f"--edges is {', '.join(edges)} without --graph: pass a graph file too")
    sizes = (options.nodes, options.degree)
    if graph is not None and sizes != (_DEFAULTS.nodes, _DEFAULTS.degree):
        raise ConfigError(
            f"--graph is {graph}, and --nodes and --degree describe a random graph: pass one or "
            "the other"
        )
    chosen = dict(model or {})
    name = chosen.pop("name", LAYER)
    model_options = {key.replace("-", "_"): _parse(text) for key, text in chosen.items()}
    options = replace(options, model=name, model_options=model_options)
    python = find_pgt(pgt)
    check_plot(plot)
    network = None if graph is None else read_graph(graph, IngestOptions(edges=edges))[0]
    result = measure_step(options, network, pgt=python, log=log)
    for own in result.own:
        log(_describe_limit(own))
        if own.compiled is not None:
            log(_describe_compiled(own.precision, own.compiled))
    print_results(to_json(result), _table(result), as_json=json)
    finish(_TITLE, result.machine, result.left_out, plot, _charts(result))


def _parse(text: str) -> Any:
    """A truth value or a number as in JSON, else the text."""
    try:
        return json_text.loads(text)
    except json_text.JSONDecodeError:
        return text


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
    for name in ("ms (median)", "range", "over pgti", "peak memory", "over pgti"):
        table.add_column(name, justify="right")
    for own in result.own:
        seconds = milliseconds(own.seconds)
        memory = binary_size(own.peak_bytes)
        table.add_row(f"pgti {own.precision}", *seconds, times(own.over_first), memory, "")
        if own.compiled is not None:
            compiled = own.compiled
            memory = binary_size(compiled.peak_bytes)
            table.add_row("  compiled", *milliseconds(compiled.seconds), "", memory, "")
        products = own.products
        for kind, spread in (
            ("dense", products.dense_seconds),
            ("sparse", products.sparse_seconds),
        ):
            table.add_row(f"  its {kind} products alone", *milliseconds(spread), "", "", "")
    for peer in result.peers:
        memory = "-" if peer.memory_over_own is None else f"{peer.memory_over_own:.2f} x"
        seconds = milliseconds(peer.seconds)
        table.add_row(
            peer.name, *seconds, times(peer.over_own), binary_size(peer.peak_bytes), memory
        )
    return table


def _describe_limit(own: OwnFigures) -> str:
    """How near the step comes to its products alone."""
    products = own.products
    dense, sparse = products.count.dense_flop, products.count.sparse_flop
    rates = [f"{dense / _GIGA:,.1f} GFLOP at {dense / products.dense_seconds.median / _GIGA:,.0f}"]
    if sparse:
        rate = sparse / products.sparse_seconds.median / _GIGA
        rates.append(f"{sparse / _GIGA:,.1f} in sparse products at {rate:,.0f}")
    ratio = own.over_products
    return (
        f"pgti {own.precision} takes {ratio.median:.2f} times its products alone "
        f"({ratio.minimum:.2f} to {ratio.maximum:.2f}): {100 / ratio.median:.0f} % of the limit; "
        f"{', '.join(rates)} GFLOP/s"
    )


def _describe_compiled(precision: str, compiled: CompiledFigures) -> str:
    """What is gained by compiling, and its price."""
    ratio = compiled.over_eager
    return (
        f"pgti {precision} compiled takes {ratio.median:.2f} times the uncompiled step "
        f"({ratio.minimum:.2f} to {ratio.maximum:.2f}); its first step, which compiles, took "
        f"{compiled.first_seconds:,.1f} s"
    )


def _charts(result: StepResult) -> list[Chart]:
    seconds, memory = [], []
    figures: list[Any] = [(f"pgti {own.precision}", own) for own in result.own]
    figures += [(peer.name, peer) for peer in result.peers]
    for name, each in figures:
        seconds.append(Bar(name=name, value=each.seconds))
        if isinstance(each, OwnFigures):
            if each.compiled is not None:
                seconds.append(Bar(name=f"{name}: compiled", value=each.compiled.seconds))
            products = each.products
            seconds.append(Bar(name=f"{name}: dense products", value=products.dense_seconds))
            seconds.append(Bar(name=f"{name}: sparse products", value=products.sparse_seconds))
        if each.peak_bytes is not None:
            memory.append(Bar(name=name, value=each.peak_bytes / 2**30))
    charts = [Chart(title="Time of a step", unit="s", bars=tuple(seconds))]
    if memory:
        charts.append(Chart(title="Peak memory of the process", unit="GiB", bars=tuple(memory)))
    return charts
