"""Arrays with named axes, and what arrays beside them say of these: ids, coordinates, times."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.arrays.axes_arrays import StoredArray, arrange
from pgti.ingestion.arrays.axes_guards import hint_at_axes
from pgti.ingestion.axes import LATITUDE_NAMES, LONGITUDE_NAMES, Axes, grid_ids
from pgti.ingestion.instants import RowLabels
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates
from pgti.ingestion.readings import (
    ID_NAMES,
    Readings,
    check_series_shape,
    find_ids,
    ids_to_text,
    with_seconds,
)
from pgti.ingestion.times.columns import (
    ColumnTimes,
    DateTimes,
    EpochTimes,
    TextTimes,
    find_epoch_unit,
)

__all__ = [
    "TIME_ARRAYS",
    "Labels",
    "add_times",
    "label_axes",
    "open_stored",
    "resolve_axes",
    "wanted_ndims",
]

TIME_ARRAYS = (
    *("time", "times", "timestamps", "timestamp", "dates", "date", "datetime", "datetimes"),
    *("datenum", "datenums"),
)
_CHANNEL_ARRAYS = ("channels", "channel_names", "features", "feature_names", "variables")


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Arrays that may label the axes of the readings.

    Attributes:
        name: what messages call their file.
        arrays: by name; of each, its shape and dtype are used.
        read: gives the array of a name.
        text_kinds: kinds of the dtypes that hold text.
    """

    name: str
    arrays: Mapping[str, Any]
    read: Callable[[str], NDArray[Any]]
    text_kinds: str = "SU"

    def find(self, names: tuple[str, ...], size: int, kinds: str) -> str | None:
        """The first name of an array [size] whose dtype is of the kinds."""
        lowered = {key.lower(): key for key in self.arrays}
        for name in names:
            key = lowered.get(name.lower())
            if key is None:
                continue
            found = self.arrays[key]
            if found.dtype.kind in kinds and _length(found.shape) == size:
                return key
        return None

    def find_ids(self, num_nodes: int, wanted: str | None) -> tuple[str, ...] | None:
        """Sensor ids under the wanted or the usual names; see `find_ids`."""
        kinds = "iu" + self.text_kinds
        return find_ids(self.arrays, self.read, num_nodes, wanted, self.name, kinds=kinds)

    def text(self, key: str) -> tuple[str, ...]:
        """An array as text, without blanks around it."""
        return tuple(label.strip() for label in ids_to_text(self.read(key).reshape(-1)))


def _length(shape: tuple[int, ...]) -> int | None:
    """Length of an array with one axis, or with one that is not 1."""
    longer = [size for size in shape if size != 1]
    return None if len(longer) > 1 else (longer or [1])[0]


def resolve_axes(name: str, shape: tuple[int, ...], options: IngestOptions) -> Axes | None:
    """The axes that the user names, or means by `transpose`; None for the usual ones.

    Raises:
        ConfigError: if both are given, or `transpose` for an array of other than two axes.
    """
    if options.axes:
        if options.transpose:
            raise ConfigError(
                f"{option('transpose', value=True)} and {option('axes', options.axes)} both say "
                "which axis is time: leave one out"
            )
        return Axes(options.axes)
    if not options.transpose:
        return None
    if len(shape) != 2:
        example = ("sensor", "time", "channel")
        raise ConfigError(
            f"{name} has shape {shape}, and {option('transpose', value=True)} is for two axes: "
            f"name all of them, such as {option('axes', example)}"
        )
    return Axes(("sensor", "time"))


def wanted_ndims(options: IngestOptions) -> tuple[int, ...]:
    """Numbers of axes that an array of readings may have."""
    if options.axes:
        return (len(options.axes),)
    return (2,) if options.transpose else (2, 3)


def open_stored(
    stored: StoredArray, options: IngestOptions, *, is_reversed: bool = False
) -> Readings:
    """The readings of an array with the axes of the options, else [T, N] or [T, N, C].

    Args:
        stored: the array.
        options: `axes` or `transpose` say what its axes are.
        is_reversed: whether it is stored with the last of its axes first.

    Raises:
        ConfigError: if the options contradict one another.
        DataError: if the array is not numbers, or has other axes.
    """
    shape = stored.shape[::-1] if is_reversed else stored.shape
    axes = resolve_axes(stored.name, shape, options)
    if axes is None:
        check_series_shape(stored.name, shape, stored.dtype)
        axes = Axes.usual(len(shape))
    return arrange(stored, axes, is_reversed=is_reversed)


def label_axes(
    readings: Readings,
    shape: tuple[int, ...],
    labels: Labels,
    options: IngestOptions,
    *,
    reads_all: bool = False,
) -> Readings:
    """The readings of an array with what its file has for its axes.

    Ids are always found. Coordinates, names of channels and times are read where the user names the
    axes; without that, a note says that there are times.

    Args:
        readings: of the array.
        shape: of the array, its axes in the order of their names.
        labels: the arrays beside it.
        options: `ids` names the array of ids, `timestamps` may be False to leave times alone.
        reads_all: whether to read these also where the user does not name the axes.

    Raises:
        ConfigError: if `ids` names an array that does not fit.
        DataError: if the times are damaged.
    """
    named = resolve_axes(labels.name, shape, options)
    axes = named or Axes.usual(len(shape))
    if named is None:
        ids = labels.find_ids(readings.num_nodes, options.ids)
        if ids is None:
            _refuse_ids_of_another_axis(readings, labels)
        readings = replace(readings, node_ids=ids)
        if not reads_all:
            notes = (*readings.notes, *_note_times(readings, labels, len(shape)))
            return replace(readings, notes=notes)
    else:
        ids = _node_ids(readings, axes, shape, labels, options)
        readings = replace(readings, node_ids=ids, has_named_axes=True)
    if axes.channel is not None:
        own = axes.names[axes.channel]
        key = labels.find((own, *_CHANNEL_ARRAYS), shape[axes.channel], labels.text_kinds)
        if key is not None:
            readings = replace(readings, channels=labels.text(key))
    latlon = _coordinates(axes, shape, labels)
    if latlon is not None:
        graph = RawCoordinates(name=labels.name, latlon=latlon, node_ids=readings.node_ids)
        readings = replace(readings, graph=graph)
    own_time = tuple(axes.names[place] for place in axes.time if len(axes.time) == 1)
    return _label_times(readings, own_time, labels, options)


