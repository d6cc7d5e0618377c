"""Pickles from anywhere: what is read, and that a crafted one cannot reach memory."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import DataError
from pgti.ingestion.safe_pickle import loads_pickle


def text(content: str) -> bytes:
    """The opcode of a short text."""
    encoded = content.encode()
    return b"\x8c" + bytes([len(encoded)]) + encoded


def number(value: int) -> bytes:
    """The opcode of a whole number."""
    return b"J" + value.to_bytes(4, "little", signed=True)


def named(module: str, name: str) -> bytes:
    """The opcode that looks a name up."""
    return text(module) + text(name) + b"\x93"


def addresses_as_objects(code: str) -> bytes:
    """A pickle of an array whose dtype loses its object flags, filled with made-up addresses."""
    state = b"(" + number(3) + text("|") + b"NNN" + number(-1) + number(-1) + number(0) + b"t"
    dtype = named("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state + b"b"
    empty = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray")
    empty += number(0) + b"\x85C\x01b\x87R"
    filled = b"(" + number(1) + number(2) + b"\x85" + dtype + b"\x89C\x10" + b"\x41" * 16 + b"tb"
    return b"\x80\x04" + empty + filled + b"}" + number(1) + b"\x87."


@pytest.mark.parametrize("code", ["O8", "V8", "M8[s]"])
def test_crafted_dtype_does_not_end_the_interpreter(tmp_path: Path, code: str) -> None:
    """Addresses as objects, records and dates are refused in one line, in a process of its own."""
    (tmp_path / "adj_mx.pkl").write_bytes(addresses_as_objects(code))
    program = f"""
from pgti.errors import DataError
from pgti.ingestion import read_graph
try:
    read_graph({str(tmp_path / "adj_mx.pkl")!r})
except DataError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,  # a crash is what the test is about
    )
    assert done.returncode == 0, done.stderr[-500:]
    (line,) = done.stdout.splitlines()
    assert "adj_mx.pkl cannot be read as a pickle" in line
    assert code in line


ARRAYS = (
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.arange(6, dtype=">i8").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.array(["773869", "7"]),
    np.array([b"ab", b"c"]),
    np.array([True, False]),
    np.empty((0, 3)),
)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_arrays_come_back(protocol: int, array: np.ndarray) -> None:
    """Arrays of numbers and text come back from every protocol, also twice in one container."""
    content = {"once": array, "twice": [array, (array, array.flat[0] if array.size else 0)]}
    back = loads_pickle(pickle.dumps(content, protocol=protocol), "a.pkl")
    for got in (back["once"], back["twice"][0], back["twice"][1][0]):
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype


def test_bytes_must_fit_the_shape() -> None:
    """An array with fewer bytes than its shape needs is refused, before any is made."""
    whole = pickle.dumps(np.arange(4, dtype=np.int32), protocol=4)
    with pytest.raises(DataError, match=r"16 bytes for an array of int32 \(5,\)"):
        loads_pickle(whole.replace(b"K\x04\x85", b"K\x05\x85"), "a.pkl")


def test_a_pickle_changes_no_function() -> None:
    """The state that a pickle sets on what it may call is refused."""
    changed = b"\x80\x04" + named("_codecs", "encode") + b"}" + text("x") + number(1) + b"sb."
    with pytest.raises(DataError, match="changes a function"):
        loads_pickle(changed, "a.pkl")


def test_shared_lists_are_made_once() -> None:
    """A small pickle of lists that hold one list twice, sixty deep, does not grow."""
    nested: list[object] = [1]
    for _ in range(60):
        nested = [nested, nested]
    back = loads_pickle(pickle.dumps(nested, protocol=4), "a.pkl")
    assert back[0] is back[1]
