"""Reading untrusted pickles: arrays of numbers or text and builtin containers, nothing else.

A pickle gets no access to NumPy's own constructors, with which it could build an array of objects
from bytes of its choice, which NumPy would use as addresses. The names in a pickle map to classes
of this file, which accept a dtype of plain items and exactly as many bytes as it needs; it takes
no more memory and time than its own bytes explain (see `pickle_opcodes`). No message shows more of
a container than its type, for one in one in one may be written out for ever.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pgti.errors import PARSER_ERRORS, DataError
from pgti.ingestion.pickle_opcodes import MAX_AXES, BoundedUnpickler
from pgti.ingestion.readings import reraise_read_errors

__all__ = ["load_pickle", "loads_pickle", "plain_labels"]

_PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU][1-9]\d{0,5})")
_MAX_LABELS_BYTES, _SHOWN = 1 << 26, 60


def _shown(value: object) -> str:
    is_plain = isinstance(value, str | bytes | int)
    return repr(value)[:_SHOWN] if is_plain else f"a {type(value).__name__}"


class _Function:
    """A function that a pickle may call but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes a function")


class _Dtype:
    """Stands for `numpy.dtype`: items of a fixed size that hold no object."""

    __slots__ = ("_code", "_order")
    __hash__ = None  # type: ignore[assignment] # unhashable

    def __init__(self, code: object, *flags: object) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or _PLAIN_DTYPE.fullmatch(text) is None:
            raise pickle.UnpicklingError(
                f"an array of {_shown(text)}, which is neither numbers nor text of a fixed size"
            )
        self._order = text[0] if text[0] in "<>|=" else ""
        self._code = text.lstrip("<>|=")

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, size, alignment, flags, ...)
        if not isinstance(state, tuple) or len(state) < 5 or any(state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"the byte order {_shown(order)}")
        self._order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        """The real one."""
        return np.dtype(self._order + self._code)


class _Array:
    """Stands for `numpy.ndarray`; `array` is the real one, once its state is set."""

    __slots__ = ("array",)
    __hash__ = None  # type: ignore[assignment] # unhashable

    def __init__(self) -> None:
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise pickle.UnpicklingError("an array without shape, dtype and data")
        shape, dtype, is_fortran, data = state[-4:]
        self.array = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    """The array of some bytes, which must be as many as its shape and dtype need."""
    if isinstance(data, str):  # Python 2 wrote bytes as text; latin1 preserves them
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array of objects")
    if not isinstance(shape, tuple) or not _are_sizes(shape) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array whose shape is not a tuple of sizes")
    real = dtype.dtype
    if math.prod(shape) * real.itemsize != len(data):
        raise pickle.UnpicklingError(f"{len(data)} bytes for an array of {real} {shape}")
    flat: NDArray[Any] = np.frombuffer(data, dtype="u1" if real.kind == "b" else real)
    if real.kind == "b":
        flat = flat != 0  # bytes other than 0 and 1 are not valid bools
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _are_sizes(sizes: tuple[Any, ...]) -> bool:
    return len(sizes) <= MAX_AXES and all(isinstance(size, int) and size >= 0 for size in sizes)


def _reconstruct(kind: object, *empty: object) -> _Array:
    """Stands for the function of that name: an array whose state comes next."""
    del kind, empty
    return _Array()


def _from_buffer(
    data: object, dtype: object, shape: object, order: object, axes: object = None
) -> _Array:
    """Stands for `_frombuffer`, by which protocol 5 writes arrays; `axes` reorders them."""
    array = _Array()
    if axes is None or order != "K":
        array.array = _array(data, dtype, shape, order)
        return array
    if not isinstance(axes, tuple) or not _are_sizes(axes):
        raise pickle.UnpicklingError("an array whose order of axes is not a tuple of places")
    array.array = _array(data, dtype, shape, "C").transpose(axes)
    return array


def _scalar(dtype: object, data: object) -> Any:
    """Stands for the function of that name: one number or text, as Python has them."""
    return _array(data, dtype, (), "C").item()


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {_shown(encoding)}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _Function(_latin1_bytes),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}
for _module in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_module}.multiarray", "_reconstruct"] = _Function(_reconstruct)
    _ADMITTED[f"{_module}.multiarray", "scalar"] = _Function(_scalar)
    _ADMITTED[f"{_module}.numeric", "_frombuffer"] = _Function(_from_buffer)
