"""Ids and coordinates of the sensors of a labelled array: stations, or the cells of a grid."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, option
from pgti.ingestion.arrays.packing import Packing
from pgti.ingestion.axes import LATITUDE_NAMES, LONGITUDE_NAMES, grid_ids
from pgti.ingestion.labelled.axes import Kind, LabelledAxes, kind_of_coordinate
from pgti.ingestion.readings import ID_NAMES, decoded, ids_to_text

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Sensors", "channel_labels", "describe_sensors"]

_ID_NAMES = (*ID_NAMES, "station_id", "station_name", "platform", "name", "wmo", "site")
_LATITUDES = (*LATITUDE_NAMES, "nav_lat", "xlat", "lat_rho")
_LONGITUDES = (*LONGITUDE_NAMES, "nav_lon", "xlong", "lon_rho")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Sensors:
    """Of a labelled array.

    Attributes:
        ids: of the sensors, where there are any.
        latlon: latitude and longitude in degrees, float64 [N, 2], longitudes in -180..180; NaN
            where they are missing; None where there are none.
    """

    ids: tuple[str, ...] | None
    latlon: NDArray[np.float64] | None


def describe_sensors(
    dataset: "xr.Dataset", axes: LabelledAxes, wanted: str | None, name: str
) -> Sensors:
    """The sensors that the dimensions of space make, in row-major order.

    A cell of a grid is called by its coordinates, such as 52.5,13.25.

    Args:
        dataset: that has the coordinates.
        axes: the dimensions of the array.
        wanted: variable of ids that the user named.
        name: what messages call the dataset.

    Raises:
        ConfigError: if the wanted variable does not hold an id of each sensor.
    """
    sizes = tuple(dataset.sizes[dim] for dim in axes.space)
    if wanted is not None:
        variable = dataset.variables.get(wanted)
        if variable is None or variable.dims != axes.space or variable.dtype.kind not in "iuSUOT":
            what = "is not there" if variable is None else f"has the dimensions {variable.dims}"
            raise ConfigError(
                f"{option('ids', wanted)} of {name} {what}: it must hold one id for each of the "
                f"sensors, along {', '.join(axes.space) or 'no dimension'}"
            )
        ids: tuple[str, ...] | None = _texts(variable)
    elif len(axes.space) > 1:
        ids = grid_ids([_labels(dataset, dim) for dim in axes.space])
    else:
        ids = _station_ids(dataset, axes)
    return Sensors(ids=ids, latlon=_find_latlon(dataset, axes.space, sizes))


def channel_labels(dataset: "xr.Dataset", dim: str) -> list[str]:
    """Labels along a dimension of channels: its coordinate, else its name and positions."""
    labels = _labels(dataset, dim)
    is_labelled = dim in dataset.variables and dataset.variables[dim].dims == (dim,)
    return labels if is_labelled else [f"{dim}{label}" for label in labels]


def _station_ids(dataset: "xr.Dataset", axes: LabelledAxes) -> tuple[str, ...] | None:
    """Ids along the one dimension of sensors: names come before numbers."""
    along = {
        str(key): variable
        for key, variable in dataset.variables.items()
        if variable.dims == axes.space and variable.dtype.kind in "iuSUOT"
    }
    for key, variable in along.items():
        said = (variable.attrs.get("cf_role"), variable.attrs.get("standard_name"))
        if "timeseries_id" in said or (axes.space and key == axes.space[0] and _is_text(variable)):
            return _texts(variable)
    for key in _ID_NAMES:
        if key in along and (_is_text(along[key]) or key in ID_NAMES):
            return _texts(along[key])
    own = dataset.variables.get(axes.space[0]) if axes.space else None
    return None if own is None or own.dims != axes.space else tuple(_labels(dataset, axes.space[0]))


def _is_text(variable: "xr.Variable") -> bool:
    return variable.dtype.kind in "SUOT"


def _texts(variable: "xr.Variable") -> tuple[str, ...]:
    """Text without the padding of fixed widths; whole numbers without a decimal point."""
    cells = np.atleast_1d(np.asarray(variable.values)).reshape(-1).tolist()
    return ids_to_text([_trimmed(cell) for cell in cells])


def _trimmed(cell: Any) -> Any:
    cell = decoded(cell) if isinstance(cell, bytes) else cell
    return cell.rstrip("\0 ") if isinstance(cell, str) else cell


def _labels(dataset: "xr.Dataset", dim: str) -> list[str]:
    """Labels along a dimension: its coordinate in as few digits as mean it, else positions."""
    own = dataset.variables.get(dim)
    if own is None or own.dims != (dim,):
        return [str(place) for place in range(dataset.sizes[dim])]
    values = np.asarray(own.values)
    if {"scale_factor", "add_offset"} & set(own.attrs):
        values = Packing.of(own.attrs, own.dtype, dim).decode(values)
    if values.dtype.kind != "f":
        return list(_texts(own))
    return [str(int(each)) if each == np.rint(each) else str(each) for each in values]


def _find_latlon(
    dataset: "xr.Dataset", space: tuple[str, ...], sizes: tuple[int, ...]
) -> NDArray[np.float64] | None:
    latitude = _find_degrees(dataset, space, "y")
    longitude = _find_degrees(dataset, space, "x")
    if latitude is None or longitude is None:
        return None
    pair = []
    for variable in (latitude, longitude):
        packing = Packing.of(variable.attrs, variable.dtype, "the coordinates")
        values = packing.decode(np.asarray(variable.values)).astype(np.float64)
        values[np.abs(values) > 360] = np.nan  # what fills cells that have none
        shape = [dataset.sizes[dim] if dim in variable.dims else 1 for dim in space]
        ordered = variable.dims and tuple(dim for dim in space if dim in variable.dims)
        if ordered and ordered != variable.dims:
            values = values.transpose([variable.dims.index(dim) for dim in ordered])
        pair.append(np.broadcast_to(values.reshape(shape), sizes).reshape(-1))
    pair[1] = np.where(pair[1] > 180, pair[1] - 360, pair[1])
    return np.stack(pair, axis=1)


def _find_degrees(dataset: "xr.Dataset", space: tuple[str, ...], kind: Kind) -> Any:
    """The variable of latitudes ("y") or longitudes ("x") of the sensors, in degrees."""
    names = _LATITUDES if kind == "y" else _LONGITUDES
    standard = "latitude" if kind == "y" else "longitude"
    for key, variable in dataset.variables.items():
        if not set(variable.dims) <= set(space) or variable.dtype.kind not in "iuf":
            continue
        units = str(variable.attrs.get("units", "degrees"))
        says = variable.attrs.get("standard_name") == standard
        is_named = str(key).lower() in names and units.lower().startswith("degree")
        is_degrees = units.lower().startswith("degree") and "_" in units
        if says or is_named or (is_degrees and kind_of_coordinate(variable) == kind):
            return variable
    return None
