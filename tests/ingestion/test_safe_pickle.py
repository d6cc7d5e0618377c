"""Pickles from anywhere: what is read, and that a crafted one cannot reach memory."""

import contextlib
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import DataError
from pgti.ingestion import read_graph
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
    changed = b"\x80\x04" + named("_codecs", "encode")
    with pytest.raises(DataError, match="changes a function"):
        loads_pickle(changed + text("x") + b"\x85b.", "a.pkl")
    with pytest.raises(DataError, match="without a tuple of arguments"):
        loads_pickle(changed + b"}" + text("x") + number(1) + b"sb.", "a.pkl")


def test_shared_lists_are_made_once() -> None:
    """A small pickle of lists that hold one list twice, sixty deep, does not grow."""
    nested: list[object] = [1]
    for _ in range(60):
        nested = [nested, nested]
    back = loads_pickle(pickle.dumps(nested, protocol=4), "a.pkl")
    assert back[0] is back[1]


def refusal(data: bytes) -> str:
    """The line in which a pickle is refused."""
    with pytest.raises(DataError) as refused:
        loads_pickle(data, "g.pkl")
    return str(refused.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04" + named("builtins", "bytearray") + b"\x8a\x05\0\0\0\0\1\x85R.", "bytearray"),
        (b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".", "promises 1,099,511,627,776"),
        (b"\x80\x03B\xff\xff\xff\x7f.", "promises 2,147,483,647 bytes and has 1 left"),
        (b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.", "promises"),
        (b"\x80\x02)" + b"2\x86" * 40 + b"}Nr\0\0\0\x0f\x85.", ""),
    ],
)
def test_memory_is_not_taken_on_a_promise(data: bytes, message: str) -> None:
    """A pickle of a few bytes that states gigabytes; the peak stays in megabytes."""
    tracemalloc.start()
    try:
        if message:
            assert message in refusal(data)
        else:
            loads_pickle(data, "g.pkl")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


DEEP = b")" + b"2\x86" * 60  # a tuple of twice the tuple of twice ...: 2^60 of them
BUFFER = named("numpy.core.numeric", "_frombuffer")
DTYPE = named("numpy", "dtype")
ENCODE = named("_codecs", "encode")
PLAIN = DTYPE + text("b1") + b"\x85R"
LONG_TEXT = b"X" + (1 << 18).to_bytes(4, "little") + b"a" * (1 << 18)
LONG_BYTES = b"B" + (1 << 18).to_bytes(4, "little") + b"\1" * (1 << 18)


@pytest.mark.parametrize(
    "data", [b"}" + DEEP + b"Ns.", b"}(" + DEEP + b"Nu.", b"(" + DEEP + b"Nd."]
)
def test_keys_hash_at_once(data: bytes) -> None:
    assert "a tuple as a key" in refusal(b"\x80\x04" + data)


@pytest.mark.parametrize(
    "data",
    [
        BUFFER + b"(C\1a" + PLAIN + DEEP + text("C") + b"tR.",
        BUFFER + b"(C\1a" + PLAIN + b"K\1\x85" + text("K") + DEEP + b"tR.",
        DTYPE + DEEP + b"\x85R.",
        DTYPE + text("f8") + b"\x85R(K\3" + DEEP + b"NNNNNNtb.",
        ENCODE + text("a") + DEEP + b"\x86R.",
    ],
)
def test_no_message_shows_a_container(data: bytes) -> None:
    """To write it out would take for ever."""
    assert len(refusal(b"\x80\x04" + data)) < 200


MANY = b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(3000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"](" + b"]" * (1 << 20) + b"e.", "more than 1,048,576 steps"),
        (b"\x8f.", "EMPTY_SET is none that"),
        (b"}(" + MANY + b"u.", "more than 64 bits"),
        (b"Np" + str(2**61 - 1).encode() + b"\n.", "by more than"),
        (b"L0x" + b"f" * 99_999 + b"L\n.", "more than 64 bits"),
        (
            LONG_TEXT + b"q\0]" + (ENCODE + b"h\0" + text("latin1") + b"\x86Ra") * 400 + b".",
            "4 times",
        ),
        (
            LONG_BYTES + b"q\0]"
            + (BUFFER + b"(h\0" + PLAIN + number(1 << 18) + b"\x85" + text("C") + b"tRa") * 400
            + b".",
            "4 times",
        ),
        (b"](" + b"K\1" * 100 + b"et" + b"N" + ENCODE + b"(" + b"N" * 100 + b"tR.", ""),
        (BUFFER + b"(C\1a" + PLAIN + b"(" + b"K\1" * 100 + b"t" + text("C") + b"tR.", "sizes"),
    ],
)  # fmt: skip
def test_steps_and_copies_are_bounded(data: bytes, message: str) -> None:
    """Steps without end, numbers of one hash, and bytes that are copied again and again."""
    tracemalloc.start()
    try:
        assert message in refusal(b"\x80\x04" + data)
        assert tracemalloc.get_traced_memory()[1] < 128 << 20
    finally:
        tracemalloc.stop()


PARTS = (
    *(b"N", b"K\1", b"G" + bytes(8), b"]", b"}", b")", b"(", b"t", b"l", b"d", b"e", b"u", b"a"),
    *(b"s", b"2", b"0", b"1", b"\x85", b"\x86", b"\x87", b"\x94", b"h\0", b"h\1", b"q\0", b"q\1"),
    *(b"R", b"b", b"\x8f", b"\x90", b"\x91", b"\x81", b"o", text("C"), text("f8"), text("latin1")),
    *(DEEP, BUFFER, DTYPE, ENCODE, PLAIN, LONG_TEXT, LONG_BYTES, number(1 << 18)),
    *(named("numpy", "ndarray"), named("numpy.core.multiarray", "_reconstruct")),
    named("numpy.core.multiarray", "scalar"),
)  # fmt: skip


@settings(max_examples=300, deadline=5_000)
@given(st.lists(st.tuples(st.sampled_from(PARTS), st.integers(1, 50)), max_size=12))
def test_any_steps(parts: list[tuple[bytes, int]]) -> None:
    """Whatever follows what, it is read or refused at once, in little memory."""
    data = b"\x80\x04N\x94N\x94]" + b"".join(part * count for part, count in parts) + b"."
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            loads_pickle(data, "g.pkl")
        assert tracemalloc.get_traced_memory()[1] < (64 << 20) + 8 * len(data)
    finally:
        tracemalloc.stop()


def test_labels_are_text_or_numbers(tmp_path: Path) -> None:
    """An id that is a container, which could be as deep, is refused before it is written out."""
    graph = tmp_path / "adj_mx.pkl"
    graph.write_bytes(pickle.dumps(([("a",), "b"], {"b": 1}, np.eye(2, dtype=np.float32))))
    with pytest.raises(DataError, match=r"entry 0 of the sensor ids in adj_mx.pkl is a tuple"):
        read_graph(graph)


@pytest.mark.parametrize("protocol", range(6))
def test_changed_line_ends_are_named(tmp_path: Path, protocol: int) -> None:
    ids = [str(each) for each in range(30)]
    content = (ids, {each: int(each) for each in ids}, np.eye(30, dtype=np.float32))
    data = pickle.dumps(content, protocol=protocol)
    graph = tmp_path / "adj_mx.pkl"
    graph.write_bytes(data)
    assert read_graph(graph)[1] == tuple(ids)
    graph.write_bytes(data.replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match="line ends were changed from LF to CRLF"):
        read_graph(graph)
