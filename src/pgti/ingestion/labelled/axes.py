"""What the dimensions of a labelled array are: times, sensors (or a grid of them), channels.

Attributes say so first (CF's axis, standard_name, units and cf_role), then names that people use.
Source of the attributes: "CF Metadata Conventions" 1.11, chapters 4 and 9.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgti.errors import DataError, option
from pgti.ingestion.axes import CHANNEL_NAMES, SENSOR_NAMES, Axes
from pgti.ingestion.times.cf_times import is_since

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "LabelledAxes",
    "find_axes",
    "find_ragged",
    "has_times",
    "helper_names",
    "kind_of_coordinate",
    "shown",
]

Kind: TypeAlias = Literal["time", "sensor", "y", "x", "level", "member", "channel"]

_AXES: dict[str, Kind] = {"T": "time", "Y": "y", "X": "x", "Z": "level"}
_STANDARD_NAMES: dict[str, Kind] = {
    "time": "time",
    **dict.fromkeys(("latitude", "grid_latitude", "projection_y_coordinate"), "y"),
    **dict.fromkeys(("longitude", "grid_longitude", "projection_x_coordinate"), "x"),
    **dict.fromkeys(("height", "altitude", "depth", "air_pressure"), "level"),
    "realization": "member",
}
_NAMES: dict[str, Kind] = {
    **dict.fromkeys(("time", "times", "t", "valid_time", "date", "dates", "datetime"), "time"),
    **dict.fromkeys(("timestamp", "timestamps", "time_counter"), "time"),
    **dict.fromkeys(SENSOR_NAMES, "sensor"),
    **dict.fromkeys(("points", "point", "cell", "cells", "ncells", "gauge", "space"), "sensor"),
    **dict.fromkeys(("basin", "basins", "gauge_id", "catchment", "hru", "reach"), "sensor"),
    **dict.fromkeys(("feature_id", "platform", "region", "regions", "zone", "city"), "sensor"),
    **dict.fromkeys(("lat", "lats", "latitude", "nlat", "rlat", "y", "south_north"), "y"),
    **dict.fromkeys(("nav_lat", "northing", "row", "rows"), "y"),
    **dict.fromkeys(("lon", "lons", "longitude", "nlon", "rlon", "x", "west_east"), "x"),
    **dict.fromkeys(("nav_lon", "easting", "col", "cols", "column", "columns"), "x"),
    **dict.fromkeys(("level", "lev", "plev", "height", "depth", "pressure", "altitude"), "level"),
    **dict.fromkeys(("isobaricinhpa", "bottom_top", "z"), "level"),
    **dict.fromkeys(("member", "realization", "ensemble", "number"), "member"),
    **dict.fromkeys(CHANNEL_NAMES, "channel"),
}
_DEGREES = re.compile(r"degrees?_?([ne])(?:orth|ast)?", re.IGNORECASE)
_SPACE = ("sensor", "y", "x")
_REFERENCES = ("bounds", "climatology", "grid_mapping", "ancillary_variables")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledAxes:
    """The dimensions of a variable by what they are.

    Attributes:
        time: of the rows.
        space: that together make the sensors, in their stored order; none for one sensor.
        channel: of the channels, if one is.
        single: those of one entry, which say nothing.
    """

    time: str
    space: tuple[str, ...]
    channel: str | None = None
    single: tuple[str, ...] = ()


def find_axes(dataset: "xr.Dataset", key: str, given: tuple[str, ...], source: str) -> LabelledAxes:
    """What the dimensions of a variable are.

    Args:
        dataset: that has it.
        key: its name.
        given: what the user says of its dimensions, in their order.
        source: what messages call the file.

    Raises:
        DataError: naming the dimensions that could be several things, and the option that says it.
    """
    sizes: Mapping[Any, int] = dataset.variables[key].sizes
    where = f"{key} of {source} ({shown(sizes)})"
    kinds = _given_kinds(sizes, given, where) if given else _found_kinds(dataset, sizes, where)
    single = tuple(str(dim) for dim in sizes if str(dim) not in kinds)
    times = [dim for dim, kind in kinds.items() if kind == "time"]
    channels = [dim for dim, kind in kinds.items() if kind == "channel"]
    if len(times) != 1 or len(channels) > 1:
        what = f"{len(times)} of them are times" if len(times) != 1 else "two of them are channels"
        raise DataError(
            f"{where}: {what}; say what each is with {option('axes', 'time,lat,lon')}, in this "
            "order"
        )
    space = tuple(dim for dim, kind in kinds.items() if kind not in ("time", "channel"))
    if not given and len(space) > 1 and sorted(kinds[dim] for dim in space) != ["x", "y"]:
        raise DataError(
            f"{where}: {', '.join(space)} are no grid; say what each is with "
            f"{option('axes', 'time,sensor')}, in this order"
        )
    return LabelledAxes(
        time=times[0], space=space, channel=channels[0] if channels else None, single=single
    )


def _given_kinds(sizes: Mapping[Any, int], given: tuple[str, ...], where: str) -> dict[str, Kind]:
    """What the user says of each dimension; what is neither times nor channels is sensors."""
    axes = Axes(given)
    axes.check(where, tuple(sizes.values()))
    if len(axes.time) > 1:
        raise DataError(f"{where} has one dimension of times: {option('axes', given)} names two")
    kinds: dict[str, Kind] = dict.fromkeys(map(str, sizes), "sensor")
    dims = list(kinds)
    kinds[dims[axes.time[0]]] = "time"
    if axes.channel is not None:
        kinds[dims[axes.channel]] = "channel"
    return kinds


def _found_kinds(dataset: "xr.Dataset", sizes: Mapping[Any, int], where: str) -> dict[str, Kind]:
    """What each dimension is found to be, without those of one entry that say nothing."""
    kinds: dict[str, Kind] = {}
    for dim, size in sizes.items():
        kind = _kind_of(str(dim), dataset)
        if kind in ("time", "channel", *_SPACE):
            kinds[str(dim)] = kind
        elif size != 1:
            raise DataError(
                f"{where}: the dimension {dim} could be sensors, channels or part of a grid; say "
                f"what each is with {option('axes', 'time,channel,lat,lon')}, in this order, or "
                f"give a file with one entry of it (in xarray: isel({dim}=[0]))"
            )
    return kinds


def has_times(dataset: "xr.Dataset", key: str) -> bool:
    """Whether a dimension of a variable is one of times."""
    return any(_kind_of(str(dim), dataset) == "time" for dim in dataset.variables[key].dims)


def shown(sizes: Mapping[Any, int]) -> str:
    """Dimensions and their sizes as messages show them."""
    return ", ".join(f"{dim} {size:,}" for dim, size in sizes.items())


def helper_names(dataset: "xr.Dataset") -> set[str]:
    """Variables that only describe others: bounds of times, grid mappings, flags of quality."""
    names: set[str] = set()
    for variable in dataset.variables.values():
        for attribute in _REFERENCES:
            said = variable.attrs.get(attribute, variable.encoding.get(attribute, ""))
            names.update(re.findall(r"[^\s:]+", said) if isinstance(said, str) else ())
    return names


def find_ragged(dataset: "xr.Dataset") -> str | None:
    """The variable that says that series of stations follow one another, of unequal lengths."""
    for name, variable in dataset.variables.items():
        if {"sample_dimension", "instance_dimension"} & set(variable.attrs):
            return str(name)
    return None


def kind_of_coordinate(variable: "xr.Variable") -> Kind | None:
    """What a coordinate is by its attributes and dtype."""
    attributes = variable.attrs
    if str(attributes.get("axis", "")).upper() in _AXES:
        return _AXES[str(attributes["axis"]).upper()]
    if attributes.get("standard_name") in _STANDARD_NAMES:
        return _STANDARD_NAMES[attributes["standard_name"]]
    if attributes.get("cf_role") == "timeseries_id":
        return "sensor"
    units = attributes.get("units")
    if variable.dtype.kind == "M" or is_since(units):
        return "time"
    match = _DEGREES.fullmatch(units) if isinstance(units, str) else None
    return _AXES["Y" if match[1].lower() == "n" else "X"] if match else None


def _kind_of(dim: str, dataset: "xr.Dataset") -> Kind | None:
    """What a dimension is: by its own coordinate, its name, or another coordinate along it."""
    own = dataset.variables.get(dim)
    if own is not None and own.dims == (dim,) and (kind := kind_of_coordinate(own)):
        return kind
    if dim.lower() in _NAMES:
        return _NAMES[dim.lower()]
    along = [variable for variable in dataset.variables.values() if variable.dims == (dim,)]
    kinds = {kind for variable in along if (kind := kind_of_coordinate(variable))}
    if "time" in kinds and len(kinds) == 1:
        return "time"
    # Latitudes and longitudes along one dimension are those of stations.
    return "sensor" if "sensor" in kinds or {"x", "y"} <= kinds else None
