"""Reading pickles from anywhere: NumPy arrays and builtin containers, nothing else."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from pgti.errors import DataError
from pgti.ingest.readings import reading

__all__ = ["load_pickle", "loads_pickle"]

_BUILTINS = {
    "bytearray": bytearray,
    "complex": complex,
    "dict": dict,
    "frozenset": frozenset,
    "list": list,
    "set": set,
    "tuple": tuple,
}


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_reconstruct = np.empty(0).__reduce__()[0]
_scalar = np.float64(0).__reduce__()[0]
_frombuffer = np.zeros(1).__reduce_ex__(5)[0]

_ADMITTED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1_bytes,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ADMITTED[_module, "_reconstruct"] = _reconstruct
    _ADMITTED[_module, "scalar"] = _scalar
for _module in ("builtins", "__builtin__"):
    _ADMITTED.update({(_module, name): kind for name, kind in _BUILTINS.items()})


class _RestrictedUnpickler(pickle.Unpickler):
    """Finds only what `_ADMITTED` lists; nothing is imported and nothing else can be called."""

    def __init__(self, file: io.BufferedIOBase, name: str) -> None:
        # Python 2 wrote arrays as byte strings; latin1 keeps every byte.
        super().__init__(file, encoding="latin1")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as in the base class
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise DataError(
                f"{self._name} is a pickle that wants {module}.{name}: for safety only NumPy "
                "arrays, numbers, text, lists, tuples and dicts are read; save it as .npz instead"
            ) from None


def load_pickle(path: Path) -> Any:  # noqa: ANN401 - a pickle can hold anything; the caller checks
    """What a pickle file holds, if that is arrays and builtin containers.

    Raises:
        DataError: if it is damaged, or asks for anything else; nothing of it is run then.
    """
    with reading(path.name, "a pickle"), path.open("rb") as file:
        return _load(file, path.name)


def loads_pickle(data: bytes, name: str) -> Any:  # noqa: ANN401 - as above
    """The same for bytes, for example an attribute that PyTables pickled."""
    with reading(name, "a pickle"):
        return _load(io.BytesIO(data), name)


def _load(file: io.BufferedIOBase, name: str) -> Any:  # noqa: ANN401 - as above
    try:
        return _RestrictedUnpickler(file, name).load()
    except (pickle.UnpicklingError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name} is not a complete pickle: {reason}; copy it again") from error
