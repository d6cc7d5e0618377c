"""Which part of a series was observed, over time and sensors."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgti.figures import graph_objects

if TYPE_CHECKING:
    from pgti.store.store import SeriesStore

__all__ = ["coverage", "plot_coverage", "plot_store"]


def plot_store(store: "SeriesStore") -> Any:
    """The heat map of `coverage` of a store; one pass over the series, in bounded memory.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    graph_objects()  # a missing library is known before the pass
    meta = store.meta
    rows, sensors, shares = coverage(store.read, meta.shape)
    store.release()
    return plot_coverage(
        store.time_axis.at(rows) if store.time_axis.is_dated else rows,
        [meta.node_ids[sensor] for sensor in sensors],
        shares,
        f"{store.path.name}: {meta.missing_fraction:.2%} of the readings are missing",
    )


def coverage(
    read: Callable[[int, int], NDArray[np.float32]],
    shape: tuple[int, int, int],
    *,
    max_times: int = 200,
    max_sensors: int = 300,
    budget_bytes: int = 32 << 20,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Share of observed readings in blocks of rows and sensors; one pass over the series.

    Args:
        read: reads rows first..stop-1, [rows, N, C], NaN where missing.
        shape: (T, N, C).
        max_times: number of blocks of rows at most.
        max_sensors: number of blocks of sensors at most.
        budget_bytes: memory for the readings of one chunk of rows.

    Returns:
        First row of each block, int64 [K]; first sensor of each block, int64 [M]; the shares,
        float64 [K, M], over all channels.
    """
    num_steps, num_nodes, num_channels = shape
    rows = np.arange(0, num_steps, -(-num_steps // max_times), dtype=np.int64)
    sensors = np.arange(0, num_nodes, -(-num_nodes // max_sensors), dtype=np.int64)
    row_stops, sensor_stops = [*rows[1:], num_steps], [*sensors[1:], num_nodes]
    observed = np.zeros((len(rows), len(sensors)))
    chunk = max(1, budget_bytes // (4 * num_nodes * num_channels))
    for block, (first, stop) in enumerate(zip(rows, row_stops, strict=True)):
        for begin in range(first, stop, chunk):
            values = read(begin, min(stop, begin + chunk))
            observed[block] += np.add.reduceat(np.isfinite(values).sum(axis=(0, 2)), sensors)
    return (
        rows,
        sensors,
        observed / np.outer(row_stops - rows, sensor_stops - sensors) / num_channels,
    )


def plot_coverage(
    times: NDArray[Any], sensor_ids: Sequence[str], shares: NDArray[np.float64], title: str
) -> Any:
    """A heat map of `coverage`: time from left to right, sensors from top to bottom.

    Args:
        times: of each block of rows, or its first row number, [K].
        sensor_ids: of each block of sensors, [M].
        shares: of observed readings, [K, M].
        title: of the figure.

    Returns:
        A `plotly.graph_objects.Figure`.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    graphs = graph_objects()
    figure = graphs.Figure(
        graphs.Heatmap(
            x=times,
            y=sensor_ids,
            z=shares.T,
            zmin=0,
            zmax=1,
            colorscale=[[0, "#b2182b"], [0.5, "#f7c6a3"], [1, "#e8f1f8"]],
            colorbar={"title": "observed", "tickformat": ".0%"},
            hovertemplate="%{x}<br>sensor %{y}<br>%{z:.1%} observed<extra></extra>",
        )
    )
    figure.update_layout(
        title=title,
        yaxis={"title": "sensor", "type": "category", "autorange": "reversed"},
        template="plotly_white",
    )
    return figure
