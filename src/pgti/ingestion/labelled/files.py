"""NetCDF and Zarr files of readings, opened with xarray: their numbers as they are stored."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgti.display import shorten
from pgti.errors import PARSER_ERRORS, ConfigError, DataError, MissingExtraError, option
from pgti.ingestion.arrays.hdf5_chunks import check_box
from pgti.ingestion.arrays.hdf5_files import open_hdf5_file
from pgti.ingestion.labelled.labelled import PartCheck, labelled_readings
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings, reraise_read_errors
from pgti.ingestion.remote import reraise_remote_errors

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["is_zarr", "open_netcdf", "open_zarr"]

_AS_STORED = {
    "mask_and_scale": False,
    "decode_times": False,
    "decode_timedelta": False,
    "create_default_indexes": False,  # they would read coordinates of any claimed length
    "chunks": None,
    "cache": False,
}
_NETCDF_3, _NETCDF_5, _HDF5 = (b"CDF\x01", b"CDF\x02"), b"CDF\x05", b"\x89HDF"
_COORDINATE_BYTES = 1 << 26
_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def open_netcdf(path: Path, options: IngestOptions) -> Readings:
    """Readings in a NetCDF file: version 3, or version 4, which is HDF5.

    Raises:
        ConfigError: if an option names what the file does not have.
        DataError: if the file is damaged, or does not say what its dimensions are.
        MissingExtraError: if xarray or h5netcdf is not installed.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == _NETCDF_5:
        raise DataError(
            f"{path.name} is in the 64-bit data format of NetCDF (CDF-5): convert it with "
            "nccopy -k nc4"
        )
    if magic not in (*_NETCDF_3, _HDF5):
        raise DataError(f"{path.name} is no NetCDF file: it begins with {magic!r}")
    engine = "h5netcdf" if magic == _HDF5 else "scipy"
    _import_xarray("netcdf", *(("h5netcdf",) if engine == "h5netcdf" else ()))

    # h5netcdf complains of files that are cut off on standard error too.
    if engine == "scipy":
        return _open(lambda: nullcontext(path), engine, options, path.name, list)
    groups = _check_hdf5(path)
    check = partial(_check_part, path)
    return _open(lambda: nullcontext(path), engine, options, path.name, lambda: groups, check)


def _check_hdf5(path: Path) -> list[str]:
    """The outermost groups of a file, of which all coordinates are whole."""
    import h5py  # noqa: PLC0415 - h5netcdf brings it

    def check(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.nbytes <= _COORDINATE_BYTES:
            check_box(item)

    with reraise_read_errors(path.name, "NetCDF"), open_hdf5_file(path) as file:
        file.visititems(check)
        return [key for key, each in file.items() if isinstance(each, h5py.Group)]


def _check_part(path: Path, key: str, box: tuple[slice, ...]) -> None:
    import h5py  # noqa: PLC0415 - h5netcdf brings it

    with h5py.File(path, "r") as file:
        check_box(file[key], box)


def is_zarr(path: Path) -> bool:
    """Whether a directory or a zip archive is a Zarr store."""
    if path.is_dir():
        return any((path / name).is_file() for name in _ZARR_FILES)
    return path.is_file() and path.name.lower().endswith(".zarr.zip")


def open_zarr(source: Path | str, options: IngestOptions, name: str) -> Readings:
    """Readings in a Zarr store of version 2 or 3: a directory, a zip archive, or a URL.

    Raises:
        ConfigError: if an option names what the store does not have.
        DataError: if the store is damaged, or does not say what its dimensions are.
        MissingExtraError: if xarray, zarr or what a URL needs is not installed.
    """
    _import_xarray("zarr", "zarr")
    with reraise_read_errors(name, "Zarr"), _reading(source):
        group = _zarr_group(_zarr_store(source), name)

    def list_groups() -> list[str]:
        import zarr  # noqa: PLC0415 - an optional library

        with suppress(*PARSER_ERRORS), warnings.catch_warnings():  # a server cannot list them
            warnings.simplefilter("ignore")  # of members that are damaged
            return [key for key, each in group.members() if isinstance(each, zarr.Group)]
        return []

    @contextmanager
    def opener() -> Iterator[Any]:
        from pgti.ingestion.labelled.zarr_chunks import bounded_chunks  # noqa: PLC0415 - optional

        with _reading(source), bounded_chunks():
            yield _zarr_store(source)

    return _open(opener, "zarr", options, name, list_groups)


def _open(
    open_store: Callable[[], AbstractContextManager[Any]],
    engine: str,
    options: IngestOptions,
    name: str,
    list_groups: Callable[[], list[str]],
    check: PartCheck | None = None,
) -> Readings:
    """Readings of a group of a file: the one that the values name, else the outermost."""
    parted = [value.strip("/").rpartition("/") for value in options.values]
    named = {group for group, _, _ in parted}
    if len(named) > 1:
        raise ConfigError(
            f"{option('values', ','.join(options.values))} names variables of several groups: "
            "channels must be of one"
        )
    group = named.pop() if named else ""
    options = replace(options, values=tuple(key for _, _, key in parted))

    @contextmanager
    def opener() -> "Iterator[xr.Dataset]":
        import xarray as xr  # noqa: PLC0415 - an optional library

        with open_store() as store:
            with warnings.catch_warnings():
                # Of metadata that are not consolidated, of dtypes that others may not read.
                warnings.simplefilter("ignore")
                arguments: dict[str, Any] = {**_AS_STORED, "group": group} if group else _AS_STORED
                dataset = xr.open_dataset(store, engine=engine, **arguments)
            with dataset:
                yield dataset

    what = "Zarr" if engine == "zarr" else "NetCDF"
    if not group:
        with reraise_read_errors(name, what), opener() as dataset:
            is_empty = not dataset.data_vars
        if is_empty and (groups := list_groups()):
            raise DataError(
                f"{name} has its variables in groups ({shorten(groups)}): name one with "
                f"{option('values', f'{groups[0]}/variable')}"
            )
    in_group = None
    if check is not None:
        in_group = lambda key, box: check(f"{group}/{key}", box)  # noqa: E731
    is_netcdf = what == "NetCDF"
    return labelled_readings(opener, options, name, what, is_netcdf=is_netcdf, check=in_group)


def _import_xarray(extra: str, *libraries: str) -> None:
    for library in ("xarray", *libraries):
        try:
            __import__(library)
        except ImportError:
            raise MissingExtraError(library, extra) from None


def _zarr_store(source: Path | str) -> Any:
    from zarr.storage import FsspecStore, LocalStore, ZipStore  # noqa: PLC0415 - optional

    if isinstance(source, str):
        return FsspecStore.from_url(source, read_only=True)
    if source.is_file():
        return ZipStore(source, mode="r", read_only=True)
    return LocalStore(source, read_only=True)


def _reading(source: Path | str) -> AbstractContextManager[None]:
    """What turns the errors of a server into one line."""
    return reraise_remote_errors(source) if isinstance(source, str) else nullcontext()


def _zarr_group(store: Any, name: str) -> Any:
    """The outermost group of a store. The library refuses arrays of pickled objects.

    Raises:
        DataError: if the store is an array.
    """
    import zarr  # noqa: PLC0415 - an optional library

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = zarr.open(store, mode="r")
    if isinstance(opened, zarr.Group):
        return opened
    raise DataError(
        f"{name} is a single Zarr array, without names of its dimensions: open it with zarr in "
        "Python and give the array"
    )
