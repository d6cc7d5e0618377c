"""The scaling study as an HTML page: measured points solid in blues, modelled ones dashed in reds.

The two never share a colour, whatever the system.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgti.bench.plot import check_plot
from pgti.bench.scaling_options import SYSTEMS
from pgti.bench.scaling_results import Measured, Modelled, ScalingResult
from pgti.errors import BenchError

__all__ = ["MEASURED_COLOURS", "MODELLED_COLOURS", "write_scaling_plot"]

MEASURED_COLOURS = ("#08306b", "#08519c", "#2171b5", "#4292c6", "#6baed6", "#9ecae1")
MODELLED_COLOURS = ("#67000d", "#a50f15", "#cb181d", "#ef3b2c", "#fb6a4a", "#fc9272")
_SYMBOLS = ("square", "diamond", "circle", "triangle-up", "x", "star")


def write_scaling_plot(path: Path, result: ScalingResult) -> None:
    """Write a figure for each network: seconds of an epoch by ranks, both axes logarithmic.

    Args:
        path: file to write; replaced if it exists.
        result: of the study.

    Raises:
        MissingExtraError: plotly is not installed.
        BenchError: the file cannot be written.
    """
    check_plot(path)
    machine = result.machine
    lines = [
        f"{machine.cpu}, {machine.cores} cores, one thread a rank. Solid and blue: measured on "
        "this machine. Dashed and red: modelled, never run. Hollow: the model where there is a "
        "measurement, its error.",
        *(
            f"{ranks} ranks share {machine.cores} cores."
            for ranks in result.options.ranks
            if ranks > machine.cores
        ),
        *(f"left out: {line}" for line in result.left_out),
    ]
    parts = [f"<p>{html.escape(line)}</p>" for line in lines]
    for number, network in enumerate(result.networks):
        figure = _figure(result, network.name)
        # plotly.js goes into the page once, so that it can be read without a network.
        parts.append(figure.to_html(full_html=False, include_plotlyjs=number == 0))
    title, body = "Scaling: measured and modelled", "\n".join(parts)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '</head>\n<body style="font-family: sans-serif; max-width: 70em; margin: auto">\n'
        f"<h1>{title}</h1>\n{body}\n</body></html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"the plot {path} cannot be written: {error.strerror}") from error


def _figure(result: ScalingResult, network: str) -> Any:
    from plotly import graph_objects  # noqa: PLC0415 - an extra

    figure = graph_objects.Figure()
    for number, system in enumerate(SYSTEMS):
        measured = [each for each in result.measured if each.system == system]
        if not measured:
            continue
        modelled = [
            each for each in result.predictions if each.system == system and each.network == network
        ]
        figure.add_trace(graph_objects.Scatter(**_solid(system, measured, number)))
        figure.add_trace(graph_objects.Scatter(**_hollow(result, system, measured, number)))
        figure.add_trace(graph_objects.Scatter(**_dashed(system, modelled, number)))
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
        "line": {"color": MEASURED_COLOURS[number], "dash": "solid"},
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
            "color": MODELLED_COLOURS[number],
        },
    }


def _dashed(system: str, modelled: Sequence[Modelled], number: int) -> dict[str, Any]:
    return {
        "x": [each.ranks for each in modelled],
        "y": [each.epoch_seconds for each in modelled],
        "name": f"{system}, modelled",
        "mode": "lines+markers",
        "line": {"color": MODELLED_COLOURS[number], "dash": "dash"},
        "marker": {"symbol": f"{_SYMBOLS[number]}-open", "size": 8},
    }
