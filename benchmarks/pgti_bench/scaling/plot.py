"""The scaling study as an HTML page: measured points solid in blues, modelled ones dashed in reds.

The two never share a color, whatever the system.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgti_bench.plot import graph_objects, write_page
from pgti_bench.scaling.options import SYSTEMS
from pgti_bench.scaling.results import Measured, Modelled, ScalingResult

__all__ = ["MEASURED_COLORS", "MODELLED_COLORS", "write_scaling_plot"]

MEASURED_COLORS = ("#08306b", "#08519c", "#2171b5", "#4292c6", "#6baed6", "#9ecae1")
MODELLED_COLORS = ("#67000d", "#a50f15", "#cb181d", "#ef3b2c", "#fb6a4a", "#fc9272")
_SYMBOLS = ("square", "diamond", "circle", "triangle-up", "x", "star")


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
        "number of ranks.",
        *(f"{ranks} ranks share {cores} cores." for ranks in result.options.ranks if ranks > cores),
        *(f"left out: {line}" for line in result.left_out),
    ]
    figures = [_figure(result, network.name) for network in result.networks]
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
    figure.update_layout(
        title=f"An epoch of {result.options.epoch_windows:,} windows, "
        f"{result.options.batch_size} of them on each rank in a step; modelled for {network}",
        template="plotly_white",
        xaxis={"type": "log", "title": "ranks", "tickvals": ranks},
        yaxis={"type": "log", "title": "seconds of an epoch"},
    )
    return figure


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