for _module in ("builtins", "__builtin__"):
    _ADMITTED[_module, "bytes"] = _Function(lambda: b"")  # so protocol 2 writes empty bytes


class _RestrictedUnpickler(BoundedUnpickler):
    """Finds only what `_ADMITTED` lists; nothing is imported and nothing else can be called."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            if module.endswith("\r") or name.endswith("\r"):
                raise _changed_line_ends(self._name) from None
            raise DataError(
                f"{self._name} is a pickle that wants {f'{module}.{name}'[:_SHOWN]}: for safety "
                "only NumPy arrays, numbers, text, lists, tuples and dicts are read; save it as "
                ".npz instead"
            ) from None


def _changed_line_ends(name: str) -> DataError:
    return DataError(
        f"{name} is a pickle whose line ends were changed from LF to CRLF, as git on Windows and "
        "editors do: get it again as a binary file (for git: `*.pkl binary` in .gitattributes, or "
        "core.autocrlf false)"
    )


def load_pickle(path: Path) -> Any:
    """What a pickle file holds, if that is arrays and builtin containers.

    Raises:
        DataError: if it is damaged, or asks for anything else; nothing of it is run then.
    """
    with reraise_read_errors(path.name, "a pickle"), path.open("rb") as file:
        try:
            return _load(file, path.name)
        except (DataError, *PARSER_ERRORS):
            if _has_changed_line_ends(file):
                raise _changed_line_ends(path.name) from None
            raise


def loads_pickle(data: bytes, name: str) -> Any:
    """The same for bytes, for example an attribute that PyTables pickled."""
    with reraise_read_errors(name, "a pickle"):
        return _load(io.BytesIO(data), name)


def plain_labels(labels: Any, name: str) -> list[Any]:
    """The labels that a pickle lists.

    Raises:
        DataError: if they are no list, one of them is neither text nor a number, or they are long.
    """
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list | tuple):
        raise DataError(f"{name} has a {type(labels).__name__} in place of a list of sensor ids")
    for place, label in enumerate(labels):
        if not isinstance(label, str | bytes | int | float):
            raise DataError(
                f"entry {place} of the sensor ids in {name} is a {type(label).__name__}: an id is "
                "text or a number"
            )
    if sum(len(each) for each in labels if isinstance(each, str | bytes)) > _MAX_LABELS_BYTES:
        raise DataError(f"the sensor ids in {name} have more than {_MAX_LABELS_BYTES >> 20} MiB")
    return list(labels)


def _has_changed_line_ends(file: BinaryIO) -> bool:
    """Whether every LF of a file follows a CR; a pickle has some of its own, and rarely with CR."""
    found, last = False, b""
    file.seek(0)
    while block := file.read(1 << 20):
        count = block.count(b"\n")
        found = found or count > 0
        if count != (last + block).count(b"\r\n"):
            return False
        last = block[-1:]
    return found


def _load(file: BinaryIO, name: str) -> Any:
    try:
        return _real(_RestrictedUnpickler(file, name).load(), {})
    except (pickle.UnpicklingError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} cannot be read as a pickle: {reason}; copy it again, or save it as .npz"
        ) from error


def _real(value: Any, done: dict[int, Any]) -> Any:
    """The value with its placeholders replaced by arrays.

    Shared objects are converted once, so that a small pickle cannot grow large here.
    """
    if id(value) in done:
        return done[id(value)]
    real = value
    if isinstance(value, _Array):
        real = value.array
    elif isinstance(value, _Dtype | _Function | type):
        raise pickle.UnpicklingError(
            f"a {type(value).__name__.strip('_').lower()} among its values"
        )
    elif isinstance(value, list):
        real = [_real(item, done) for item in value]
    elif isinstance(value, tuple):
        real = tuple(_real(item, done) for item in value)
    elif isinstance(value, dict):
        real = {key: _real(item, done) for key, item in value.items()}
    done[id(value)] = real
    return real
