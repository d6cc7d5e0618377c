"""The map of a report: sensors colored by their errors, and the choices of what colors them."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.figures import DIFFERENCE_SCALE, MAGNITUDE_SCALE, graph_layout, sensor_map
from pgti.graph import SensorGraph
from pgti.report import Panel
from pgti.run.reporting.compared import Group
from pgti.run.reporting.errors import in_unit

__all__ = ["layout_of", "map_panel"]

_CHOICES_BYTES = 600_000  # of a page
_BYTES_PER_SENSOR = 16 / 3  # of a choice: float32 in base64


def layout_of(graph: SensorGraph) -> NDArray[np.float64]:
    """Where the sensors are drawn; those without coordinates beside the others."""
    positions = graph_layout(graph.adjacency, graph.coordinates)
    lost = ~np.isfinite(positions).all(axis=1)
    if lost.all():
        return graph_layout(graph.adjacency)
    if lost.any():
        low, high = positions[~lost].min(axis=0), positions[~lost].max(axis=0)
        across = np.linspace(low[0], high[0], int(lost.sum()))
        positions[lost] = np.stack(
            [across, np.full(len(across), low[1] - 0.1 * np.ptp([low, high]))], 1
        )
    return positions


def map_panel(groups: Sequence[Group], targets: Sequence[str], *, clickable: bool) -> Panel:
    """The sensors and edges on a map, colored by an error that is chosen."""
    first = groups[0].evaluated[0]
    graph = first.run.store.graph
    choices = _choices(groups, targets)
    label, chosen = next(iter(choices.items()))
    figure = sensor_map(
        layout_of(graph),
        first.run.store.meta.node_ids,
        chosen["values"],
        label=chosen["label"],
        edges=graph.edge_index,
        weights=graph.edge_weight,
        limits=tuple(chosen["limits"]),
    )
    figure.update_layout(dragmode="zoom")
    where = "Sensors at their coordinates" if graph.coordinates is not None else (
        "The graph laid out by its edges, since the store has no coordinates"
    )  # fmt: skip
    click = " A click on a sensor shows its forecasts." if clickable else ""
    return Panel(
        name="map",
        figure=figure,
        caption=f"{where}, colored at first by {label}; lines are edges of the graph.{click}",
        choices=choices,
        action="curves" if clickable else "",
    )


def _choices(groups: Sequence[Group], targets: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What colors the map: errors of the first group, differences from others, and baselines."""
    first = groups[0].evaluated[0]
    of_targets: list[dict[str, Mapping[str, Any]]] = []
    for target in targets:
        choices: dict[str, Mapping[str, Any]] = {}
        of_targets.append(choices)
        of = f" of {target}" if len(targets) > 1 else ""

        def errors(group: Group, metric: str, target: str = target) -> Any:
            return np.median(
                group.stacked(lambda run: run.by("sensor", "model", target, metric)), 0
            )

        mine = errors(groups[0], "mae")
        name = groups[0].label
        unit = in_unit(first, target)
        choices[f"MAE{of}, {name}"] = _choice(mine, f"{unit}, {name}")
        for other in groups[1:]:
            choices[f"MAE{of}, {name} minus {other.label}"] = _choice(
                mine - errors(other, "mae"), f"{unit}, {name} minus {other.label}", difference=True
            )
        choices[f"RMSE{of}, {name}"] = _choice(
            errors(groups[0], "rmse"), f"{in_unit(first, target, 'RMSE')}, {name}"
        )
        choices[f"MAPE{of}, {name}"] = _choice(errors(groups[0], "mape"), f"MAPE in %, {name}")
        for baseline in first.forecasters[1:]:
            theirs = first.by("sensor", baseline, target)
            choices[f"MAE{of}, {name} minus {baseline}"] = _choice(
                mine - theirs, f"{unit}, {name} minus {baseline}", difference=True
            )
            choices[f"MAE{of}, {baseline}"] = _choice(theirs, f"{unit}, {baseline}")
    # The first choices of every target come first, and as many as the page has room for.
    ordered = [
        each for row in zip_longest(*(c.items() for c in of_targets)) for each in row if each
    ]
    count = int(_CHOICES_BYTES / (_BYTES_PER_SENSOR * len(first.run.store.meta.node_ids)))
    return dict(ordered[: max(len(targets), count)])


def _choice(values: NDArray[Any], label: str, *, difference: bool = False) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (2, 98)).tolist() if len(finite) else (0.0, 1.0)
    if difference:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    elif not high > low:
        high = low + (abs(low) or 1.0)
    return {
        "values": values.astype(np.float32),
        "label": label,
        "limits": [low, high],
        "scale": [list(each) for each in DIFFERENCE_SCALE] if difference else MAGNITUDE_SCALE,
    }
