"""The opcodes of a pickle that arrays and plain containers need, each in bounded memory and time.

Python's own implementation of the others' work is built on: the one in C makes a table as long as
the largest number that a pickle gives to a value, and a byte array of the length that it states.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from types import NoneType
from typing import Any, BinaryIO, TypeAlias

__all__ = ["MAX_AXES", "BoundedUnpickler"]

MAX_AXES = 64
"""Of an array, and the most arguments that a call has."""

_MAX_STEPS = 1 << 20  # 100,000 ids, and the position of each, take 600,000
_MAX_NUMBER_BITS = 64  # longer ones that have one hash are easily found
_MAX_MEMO = 1 << 32
_COPIES = 4
_Load: TypeAlias = Callable[[Any], None]
_UNUSED = {
    *("ADDITEMS", "BINPERSID", "EMPTY_SET", "EXT1", "EXT2", "EXT4", "FROZENSET", "INST", "LONG4"),
    *("NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER", "OBJ", "PERSID", "READONLY_BUFFER"),
}


class _BoundedFile:
    """A file whose reads ask for no more than it has left; nothing is allocated before."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = self._left = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise pickle.UnpicklingError(f"it promises {size:,} bytes and has {self._left:,} left")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline()
        self._left -= len(line)
        return line


class _Opcodes:
    """How each opcode is read. They are counted, and those that nothing needs are refused."""

    def __init__(self) -> None:
        self._left = _MAX_STEPS

    def __getitem__(self, code: int) -> _Load:
        self._left -= 1
        if not self._left:
            raise pickle.UnpicklingError(f"it has more than {_MAX_STEPS:,} steps")
        if code not in _LOADS:
            raise pickle.UnpicklingError(
                f"its step {_NAMES.get(code, code)} is none that arrays, numbers, text, lists, "
                "tuples or dicts need"
            )
        return _LOADS[code]


class BoundedUnpickler(pickle._Unpickler):
    """Reads plain containers; what it finds by name is of the class that is built on it.

    Args:
        file: the pickle, which can be sought.
    """

    def __init__(self, file: BinaryIO) -> None:
        bounded = _BoundedFile(file)
        # Python 2 wrote arrays as byte strings; latin1 keeps every byte.
        super().__init__(bounded, encoding="latin1")
        self.dispatch = _Opcodes()  # type: ignore[assignment, misc] # of an instance
        self._uncopied = _COPIES * bounded.size

    def charge(self, arguments: object) -> None:
        """Count what a call is given, which it may copy: one text may be given many times."""
        if not isinstance(arguments, tuple) or len(arguments) > MAX_AXES:
            raise pickle.UnpicklingError("a call or a state without a tuple of arguments")
        copied = (each for each in arguments if isinstance(each, str | bytes | bytearray))
        self._uncopied -= sum(map(len, copied))
        if self._uncopied < 0:
            raise pickle.UnpicklingError(f"it uses its bytes more than {_COPIES} times")


def _load_bytearray(unpickler: Any) -> None:
    (size,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(size)))


def _load_put(unpickler: Any) -> None:
    place = int(unpickler.readline())
    if not 0 <= place < _MAX_MEMO:
        raise pickle.UnpicklingError(f"it numbers a value by more than {_MAX_MEMO:,}")
    unpickler.memo[place] = unpickler.stack[-1]


def _before(load: _Load, check: _Load) -> _Load:
    def load_checked(unpickler: Any) -> None:
        check(unpickler)
        load(unpickler)

    return load_checked


def _number(load: _Load) -> _Load:
    """An opcode of a whole number in as many digits as it likes."""

    def load_checked(unpickler: Any) -> None:
        load(unpickler)
        if unpickler.stack[-1].bit_length() > _MAX_NUMBER_BITS:
            raise pickle.UnpicklingError(f"a whole number of more than {_MAX_NUMBER_BITS} bits")

    return load_checked


def _check_call(unpickler: Any) -> None:
    unpickler.charge(unpickler.stack[-1])


def _check_keys(keys: slice) -> _Load:
    """Check items of the stack that become keys: a tuple of tuples may hash for ever."""

    def check(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            if not isinstance(key, str | bytes | int | float | NoneType):
                raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")

    return check


_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_LOADS: dict[int, _Load] = {
    code: pickle._Unpickler.dispatch[code] for code, name in _NAMES.items() if name not in _UNUSED
}
_LOADS[pickle.BYTEARRAY8[0]] = _load_bytearray
_LOADS[pickle.PUT[0]] = _load_put
for _code in (pickle.INT[0], pickle.LONG[0], pickle.LONG1[0]):
    _LOADS[_code] = _number(_LOADS[_code])
for _code in (pickle.REDUCE[0], pickle.BUILD[0]):
    _LOADS[_code] = _before(_LOADS[_code], _check_call)
for _code, _keys in (
    (pickle.SETITEM[0], slice(-2, -1)),
    (pickle.SETITEMS[0], slice(None, None, 2)),
    (pickle.DICT[0], slice(None, None, 2)),
):
    _LOADS[_code] = _before(_LOADS[_code], _check_keys(_keys))
