"""What several files say of their sensors and channels beside the readings: units, coordinates."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pgti.errors import DataError
from pgti.ingestion.raw_graphs import RawCoordinates, RawGraph
from pgti.ingestion.readings import Readings

__all__ = ["join_graphs", "join_units"]


def join_units(
    files: Sequence[Readings], channels: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """The unit of each channel of the files together, where they have units.

    Raises:
        DataError: naming two files that have a channel in other units.
    """
    found: dict[str, tuple[str, str]] = {}
    for file in files:
        for channel, unit in zip(file.channels or (), file.units or (), strict=False):
            before, name = found.setdefault(channel, (unit, file.name))
            if before != unit:
                one, other = (each or "no unit" for each in (before, unit))
                raise DataError(
                    f"{channel} is in {one} in {name} and in {other} in {file.name}: convert one "
                    "of them"
                )
    if not found or channels is None:
        return None
    return tuple(found.get(channel, ("", ""))[0] for channel in channels)


def join_graphs(files: Sequence[Readings], ids: tuple[str, ...] | None) -> RawGraph | None:
    """The graph of the first file; coordinates are those of all sensors, from any of the files."""
    graph = files[0].graph
    if not isinstance(graph, RawCoordinates) or ids is None:
        return graph
    places: dict[str, tuple[float, float]] = {}
    for file in files:
        if isinstance(file.graph, RawCoordinates) and file.graph.node_ids is not None:
            pairs = file.graph.latlon.tolist()
            for label, pair in zip(file.graph.node_ids, pairs, strict=True):
                places.setdefault(label, (pair[0], pair[1]))
    if any(label not in places for label in ids):
        return None
    latlon = np.array([places[label] for label in ids], dtype=np.float64)
    return replace(graph, latlon=latlon, node_ids=ids)
