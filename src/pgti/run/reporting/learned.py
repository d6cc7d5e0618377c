"""The graph that a network learned: as a heat map, and its strongest edges on the map."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.figures import heat_map, sensor_map
from pgti.models import AbstractModel
from pgti.report import Panel, Section
from pgti.run.reporting.sensors import layout_of
from pgti.run.run import Run

__all__ = ["learned_section", "strongest_edges"]

Rows = Callable[[slice], torch.Tensor]

_BLOCKS = 150  # rows and columns of the heat map
_ROWS_AT_ONCE = 256
_EDGES_PER_SENSOR = 2
_MAX_EDGES = 3_000


def learned_section(run: Run) -> Section | None:
    """Two panels of the learned adjacency; None if the network learned none."""
    network = run.forecaster.network
    rows = network.learned_rows() if isinstance(network, AbstractModel) else None
    if rows is None:
        return None
    ids = run.store.meta.node_ids
    num_nodes = len(ids)
    num_edges = min(_MAX_EDGES, _EDGES_PER_SENSOR * num_nodes)
    blocks, read, edges, weights = _summary(rows, num_nodes, num_edges)
    firsts = np.arange(0, num_nodes, -(-num_nodes // _BLOCKS))
    names = [ids[index] for index in firsts]
    grouped = "" if len(firsts) == num_nodes else ", mean over blocks of sensors"
    figure = heat_map(
        blocks, x=names, y=names, label=f"weight{grouped}", x_title="sensor that is read",
        y_title="sensor that reads", limits=(0.0, float(np.quantile(blocks, 0.995)) or 1.0),
        height=480,
    )  # fmt: skip
    figure.update_xaxes(nticks=6)
    map_figure = sensor_map(
        layout_of(run.store.graph), ids, read, label="weight that all sensors give it",
        edges=edges, weights=weights, max_edges=num_edges,
    )  # fmt: skip
    return Section(
        heading="Learned graph",
        panels=[
            Panel(
                name="adjacency",
                figure=figure,
                caption="The adjacency that the network learned: the weight that each sensor (row) "
                f"gives to each other (column){grouped}. Weights of a row add up to 1.",
            ),
            Panel(
                name="learned",
                figure=map_figure,
                caption=f"Its {edges.shape[1]:,} strongest edges, and the sensors by the weight "
                "that all others give them together.",
            ),
        ],
    )


def _summary(
    rows: Rows, num_nodes: int, num_edges: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Means of blocks, sums of columns, the strongest edges and weights; some rows at once."""
    size = -(-num_nodes // _BLOCKS)
    firsts = np.arange(0, num_nodes, size)
    widths = np.diff([*firsts, num_nodes])
    sums = np.zeros((len(firsts), len(firsts)))
    read = np.zeros(num_nodes)
    edges, weights = np.zeros((2, 0), np.int64), np.zeros(0)
    for first in range(0, num_nodes, _ROWS_AT_ONCE):
        part = slice(first, min(num_nodes, first + _ROWS_AT_ONCE))
        with torch.no_grad():
            values = rows(part).double().cpu().numpy()
        here = np.arange(part.start, part.stop)
        values[here - first, here] = 0.0
        np.add.at(sums, here // size, np.add.reduceat(values, firsts, axis=1))
        read += values.sum(axis=0)
        more, of_more = strongest_edges(values, num_edges)
        more[0] += first
        edges, weights = np.concatenate([edges, more], 1), np.concatenate([weights, of_more])
        best = np.argsort(-weights, kind="stable")[:num_edges]
        edges, weights = edges[:, best], weights[best]
    return sums / np.outer(widths, widths), read, edges, weights


def strongest_edges(
    values: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows and columns, [2, count], of the largest weights above 0, and the weights."""
    flat = values.ravel()
    best = np.argpartition(-flat, min(count, flat.size - 1))[:count]
    best = best[flat[best] > 0]
    return np.stack(np.unravel_index(best, values.shape)), flat[best]
