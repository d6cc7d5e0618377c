"""Signs that the axes of the readings are others than the user thinks."""

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.raw_graphs import RawCoordinates, RawEdges, RawGraph
from pgti.ingestion.readings import Readings

__all__ = ["hint_at_axes", "note_other_axes", "note_square_array", "refuse_other_axes"]

_COUNT_BYTES = 1 << 22


def refuse_other_axes(readings: Readings, graph: RawGraph) -> None:
    """Refuse a graph that has as many nodes as there are rows, or channels, and not sensors.

    Args:
        readings: as they are read.
        graph: the graph.

    Raises:
        DataError: naming the option that reads them otherwise.
    """
    size = _num_nodes(graph, readings)
    if readings.has_named_axes or size in (None, readings.num_nodes):
        return
    for sensors, fits in (
        ("row", _has_rows(readings, size)),
        ("channel", readings.num_channels == size),
    ):
        if fits:
            raise DataError(
                f"{graph.name} has {count_of(size, 'node')}, as many as {readings.name} has "
                f"{sensors}s, and {readings.name} is read with "
                f"{count_of(readings.num_nodes, 'sensor')}: if its {sensors}s are the sensors, "
                f"read it with {_reading_option(sensors, readings)}"
            )


def note_other_axes(readings: Readings, num_rows: int, graph: RawGraph | None) -> tuple[str, ...]:
    """A note on an array whose axes nothing proves, and which may be meant otherwise.

    Args:
        readings: as they were read; they have no times.
        num_rows: their rows.
        graph: the graph, if there is one.
    """
    size = None if graph is None else _num_nodes(graph, readings)
    is_proved = readings.node_ids is not None or size not in (None, num_rows)
    if is_proved or readings.has_named_axes:
        return ()
    name, num_nodes = readings.name, readings.num_nodes
    if readings.num_channels > num_nodes > 1:
        days = option("axes", ("sensor", "day", "slot"))
        slots = f", and if they are the times of a day, with {days}"
        return (
            f"{name} is read as {num_nodes} sensors with {readings.num_channels} channels each: if "
            f"its channels are sensors, read it with {_reading_option('channel', readings)}"
            + ("" if 1440 % readings.num_channels else slots),
        )
    if num_nodes < max(2, num_rows):
        return ()
    how = "more sensors than steps" if num_nodes > num_rows else "as many sensors as steps"
    return (
        f"{name} is read as {count_of(num_rows, 'step')} of {num_nodes} sensors, {how}: if its "
        f"rows are sensors, read it with {_reading_option('row', readings)}",
    )


def note_square_array(readings: Readings) -> list[str]:
    """A note on newer readings without ids that have as many rows as sensors."""
    size = readings.num_nodes
    if readings.num_rows != size or size == 1 or readings.has_named_axes or readings.counts_ids:
        return []
    return [
        f"{readings.name} has as many rows as sensors, {size}: its rows are taken for times; if "
        f"they are sensors, read it with {_reading_option('row', readings)}"
    ]


def hint_at_axes(readings: Readings, num_nodes: int) -> str:
    """The option to read readings of another number of sensors with, if one fits; else ""."""
    if readings.num_nodes == num_nodes:
        return ""
    if readings.has_named_axes:
        return "; its axes are taken as the options, or those of the first source, name them"
    if _has_rows(readings, num_nodes):
        return f"; if its rows are sensors, read it with {_reading_option('row', readings)}"
    if readings.num_channels == num_nodes:
        return f"; if its channels are sensors, {_reading_option('channel', readings)} says so"
    return ""


def _reading_option(sensors: str, readings: Readings) -> str:
    """The option that makes sensors of the rows or of the channels."""
    if sensors == "channel":
        return option("axes", ("time", "channel", "sensor"))
    if readings.num_channels == 1:
        return option("transpose", value=True)
    return option("axes", ("sensor", "time", "channel"))


def _num_nodes(graph: RawGraph, readings: Readings) -> int | None:
    """Nodes of a graph; those of a list of edges are known where it counts more than N."""
    if isinstance(graph, RawEdges):
        ends = {*graph.source, *graph.target}
        if readings.node_ids is not None or not all(end.isdecimal() for end in ends):
            return None
        size = 1 + max(map(int, ends), default=0)
        return size if size > readings.num_nodes else None
    if isinstance(graph, RawCoordinates):
        return len(graph.latlon)
    return int(graph.matrix.shape[0])


def _has_rows(readings: Readings, size: int) -> bool:
    """Whether there are as many rows; a source that does not know is read until there are more."""
    num_rows = readings.num_rows
    if num_rows is None:
        num_rows = 0
        for chunk in readings.chunks(_COUNT_BYTES):
            num_rows += len(chunk.values)
            if num_rows > size:
                break
    return num_rows == size
