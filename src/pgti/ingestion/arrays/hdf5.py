"""Readings in HDF5 files: tables written by pandas, and plain datasets.

Files are read with h5py, in blocks of rows. What the attributes of a dataset say of its numbers is
honored, as in NetCDF.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.arrays.axes_arrays import BoxReader, StoredArray
from pgti.ingestion.arrays.axes_labels import Labels, label_axes, open_stored, wanted_ndims
from pgti.ingestion.arrays.chunked import check_overhang
from pgti.ingestion.arrays.hdf5_chunks import read_box
from pgti.ingestion.arrays.hdf5_files import open_hdf5_file
from pgti.ingestion.arrays.packing import Packing
from pgti.ingestion.arrays.pandas_hdf5 import (
    Node,
    PandasTable,
    is_pandas_table,
    open_pandas_table,
    read_locations,
)
from pgti.ingestion.arrays.stacked import stack_channels
from pgti.ingestion.keys import choose_keys
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.raw_graphs import RawCoordinates
from pgti.ingestion.readings import (
    Chunk,
    Readings,
    check_series_shape,
    decoded,
    reraise_read_errors,
    row_blocks,
    rows_per_chunk,
)
from pgti.ingestion.times.cf_times import is_since

__all__ = ["is_netcdf", "open_hdf5"]

_MASKS = ("eval_mask", "mask", "masks", "training_mask")
_FORMAT = "HDF5 (if a compression filter is missing, rewrite it with `ptrepack --complib=zlib`)"


def open_hdf5(path: Path, options: IngestOptions) -> Readings:
    """Readings in an HDF5 file, under any key.

    Raises:
        DataError: if the file is damaged, or several keys hold readings and none was chosen.
        MissingExtraError: if h5py is not installed.
    """
    name = path.name
    with reraise_read_errors(name, _FORMAT), open_hdf5_file(path) as file:
        candidates = _candidates(file, options)
        wanted = tuple(key.strip("/") for key in options.values)
        locations = _find_locations(file, candidates, name)
        masks = [key for key in candidates if key.rpartition("/")[2] in _MASKS]
        likely = candidates
        if not wanted and len(candidates) > len(locations) + len(masks):
            likely = {
                key: shape
                for key, shape in candidates.items()
                if key not in locations and key not in masks
            }
        keys = choose_keys(
            name, likely, wanted, "table or dataset", "tables or datasets", others=_datasets(file)
        )
        parts = [_open_key(path, file, key, options) for key in keys]
    readings = parts[0] if len(keys) == 1 else stack_channels(parts, keys, name)
    notes = tuple(
        f"{key} of {name} marks readings, as tsl does to score imputation: none was left out for it"
        for key in masks
        if key not in keys
    )
    readings = replace(readings, name=name, notes=(*readings.notes, *notes))
    return _add_locations(readings, locations)


def is_netcdf(path: Path) -> bool:
    """Whether NetCDF wrote an HDF5 file, or its datasets have dimensions of which one is times.

    Raises:
        DataError: if the file is damaged.
        MissingExtraError: if h5py is not installed.
    """
    found: list[bool] = []

    def visit(_: str, item: Node) -> None:
        if getattr(item, "ndim", 0) in (2, 3, 4) and item.dtype.kind in "iuf":
            scales = _scales_of(item)
            if len(scales) == item.ndim:
                found.extend(is_since(_as_text(scale.attrs.get("units", ""))) for scale in scales)

    with reraise_read_errors(path.name, _FORMAT), open_hdf5_file(path) as file:
        if "_NCProperties" in file.attrs:
            return True
        file.visititems(visit)
    return any(found)


def _scales_of(dataset: Node) -> list[Node]:
    """The first scale of each dimension that has one.

    HDF5's own function for that ends the process where the attribute is of another type.
    """
    listed = dataset.attrs.get("DIMENSION_LIST", ())
    found = [each for each in listed if isinstance(each, np.ndarray) and each.dtype.kind == "O"]
    return [dataset.file[each[0]] for each in found if len(each)]


def _as_text(value: Any) -> str:
    return decoded(value) if isinstance(value, bytes) else str(value)


def _candidates(file: Node, options: IngestOptions) -> dict[str, str]:
    """The shape of each table that pandas wrote and of each other dataset of as many axes."""
    tables: list[str] = []
    found: dict[str, str] = {}
    ndims = wanted_ndims(options)

    def visit(key: str, item: Node) -> None:
        if any(key.startswith(f"{table}/") for table in tables):
            return
        if is_pandas_table(item):
            tables.append(key)
            found[key] = "(pandas table)"
        elif getattr(item, "ndim", 0) in ndims and item.dtype.kind in "iuf":
            found[key] = str(item.shape)

    file.visititems(visit)
    return found


def _datasets(file: Node) -> list[str]:
    """All datasets, with their dtypes and shapes."""
    found: list[str] = []

    def visit(key: str, item: Node) -> None:
        if hasattr(item, "dtype"):
            found.append(f"{key} {item.dtype} {item.shape}")

    file.visititems(visit)
    return found


def _find_locations(file: Node, candidates: dict[str, str], name: str) -> dict[str, RawCoordinates]:
    """Tables with a row for each station and columns of its latitude and longitude, as tsl's."""
    found = {}
    for key in candidates:
        located = None
        if is_pandas_table(file[key]):
            located = read_locations(file[key], f"{key} of {name}")
        if located is not None:
            ids, latlon = located
            found[key] = RawCoordinates(name=f"{key} of {name}", latlon=latlon, node_ids=ids)
    return found


