"""The times of labelled arrays: decoded or stored, by CF's units and calendars, or as text.

A zone is that of the attribute `time_zone`, which `SeriesStore.to_xarray` writes, or of the unit.
Times without one are on a clock without a name, as those of a table are. By CF they are in UTC:
where the user names a zone, times of a file are shown on its clock, with a note. Times in memory
that no file gave are then read on it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.display import shorten
from pgti.errors import DataError
from pgti.ingestion.arrays.packing import Packing
from pgti.ingestion.instants import RowLabels, epoch_seconds
from pgti.ingestion.labelled.axes import LabelledAxes, kind_of_coordinate
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import ids_to_text
from pgti.ingestion.times.cf_times import CfTimes, civil_times, decode_times, has_offset, is_since
from pgti.ingestion.times.columns import TextTimes
from pgti.store.clock import is_zone
from pgti.store.labelled import WALL_CLOCK

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LabelledTimes", "read_times"]

_OF_CFTIME = "days since 1970-01-01"
_TIMES = ("times", "time", "date", "dates", "datetime", "timestamp")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class LabelledTimes:
    """The times of the rows.

    Attributes:
        seconds: epoch seconds [T]; None where there are none.
        is_aware: whether they are true times; else they are on a wall clock.
        time_zone: of true times, where it has a name.
        notes: what a user should know.
    """

    seconds: NDArray[np.int64] | None = None
    is_aware: bool = False
    time_zone: str | None = None
    notes: tuple[str, ...] = ()


def read_times(
    dataset: "xr.Dataset", axes: LabelledAxes, options: IngestOptions, name: str
) -> LabelledTimes:
    """The times of the rows, if the dataset has them.

    Args:
        dataset: that has a coordinate of times.
        axes: of the readings.
        options: the format of times that are text.
        name: what messages call the dataset.

    Raises:
        DataError: if times are missing, or what they mean is not sure.
        MissingExtraError: if their calendar needs cftime, which is not installed.
    """
    key = None if options.timestamps is False else _time_variable(dataset, axes.time, name)
    if key is None:
        return LabelledTimes()
    variable, name = dataset.variables[key], f"{key} of {name}"
    values = np.asarray(variable.values)
    if values.dtype.kind == "M":
        cf = CfTimes(seconds=epoch_seconds(values, 0, RowLabels(name)))
        return _place(cf, variable, variable.encoding.get("units"), options, name)
    if hasattr(values.flat[0], "dayofyr"):
        cf = civil_times(values.tolist(), values.flat[0].calendar, name)
        return _place(cf, variable, variable.encoding.get("units", _OF_CFTIME), options, name)
    if values.dtype.kind in "SUOT":
        texts = pd.Series(list(ids_to_text(values)), dtype=str).str.strip("\0 ")
        times = TextTimes(texts.iloc[0], options, RowLabels(name))
        return LabelledTimes(
            seconds=times.seconds(texts, 0), is_aware=times.is_aware, time_zone=times.time_zone
        )
    units = variable.attrs.get("units")
    if is_since(units):
        _refuse_missing(variable, values, name)
        calendar = str(variable.attrs.get("calendar", "standard"))
        cf = decode_times(values, str(units), calendar, name)
        return _place(cf, variable, units, options, name)
    counts = values.dtype.kind in "iu" and (np.diff(values.astype(np.int64)) == 1).all()
    if counts and values[0] in (0, 1):
        return LabelledTimes(notes=(f"{name} only counts the rows: they have no times",))
    raise DataError(
        f"{name} holds {', '.join(map(str, values[:2].tolist()))}, ... of the unit {units!r}: "
        "give it the attribute units, such as hours since 1970-01-01"
    )


def _place(
    times: CfTimes, variable: "xr.Variable", units: object, options: IngestOptions, name: str
) -> LabelledTimes:
    """Times with what is known of their zone.

    Args:
        times: as they are stored.
        variable: that has them.
        units: of the numbers that they were; None for times in memory that no file gave.
        options: the zone that the user names.
        name: what messages call them.
    """
    zone, notes = variable.attrs.get("time_zone"), times.notes
    if zone != WALL_CLOCK and not (isinstance(zone, str) and is_zone(zone)):
        zone = "UTC" if has_offset(units) else None
    if zone is None and options.time_zone is not None and is_since(units):
        zone = "UTC"
        notes += (
            f"{name} names no zone: it is read as UTC, which CF says, and shown on the clock of "
            f"{options.time_zone}",
        )
    is_aware = zone not in (None, WALL_CLOCK)
    return LabelledTimes(
        seconds=times.seconds, is_aware=is_aware, time_zone=zone if is_aware else None, notes=notes
    )


def _refuse_missing(variable: "xr.Variable", values: NDArray[Any], name: str) -> None:
    """Refuse times that are packed, or of which some are missing."""
    packing = Packing.of(variable.attrs, variable.dtype, name)
    if packing.scale != 1 or packing.offset:
        raise DataError(f"{name} has packed times (scale_factor): store them unpacked")
    missing = np.isnan(packing.decode(values))
    RowLabels(name).refuse_where(missing, 0, lambda _: "has no time: give it one")


def _time_variable(dataset: "xr.Dataset", dim: str, name: str) -> str | None:
    """The variable of the times: the coordinate of their dimension, else one along it."""
    own = dataset.variables.get(dim)
    if own is not None and own.dims == (dim,):
        return dim
    along = [
        str(key)
        for key, variable in dataset.variables.items()
        if variable.dims == (dim,) and kind_of_coordinate(variable) == "time"
    ]
    texts = [
        str(key)
        for key, variable in dataset.variables.items()
        if variable.dims == (dim,) and variable.dtype.kind in "SUT" and str(key).lower() in _TIMES
    ]
    if len(along) > 1:
        raise DataError(
            f"{name} has {len(along)} variables of times along {dim} ({shorten(along)}): call one "
            f"of them {dim}, or drop the others"
        )
    return next(iter((*along, *texts)), None)
