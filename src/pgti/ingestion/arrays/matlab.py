"""Variables of MATLAB files: version 5, read whole with SciPy, and 7.3, which is HDF5.

MATLAB stores the first axis fastest, so that a matrix [steps, sensors] of a 7.3 file is a dataset
[sensors, steps], which is read in pieces.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from pgti.errors import DataError
from pgti.ingestion.arrays.axes_arrays import BoxReader, StoredArray
from pgti.ingestion.arrays.axes_labels import (
    TIME_ARRAYS,
    Labels,
    label_axes,
    open_stored,
    wanted_ndims,
)
from pgti.ingestion.arrays.hdf5_chunks import read_box
from pgti.ingestion.arrays.hdf5_files import open_hdf5_file
from pgti.ingestion.arrays.matlab_elements import check_elements, complex_numbers
from pgti.ingestion.arrays.stacked import stack_channels
from pgti.ingestion.keys import choose_keys
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings, reraise_read_errors
from pgti.memory import available_bytes

__all__ = ["open_matlab"]

_FORMAT = "a MATLAB file"
_DTYPES = {"double": "f8", "single": "f4", "logical": "?", "char": "U1", "cell": "U1"} | {
    f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
_MAX_LABELS = 1 << 22
_MAX_UNPACKED = 1032  # bytes that deflate makes of one; each number takes one at least
_FIRST_DAY, _LAST_DAY = 600_000, 900_000  # MATLAB's day numbers of the years 1642 to 2464
_UNIX_DAY = 719_529  # of 1970-01-01


@dataclass(frozen=True, kw_only=True, slots=True)
class _Variable:
    """A variable of a file.

    Attributes:
        shape: as MATLAB shows it; that of text is one for each row.
        dtype: NumPy's dtype of its class; text for char arrays and cells.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def is_vector(self) -> bool:
        """Whether it has one axis, as MATLAB shows it two."""
        return sum(size != 1 for size in self.shape) < 2


def open_matlab(path: Path, options: IngestOptions) -> Readings:
    """Readings in the variables of a MATLAB file, by name where several could be meant.

    Ids (a cell array of names, a char matrix or numbers), coordinates and times (text, day numbers
    of `datenum` or seconds since 1970) come from other variables, by the usual names.

    Raises:
        ConfigError: if the variable of ids that the user names does not fit.
        DataError: if the file is damaged, or several variables could be meant and none was chosen.
        MissingExtraError: if the file is HDF5 and h5py is not installed.
    """
    name = path.name
    file = _Hdf5File(path) if _is_hdf5(path) else _File5(path)
    variables = file.variables()
    candidates = {
        key: str(variable.shape)
        for key, variable in variables.items()
        if variable.dtype.kind in "iufb"
        and (key in options.values or not variable.is_vector)
        and len(variable.shape) in wanted_ndims(options)
    }
    for key in options.values:
        kind = file.kinds.get(key.partition(".")[0], "double")
        if key not in candidates and kind not in _DTYPES:
            raise DataError(
                f"{key} of {name} is a {kind}, or part of one, and no matrix of numbers: save the "
                "matrix as a variable of its own"
            )
    others = [f"{key} ({kind})" for key, kind in file.kinds.items() if kind not in _DTYPES]
    others += [f"{key} {each.dtype} {each.shape}" for key, each in variables.items()]
    keys = choose_keys(name, candidates, options.values, "variable", "variables", others=others)
    is_reversed = isinstance(file, _Hdf5File)
    parts = [open_stored(file.stored(key), options, is_reversed=is_reversed) for key in keys]
    readings = parts[0] if len(keys) == 1 else stack_channels(parts, keys, name)
    arrays = {key: _as_labels(each) for key, each in variables.items() if key not in keys}
    labels = Labels(name=name, arrays=arrays, read=lambda key: _labels(file, key), text_kinds="U")
    readings = label_axes(readings, variables[keys[0]].shape, labels, options, reads_all=True)
    if readings.channels is None and readings.num_channels == 1:
        readings = replace(readings, channels=keys)
    return replace(readings, name=name)


