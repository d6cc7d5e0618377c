"""The scaling study as an HTML page: measured points solid in blues, modelled ones dashed in reds.

The two never share a color, whatever the system.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgti_bench.plot import graph_objects, write_page
from pgti_bench.scaling.options import DASK, SYSTEMS
from pgti_bench.scaling.results import (
    PAPER_EPOCH_SECONDS,
    PAPER_RATIOS,
    Measured,
    Modelled,
    ScalingResult,
)

__all__ = ["MEASURED_COLORS", "MODELLED_COLORS", "write_scaling_plot"]

MEASURED_COLORS = ("#08306b", "#08519c", "#2171b5", "#4292c6", "#6baed6", "#9ecae1", "#c6dbef")
MODELLED_COLORS = ("#67000d", "#a50f15", "#cb181d", "#ef3b2c", "#fb6a4a", "#fc9272", "#fcbba1")
_SYMBOLS = ("square", "diamond", "circle", "triangle-up", "x", "star", "cross")


def write_scaling_plot(path: Path, result: ScalingResult) -> None:
    """Write a figure for each network: seconds of an epoch by ranks, both axes logarithmic.

    Args:
        path: file to write; replaced if it exists.
        result: of the study.

    Raises:
        BenchError: plotly is not installed, or the file cannot be written.
    """
    cores = result.machine.cores
    paragraphs = [
        f"{result.machine.cpu}, {cores} cores, one thread per rank. Solid and blue: measured on "
        "this machine. Dashed and red: modelled, never run. Hollow: modelled for a measured "
        "number of ranks. Gray and dotted: the ideal line, replicated on one rank divided by the "
        "ranks. Black: the paper's, with 128 A100s, windows 54 times as large, and whole runs.",
        *(f"{ranks} ranks share {cores} cores." for ranks in result.options.ranks if ranks > cores),
        *(f"left out: {line}" for line in result.left_out),
    ]
    figures = [_figure(result, network.name) for network in result.networks]
    if {DASK, "replicated"} <= set(result.options.systems):
        figures.append(_ratio_figure(result))
    write_page(path, "Scaling: measured and modelled", paragraphs, figures)


def _figure(result: ScalingResult, network: str) -> Any:
    objects = graph_objects()
    figure = objects.Figure()
    for number, system in enumerate(SYSTEMS):
        measured = [each for each in result.measured if each.system == system]
        if not measured:
            continue
        modelled = [
            each for each in result.predictions if each.system == system and each.network == network
        ]
        figure.add_trace(objects.Scatter(**_solid(system, measured, number)))
        figure.add_trace(objects.Scatter(**_hollow(result, system, measured, number)))
        figure.add_trace(objects.Scatter(**_dashed(system, modelled, number)))
    ranks = sorted({*result.options.ranks, *result.options.predicted_ranks})
    alone = [each for each in result.measured if (each.system, each.ranks) == ("replicated", 1)]
    for each in alone:
        ideal = [each.epoch_seconds / number for number in ranks]
        figure.add_trace(objects.Scatter(**_reference("ideal", ranks, ideal, "lines")))
    paper = _reference("the paper, one A100", [1], [PAPER_EPOCH_SECONDS], "markers")
    figure.add_trace(objects.Scatter(**paper))
    figure.update_layout(
        title=f"An epoch of {result.options.epoch_windows:,} windows, "
        f"{result.options.batch_size} of them on each rank in a step; modelled for {network}",
        template="plotly_white",
        xaxis={"type": "log", "title": "ranks", "tickvals": ranks},
        yaxis={"type": "log", "title": "seconds of an epoch"},
    )
    return figure


def _ratio_figure(result: ScalingResult) -> Any:
    """Steps of Dask's system over those of replicated, by ranks, beside the paper's whole runs."""
    objects = graph_objects()
    figure = objects.Figure()
    number = list(SYSTEMS).index(DASK)
    measured = {(each.system, each.ranks): each.step_seconds.median for each in result.measured}
    ranks = list(result.options.ranks)
    name = "measured, a step"
    ratios = [measured[DASK, each] / measured["replicated", each] for each in ranks]
    figure.add_trace(
        objects.Scatter(
            x=ranks, y=ratios, name=name, mode="lines+markers",
            line={"color": MEASURED_COLORS[number]},
        )
    )  # fmt: skip
    network = result.networks[-1].name
    modelled = {
        (each.system, each.ranks): each.step.step
        for each in result.predictions
        if each.network == network
    }
    ranks = list(result.options.predicted_ranks)
    ratios = [modelled[DASK, each] / modelled["replicated", each] for each in ranks]
    figure.add_trace(
        objects.Scatter(
            x=ranks, y=ratios, name=f"modelled for {network}, a step", mode="lines+markers",
            line={"color": MODELLED_COLORS[number], "dash": "dash"},
        )
    )  # fmt: skip
    points = _reference(
        "the paper, whole runs", list(PAPER_RATIOS), list(PAPER_RATIOS.values()), "markers"
    )
    figure.add_trace(objects.Scatter(**points))
    figure.update_layout(
        title="Dask's system over replicated",
        template="plotly_white",
        xaxis={"type": "log", "title": "ranks"},
        yaxis={"type": "log", "title": "ratio of times"},
    )
    return figure


def _reference(
    name: str, ranks: Sequence[int], values: Sequence[float], mode: str
) -> dict[str, Any]:
    """A line or points that this machine neither measured nor modelled."""
    return {
        "x": list(ranks),
        "y": list(values),
        "name": name,
        "mode": mode,
        "line": {"color": "#7f7f7f", "dash": "dot"},
        "marker": {"symbol": "hexagram", "size": 12, "color": "#000000"},
    }


def _solid(system: str, measured: Sequence[Measured], number: int) -> dict[str, Any]:
    return {
        "x": [each.ranks for each in measured],
        "y": [each.epoch_seconds for each in measured],
        "name": f"{system}, measured",
        "mode": "lines+markers",
        "line": {"color": MEASURED_COLORS[number], "dash": "solid"},
        "marker": {"symbol": _SYMBOLS[number], "size": 10},
    }


def _hollow(
    result: ScalingResult, system: str, measured: Sequence[Measured], number: int
) -> dict[str, Any]:
    epochs = [result.options.epoch_steps(each.ranks) * each.modelled.step for each in measured]
    return {
        "x": [each.ranks for each in measured],
        "y": epochs,
        "name": f"{system}, modelled here",
        "mode": "markers",
        "marker": {
            "symbol": f"{_SYMBOLS[number]}-open",
            "size": 12,
            "color": MODELLED_COLORS[number],
        },
    }


def _dashed(system: str, modelled: Sequence[Modelled], number: int) -> dict[str, Any]:
    return {
        "x": [each.ranks for each in modelled],
        "y": [each.epoch_seconds for each in modelled],
        "name": f"{system}, modelled",
        "mode": "lines+markers",
        "line": {"color": MODELLED_COLORS[number], "dash": "dash"},
        "marker": {"symbol": f"{_SYMBOLS[number]}-open", "size": 8},
    }
