"""Readings in labelled arrays: an xarray Dataset or DataArray, or a file that xarray opens.

Nothing is read but names, attributes, coordinates and times until rows are wanted.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of, shorten
from pgti.errors import DataError, option
from pgti.ingestion.arrays.chunked import (
    ChunkedArray,
    Opener,
    check_overhang,
    check_row,
    find_observed,
    read_rows,
)
from pgti.ingestion.arrays.packing import Packing
from pgti.ingestion.axes import Axes
from pgti.ingestion.keys import choose_keys
from pgti.ingestion.labelled.axes import (
    LabelledAxes,
    find_axes,
    find_ragged,
    has_times,
    helper_names,
    shown,
)
from pgti.ingestion.labelled.sensors import Sensors, channel_labels, describe_sensors
from pgti.ingestion.labelled.times import read_times
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates
from pgti.ingestion.readings import (
    Chunk,
    Readings,
    reraise_read_errors,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PartCheck", "XarrayObject", "labelled_readings", "open_xarray"]


PartCheck: TypeAlias = Callable[[str, tuple[slice, ...]], None]
"""`check(key, box)` raises if that part of a variable is damaged."""


@runtime_checkable
class XarrayObject(Protocol):
    """A Dataset or a DataArray of xarray, which need not be installed."""

    @property
    def coords(self) -> Any:
        """Its coordinates."""

    def to_netcdf(self) -> Any:
        """Write it as NetCDF."""


def open_xarray(source: Any, options: IngestOptions) -> Readings:
    """Readings in a Dataset or a DataArray, which may be lazy: it is computed block by block.

    Raises:
        ConfigError: if an option names what the source does not have.
        DataError: if the source does not say what its dimensions are, or its values or times
            break a rule.
    """
    name = f"the {type(source).__name__}"
    dataset = source
    if name == "the DataArray":
        dataset = dataset.to_dataset(name="value" if source.name is None else source.name)
    return labelled_readings(lambda: nullcontext(dataset), options, name, "xarray")


def labelled_readings(
    opener: Opener,
    options: IngestOptions,
    name: str,
    what: str,
    *,
    is_netcdf: bool = False,
    check: PartCheck | None = None,
) -> Readings:
    """Readings in a Dataset that is opened whenever it is read.

    Args:
        opener: opens it, with times and numbers as they are stored or decoded.
        options: how to read it.
        name: what messages call it.
        what: its format.
        is_netcdf: whether NetCDF's own fill values are missing where no attribute names one.
        check: of each part before it is read, where the library that reads it does not check.

    Raises:
        ConfigError: if an option names what it does not have.
        DataError: see `open_xarray`.
        MissingExtraError: if its times need a library that is not installed.
    """
    with reraise_read_errors(name, what), opener() as dataset:
        keys = _choose_variables(dataset, options, name)
        axes = [find_axes(dataset, key, options.axes, name) for key in keys]
        arrays = tuple(
            _describe_array(dataset, key, each, name, is_netcdf=is_netcdf, check=check)
            for key, each in zip(keys, axes, strict=True)
        )
        _check_together(keys, axes, name)
        times = read_times(dataset, axes[0], options, name)
        sensors = describe_sensors(dataset, axes[0], options.ids, name)
        channels, units = _describe_channels(dataset, keys, axes)
    shape = arrays[0].shape
    observed, notes = None, times.notes
    if len(axes[0].space) > 1:
        with reraise_read_errors(name, what):
            observed = find_observed(opener, arrays, options.budget_bytes)
        if not observed.any():
            raise DataError(f"every reading of {', '.join(keys)} of {name} is missing")
        num_empty = int((~observed).sum())
        if num_empty == 0:
            observed = None
        else:
            cells = count_of(len(sensors.ids or ()), "cell")
            notes += (
                f"{num_empty:,} of the {cells} of {name} have no reading at any time (as at sea): "
                "they were left out",
            )
            sensors = _of_observed(sensors, observed)
    graph = None
    if sensors.latlon is not None and not np.isnan(sensors.latlon).any():
        where = f"the coordinates of {name}"
        graph = RawCoordinates(name=where, latlon=sensors.latlon, node_ids=sensors.ids)
    num_nodes = math.prod(shape[1:-1]) if observed is None else int(observed.sum())

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        first = 0
        with reraise_read_errors(name, what):
            for values in read_rows(opener, arrays, budget_bytes):
                stop = first + len(values)
                seconds = None if times.seconds is None else times.seconds[first:stop]
                kept = values if observed is None else np.ascontiguousarray(values[:, observed])
                yield Chunk(values=kept, seconds=seconds)
                first = stop

    return Readings(
        name=name,
        num_rows=shape[0],
        num_nodes=num_nodes,
        num_channels=len(channels),
        node_ids=sensors.ids,
        channels=channels,
        units=units,
        is_aware=times.is_aware,
        time_zone=times.time_zone,
        graph=graph,
        notes=notes,
        chunks=chunks,
    )


def _choose_variables(dataset: "xr.Dataset", options: IngestOptions, name: str) -> tuple[str, ...]:
    """The variables that the user names, or the only one that could be meant.

    A dataset that names its channels, as `SeriesStore.to_xarray` does, means all of them.
    """
    ragged = find_ragged(dataset)
    if ragged is not None:
        raise DataError(
            f"{name} holds series of different lengths one after another (its variable {ragged} "
            "says which station each is of): write it as a table with a column each for time, "
            "station and value, which is read as a long table"
        )
    if options.axes:
        Axes(options.axes)  # refuses what is no set of axes
    helpers = helper_names(dataset)
    numeric = {
        str(key): variable
        for key, variable in dataset.data_vars.items()
        if variable.dtype.kind in "iufb" and str(key) not in helpers
    }
    shapes = {key: f"({shown(variable.sizes)})" for key, variable in numeric.items()}
    found = {key: shapes[key] for key in numeric if _could_be_meant(dataset, key, options)}
    said = dataset.attrs.get("channels")
    if not options.values and isinstance(said, str) and set(said.split(",")) == set(found):
        return tuple(said.split(","))
    if not found and not options.values:
        found = {key: shapes[key] for key in numeric if _is_single_series(dataset, key)}
    if not found and numeric and options.axes:
        raise DataError(
            f"{option('axes', options.axes)} names {len(options.axes)} dimensions, and {name} has "
            f"{shorten([f'{key} {shape}' for key, shape in shapes.items()])}: name each once"
        )
    if not found and numeric:
        listing = shorten([f"{key} {shape}" for key, shape in shapes.items()])
        raise DataError(
            f"no variable of {name} has a dimension of times; it has {listing}: say what the "
            f"dimensions are with {option('axes', 'time,sensor')}, in this order"
        )
    others = (
        f"{key} {each.dtype} ({shown(each.sizes)})" for key, each in dataset.variables.items()
    )
    return choose_keys(name, found, options.values, "variable", "variables", others=others)


def _could_be_meant(dataset: "xr.Dataset", key: str, options: IngestOptions) -> bool:
    variable = dataset.variables[key]
    if options.axes:
        return variable.ndim == len(options.axes)
    return (variable.ndim > 1 or key in options.values) and has_times(dataset, key)


def _is_single_series(dataset: "xr.Dataset", key: str) -> bool:
    """Whether a variable of one dimension is the series of a single sensor."""
    return dataset.variables[key].ndim == 1 and has_times(dataset, key)


def _describe_array(
    dataset: "xr.Dataset",
    key: str,
    axes: LabelledAxes,
    name: str,
    *,
    is_netcdf: bool,
    check: PartCheck | None,
) -> ChunkedArray:
    """A variable as an array [T, *space, channels]."""
    variable, name = dataset.variables[key], f"{key} of {name}"
    sizes = variable.sizes
    for dim, size in sizes.items():
        if size == 0:
            raise DataError(f"{name} has no entry along {dim}: there are no readings")
    packing = Packing.of(
        variable.attrs,
        variable.dtype,
        name,
        decoded=variable.encoding,
        has_default_fill=is_netcdf,
    )
    order = [axes.time, *axes.space, *([axes.channel] if axes.channel else [])]
    chunks = _stored_chunks(variable)
    check_overhang(name, variable.shape, tuple(chunks.values()), variable.dtype.itemsize)
    stored = [order.index(str(dim)) for dim in variable.dims if str(dim) in order]
    end = () if axes.channel else (1,)

    def fetch(opened: "xr.Dataset", slices: tuple[slice, ...]) -> NDArray[Any]:
        places: dict[Any, Any] = dict(zip(order, slices, strict=False))
        if check is not None:
            check(key, tuple(places.get(dim, slice(0, 1)) for dim in variable.dims))
        places.update(dict.fromkeys(axes.single, 0))
        return np.asarray(opened.variables[key].isel(places).transpose(*order).values)

    array = ChunkedArray(
        name=name,
        shape=(*(sizes[dim] for dim in order), *end),
        chunks=(*(max(1, min(chunks[dim], sizes[dim])) for dim in order), *end),
        stored=(*stored, *([] if axes.channel else [len(order)])),
        packing=packing,
        fetch=fetch,
    )
    check_row(f"{name} ({shown(sizes)})", math.prod(array.shape[1:]))
    return array


def _stored_chunks(variable: "xr.Variable") -> dict[str, int]:
    """Entries of each dimension that are stored together: 1 where any part can be read."""
    if variable.chunks is not None:  # dask
        sizes = tuple(max(each) for each in variable.chunks)
    else:
        sizes = variable.encoding.get("chunks") or variable.encoding.get("chunksizes") or ()
        if variable.encoding.get("contiguous") or len(sizes) != variable.ndim:
            sizes = (1,) * variable.ndim
    return {str(dim): int(size) for dim, size in zip(variable.dims, sizes, strict=True)}


def _check_together(keys: tuple[str, ...], axes: list[LabelledAxes], name: str) -> None:
    for key, each in zip(keys, axes, strict=True):
        mine, other = ((these.time, *these.space) for these in (axes[0], each))
        if mine != other:
            raise DataError(
                f"{key} of {name} has the dimensions {', '.join(other)} and {keys[0]} has "
                f"{', '.join(mine)}: channels must have the same"
            )


def _describe_channels(
    dataset: "xr.Dataset", keys: tuple[str, ...], axes: list[LabelledAxes]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of the channels: of the variables, or along the dimension of channels."""
    channels: list[str] = []
    units: list[str] = []
    for key, each in zip(keys, axes, strict=True):
        labels = [key]
        if each.channel is not None:
            labels = channel_labels(dataset, each.channel)
            if len(keys) > 1:
                labels = [f"{key}_{label}" for label in labels]
        channels += labels
        said = dataset.variables[key].attrs.get("units")
        units += [said if isinstance(said, str) else ""] * len(labels)
    return tuple(channels), tuple(units)


def _of_observed(sensors: Sensors, observed: NDArray[np.bool_]) -> Sensors:
    ids = sensors.ids
    if ids is not None:
        ids = tuple(ids[place] for place in np.flatnonzero(observed).tolist())
    return Sensors(ids=ids, latlon=None if sensors.latlon is None else sensors.latlon[observed])