def _is_hdf5(path: Path) -> bool:
    with reraise_read_errors(path.name, _FORMAT), path.open("rb") as file:
        start = file.read(520)
    return start[512:].startswith(b"\x89HDF\r\n\x1a\n") or start.startswith(b"\x89HDF")


def _as_labels(variable: _Variable) -> _Variable:
    """A variable as one of labels: a vector has one axis, text one for each row."""
    if not variable.is_vector:
        return variable
    return _Variable(shape=(math.prod(variable.shape),), dtype=variable.dtype)


def _labels(file: "_File5 | _Hdf5File", key: str) -> NDArray[Any]:
    """A variable as labels of an axis; day numbers of times become dates."""
    values = file.read(key)
    values = values.reshape(-1) if 1 in values.shape else values
    if key.lower() not in TIME_ARRAYS or values.dtype.kind != "f" or not values.size:
        return values
    if not ((values >= _FIRST_DAY) & (values < _LAST_DAY)).all():
        return values
    seconds = np.round((values - _UNIX_DAY) * 86_400).astype(np.int64)  # a float holds 10 us
    return seconds.astype("M8[s]")


class _File5:
    """A file of version 4 to 7, whose variables are read whole.

    Args:
        path: of the file.

    Attributes:
        kinds: class of each variable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reraise(path.name):
            listed = scipy.io.whosmat(path)
        most = _MAX_UNPACKED * path.stat().st_size
        for key, shape, kind in listed:
            if kind in _DTYPES and math.prod(shape) > most:
                raise DataError(
                    f"{path.name} is truncated: it promises {shape} numbers of {key} in "
                    f"{path.stat().st_size:,} bytes; copy it again"
                )
        self.kinds = {key: kind for key, _, kind in listed}
        self._shapes: dict[str, tuple[int, ...]] = {key: shape for key, shape, _ in listed}

    def variables(self) -> dict[str, _Variable]:
        """The variables that hold numbers or text."""
        found = {}
        for key, kind in self.kinds.items():
            if kind in _DTYPES:
                shape = self._shapes[key]
                shape = shape[:1] if kind == "char" else shape
                found[key] = _Variable(shape=shape, dtype=np.dtype(_DTYPES[kind]))
        return found

    def stored(self, key: str) -> StoredArray:
        """A variable as an array."""
        variable = self.variables()[key]

        @contextlib.contextmanager
        def open_array() -> Iterator[BoxReader]:
            yield self.read(key).__getitem__

        return StoredArray(
            name=f"{key} of {self._path.name}",
            shape=variable.shape,
            dtype=variable.dtype,
            open=open_array,
            is_in_memory=True,
        )

    def read(self, key: str) -> NDArray[Any]:
        """A variable; its size is compared with the memory that is free first.

        Raises:
            DataError: if it is too large or damaged.
        """
        kind, shape = self.kinds[key], self._shapes[key]
        num_bytes = math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize
        with _reraise(self._path.name):
            if 2 * num_bytes > available_bytes():
                raise DataError(
                    f"{key} of {self._path.name} takes {num_bytes:,} bytes, and this version of "
                    "MATLAB's files must be read whole: save it with -v7.3, which is read in pieces"
                )
            check_elements(self._path, key)
            found = scipy.io.loadmat(self._path, variable_names=[key])[key]
        if kind == "cell":
            texts = [_text_of(cell) for cell in found.reshape(-1, order="F")]
            return np.array(texts, dtype=str)
        if kind == "char":
            return np.char.rstrip(found)
        if found.dtype.kind == "c":  # of version 4
            raise complex_numbers(f"{key} of {self._path.name}")
        if found.shape != shape:
            raise DataError(f"{key} of {self._path.name} has shape {found.shape}, not {shape}")
        return np.asarray(found)


class _Hdf5File:
    """A file of version 7.3; fields of structures have the name of their variable before them.

    Args:
        path: of the file.

    Attributes:
        kinds: class of each variable that is a structure, or of another class without numbers.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kinds: dict[str, str] = {}
        self._variables: dict[str, _Variable] = {}
        self._chunks: dict[str, tuple[int, ...] | None] = {}
        with _reraise(path.name), open_hdf5_file(path) as file:
            file.visititems(self._visit)

    def variables(self) -> Mapping[str, _Variable]:
        """The variables that hold numbers or text."""
        return self._variables

    def _visit(self, key: str, item: Any) -> None:
        if key.startswith("#"):
            return
        name = key.replace("/", ".")
        kind = item.attrs.get("MATLAB_class", b"")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if not hasattr(item, "dtype") or kind not in ("", *_DTYPES):
            self.kinds[name] = kind or "struct"
            return
        if "MATLAB_empty" in item.attrs or item.ndim < 1:
            return
        is_text = kind in ("char", "cell")
        shape = item.shape[::-1]
        if kind == "char":
            shape = shape[:1]
        dtype = np.dtype("U1") if is_text else np.dtype("?") if kind == "logical" else item.dtype
        self._variables[name] = _Variable(shape=shape, dtype=dtype)
        self._chunks[name] = item.chunks

    def stored(self, key: str) -> StoredArray:
        """A variable as an array whose last axis is stored first."""
        name = f"{key} of {self._path.name}"

        @contextlib.contextmanager
        def open_array() -> Iterator[BoxReader]:
            with _reraise(name), open_hdf5_file(self._path) as file:
                yield partial(read_box, file[key.replace(".", "/")])

        variable = self._variables[key]
        return StoredArray(
            name=name,
            shape=variable.shape[::-1],
            dtype=variable.dtype,
            open=open_array,
            chunks=self._chunks[key],
        )

    def read(self, key: str) -> NDArray[Any]:
        """A variable of labels.

        Raises:
            DataError: if there are too many, or they are damaged.
        """
        variable = self._variables[key]
        with _reraise(self._path.name), open_hdf5_file(self._path) as file:
            item = file[key.replace(".", "/")]
            if item.size > _MAX_LABELS:
                raise DataError(f"{key} of {self._path.name} has {item.size} cells: too many")
            if variable.dtype.kind != "U":
                return read_box(item).T
            if item.dtype.kind != "O":
                return np.array([_text_of_codes(row) for row in np.atleast_2d(read_box(item)).T])
            cells = [file[reference] for reference in read_box(item).reshape(-1)]
            return np.array([_text_of_cell(cell) for cell in cells])


def _text_of(cell: Any) -> str:
    """The text or number of a cell."""
    values = np.asarray(cell).reshape(-1)
    if len(values) != 1:
        return "" if not len(values) else str(values.tolist())
    value = values.tolist()[0]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _text_of_cell(cell: Any) -> str:
    if cell.size > _MAX_LABELS:
        raise DataError("a cell holds more than a name")
    kind = cell.attrs.get("MATLAB_class", b"char")
    if "MATLAB_empty" in cell.attrs:
        return ""
    is_text = kind in (b"char", "char")
    values = read_box(cell)
    return _text_of_codes(values.reshape(-1)) if is_text else _text_of(values)


def _text_of_codes(codes: NDArray[Any]) -> str:
    """Text of UTF-16 code units."""
    return codes.astype("<u2").tobytes().decode("utf-16-le", "replace").rstrip()


@contextlib.contextmanager
def _reraise(name: str) -> Iterator[None]:
    try:
        with reraise_read_errors(name, _FORMAT):
            yield
    except MatReadError as error:  # which is no ValueError
        raise DataError(f"{name} cannot be read as {_FORMAT}: {error}") from error