def _add_locations(readings: Readings, locations: dict[str, RawCoordinates]) -> Readings:
    """The readings with the one table of locations that has all of their sensors."""
    node_ids = readings.node_ids or ()
    for located in locations.values():
        places = {label: place for place, label in enumerate(located.node_ids or ())}
        lost = next((label for label in node_ids if label not in places), None)
        if lost is None and node_ids:
            latlon = located.latlon[[places[label] for label in node_ids]]
            return replace(readings, graph=replace(located, latlon=latlon, node_ids=node_ids))
        note = f"{located.name} was left out: it has no location of the sensor {lost!r}"
        readings = replace(readings, notes=(*readings.notes, note))
    return readings


def _open_key(path: Path, file: Node, key: str, options: IngestOptions) -> Readings:
    name, dataset = f"{key} of {path.name}", file[key]
    if is_pandas_table(dataset):
        if options.transpose:
            raise DataError(
                f"{name} is a table of pandas, whose rows are times: leave {option('transpose')} "
                "out"
            )
        return _open_table(path, key, open_pandas_table(dataset, name, options))
    packing = Packing.of(dict(dataset.attrs), dataset.dtype, name)
    if dataset.chunks is not None:
        check_overhang(name, dataset.shape, dataset.chunks, dataset.dtype.itemsize)
    notes = _note_unwritten(dataset, packing, name)

    @contextmanager
    def open_pieces() -> Iterator[BoxReader]:
        with reraise_read_errors(name, _FORMAT), open_hdf5_file(path) as reopened:
            stored = reopened[key]
            yield lambda box: packing.decode(read_box(stored, box))

    array = StoredArray(
        name=name,
        shape=dataset.shape,
        dtype=packing.decoded_dtype,
        open=open_pieces,
        chunks=dataset.chunks,
    )
    arrays = {
        each: item
        for group in (file, dataset.parent)  # those beside it come before those of the file
        for each, item in group.items()
        if hasattr(item, "dtype") and item != dataset
    }
    labels = Labels(
        name=path.name, arrays=arrays, read=lambda each: read_box(arrays[each]), text_kinds="SUO"
    )
    readings = label_axes(open_stored(array, options), dataset.shape, labels, options)
    return replace(readings, notes=(*readings.notes, *notes))


def _note_unwritten(dataset: Node, packing: Packing, name: str) -> tuple[str, ...]:
    """A note on parts that were never written, which read as the fill value of the dataset.

    Raises:
        DataError: if nothing was written.
    """
    if not dataset.id.get_storage_size():
        raise DataError(f"{name} has the shape {dataset.shape} and nothing was written to it")
    if dataset.chunks is None:
        return ()
    sizes = zip(dataset.shape, dataset.chunks, strict=True)
    num_chunks = math.prod(math.ceil(size / chunk) for size, chunk in sizes)
    num_unwritten = num_chunks - dataset.id.get_num_chunks()
    fill = packing.decode(np.array([dataset.fillvalue], dataset.dtype)).item()
    if num_unwritten <= 0 or np.isnan(fill):
        return ()
    return (
        f"{num_unwritten:,} of the {count_of(num_chunks, 'chunk')} of {name} were never written "
        f"and read as {fill:g}: if that is no reading, give {option('missing', (fill,))}",
    )


def _open_table(path: Path, key: str, table: PandasTable) -> Readings:
    name = f"{key} of {path.name}"
    num_nodes, num_channels = len(table.node_ids), len(table.channels or ("value",))
    check_series_shape(name, (table.num_rows, num_nodes), np.dtype(np.float64))

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rows = rows_per_chunk(budget_bytes, num_nodes * num_channels)
        with reraise_read_errors(name, _FORMAT), open_hdf5_file(path) as reopened:
            for first, stop in row_blocks(table.num_rows, rows):
                values, times = table.read(reopened[key], first, stop)
                seconds = None
                if table.time_unit is not None:
                    seconds = table.epoch_seconds(times, first)
                shape = (stop - first, num_nodes, num_channels)
                yield Chunk(values=values.reshape(shape), seconds=seconds)

    return Readings(
        name=name,
        num_rows=table.num_rows,
        num_nodes=num_nodes,
        num_channels=num_channels,
        node_ids=table.node_ids,
        channels=table.channels,
        is_aware=table.is_aware,
        time_zone=table.time_zone,
        chunks=chunks,
    )