def _label_times(
    readings: Readings, own: tuple[str, ...], labels: Labels, options: IngestOptions
) -> Readings:
    """The readings with the times in an array of a usual name, or of the axis's own."""
    kinds = "iufM" + labels.text_kinds
    key = labels.find((*own, *TIME_ARRAYS), readings.num_rows or 0, kinds)
    if key is None or options.timestamps is False:
        return readings
    return add_times(readings, labels.read(key).reshape(-1), f"{key} of {labels.name}", options)


def _refuse_ids_of_another_axis(readings: Readings, labels: Labels) -> None:
    """Refuse an array beside which there are as many ids as it has rows, or channels.

    Raises:
        DataError: naming the option that reads it.
    """
    kinds = "iu" + labels.text_kinds
    for what, size in (("rows", readings.num_rows or 0), ("channels", readings.num_channels)):
        key = None if size < 2 else labels.find(ID_NAMES, size, kinds)
        if key is not None:
            raise DataError(
                f"{labels.name} has {size} ids in {key}, as many as {readings.name} has {what}, "
                f"and is read with {readings.num_nodes} sensors{hint_at_axes(readings, size)}"
            )


def _node_ids(
    readings: Readings,
    axes: Axes,
    shape: tuple[int, ...],
    labels: Labels,
    options: IngestOptions,
) -> tuple[str, ...] | None:
    num_nodes, kinds = readings.num_nodes, "iu" + labels.text_kinds
    found = labels.find_ids(num_nodes, options.ids)
    if found is not None:
        return found
    along = []
    for place in axes.sensors:
        key = labels.find((axes.names[place],), shape[place], kinds)
        numbered = tuple(map(str, range(shape[place])))
        along.append(numbered if key is None else labels.text(key))
    if len(along) == 1 and along[0] == tuple(map(str, range(num_nodes))):
        return None
    return grid_ids(along)


def _coordinates(axes: Axes, shape: tuple[int, ...], labels: Labels) -> NDArray[np.float64] | None:
    """Latitude and longitude [N, 2] of sensors or of a grid; None where the file has none."""
    if len(axes.sensors) > 2:
        return None
    sizes = tuple(shape[place] for place in axes.sensors)
    names = [axes.names[place].lower() for place in axes.sensors]
    lowered = {key.lower(): key for key in labels.arrays}
    parts = []
    for known in (LATITUDE_NAMES, LONGITUDE_NAMES):
        place = next((i for i, name in enumerate(names) if name in known), None)
        keys = [lowered[name] for name in known if name in lowered]
        key = next((each for each in keys if labels.arrays[each].dtype.kind in "iuf"), None)
        if key is None:
            return None
        found = labels.arrays[key].shape
        if found == sizes:  # of sensors, or of a grid that is not regular
            parts.append(np.asarray(labels.read(key), dtype=np.float64).reshape(-1))
        elif place is not None and _length(found) == sizes[place]:
            values = np.asarray(labels.read(key), dtype=np.float64).reshape(-1)
            along = values[:, np.newaxis] if place == 0 else values[np.newaxis]
            parts.append(np.broadcast_to(along, sizes).reshape(-1))
        else:
            return None
    return np.stack(parts, axis=1)


def add_times(
    readings: Readings, values: NDArray[Any], name: str, options: IngestOptions
) -> Readings:
    """The readings with the times in an array [T]: dates, text, or numbers since 1970.

    Numbers that are no times are left out, with a note.

    Raises:
        DataError: naming the first time that is damaged.
    """
    labels = RowLabels(name)
    cells = pd.Series(values)
    times: ColumnTimes
    if values.dtype.kind == "M":
        times = DateTimes(None, labels)
    elif values.dtype.kind in "SUO":
        cells = pd.Series([label.strip() for label in ids_to_text(values)], dtype=str)
        times = TextTimes(cells.iloc[0], options, labels)
    elif find_epoch_unit(float(values[0])) is not None:
        times = EpochTimes(float(values[0]), labels)
    else:
        note = f"{name} holds {values[0]}, ..., which is no time: the readings have none"
        return replace(readings, notes=(*readings.notes, note))
    timed = with_seconds(readings, times.seconds(cells, 0))
    return replace(timed, is_aware=times.is_aware, time_zone=times.time_zone)


def _note_times(readings: Readings, labels: Labels, num_axes: int) -> tuple[str, ...]:
    """A note if the file has times that are not read, because the axes are not named."""
    key = labels.find(TIME_ARRAYS, readings.num_rows or 0, "M" + labels.text_kinds)
    if key is None:
        return ()
    usual = Axes.usual(num_axes).names
    return (
        f"{labels.name} has times in {key}, which are not read: {option('axes', usual)} reads them",
    )
