"""Files that promise more than they hold, or hold more than they need: refused before it is read.

Each is one line, in little memory, and leaves nothing.
"""

import contextlib
import gzip
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy_format
from pyarrow import feather

from pgti.errors import ConfigError, DataError, PgtiError, StoreError
from pgti.ingestion import ingest
from pgti.ingestion.arrays import npy
from pgti.ingestion.tables import text_files

MIB = 1 << 20
GOOD = np.arange(24.0).reshape(8, 3)
TERA = 10**12


def header(shape: tuple[int, ...], dtype: str, *, fortran: bool = False) -> bytes:
    """The header of an `.npy` file."""
    file = io.BytesIO()
    described = {"descr": dtype, "fortran_order": fortran, "shape": shape}
    npy_format.write_array_header_1_0(file, described)
    return file.getvalue()


def sparse(path: Path, shape: tuple[int, ...], dtype: str = "<f4", **options: bool) -> Path:
    """An `.npy` file of zeros, none of which takes room on the disk."""
    size = np.dtype(dtype).itemsize
    for length in shape:
        size *= length
    with path.open("wb") as file:
        file.write(header(shape, dtype, **options))
        file.truncate(file.tell() + size)
    return path


def bomb(path: Path, **members: tuple[tuple[int, ...], str]) -> Path:
    """An archive of arrays of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, (shape, dtype) in members.items():
            left = int(np.prod(shape)) * np.dtype(dtype).itemsize
            with archive.open(f"{key}.npy", "w") as file:
                file.write(header(shape, dtype))
                for first in range(0, left, MIB):
                    file.write(bytes(min(MIB, left - first)))
    return path


def hdf5(path: Path, key: str, shape: tuple[int, ...], dtype: str, **options: Any) -> Path:
    """An HDF5 file of readings, and a dataset of which one chunk was written."""
    with h5py.File(path, "w") as file:
        if key != "readings":
            file["readings"] = GOOD
        first = (0,) * len(shape)
        file.create_dataset(key, shape, dtype, chunks=True, **options)[first] = 1
    return path


def shorter_table(path: Path) -> Path:
    """A table that pandas wrote, with five of its eight rows."""
    index = pd.date_range("2012-03-01", periods=8, freq="5min")
    pd.DataFrame(GOOD, index=index, columns=["a", "b", "c"]).to_hdf(path, key="df")
    with h5py.File(path, "a") as file:
        values, attributes = file["df/block0_values"], file["df/block0_values"].attrs
        kept, described = values[:5], dict(attributes)
        del file["df/block0_values"]
        file["df/block0_values"] = kept
        file["df/block0_values"].attrs.update(described)
    return path


def long_text(num_bytes: int, *, dictionary: bool) -> pa.Table:
    """A long table, one of whose ids is long, in 500 rows."""
    ids = pa.array(["x" * num_bytes, "b"])
    column = pa.DictionaryArray.from_arrays(pa.array(np.arange(1000, dtype=np.int32) % 2), ids)
    times = np.repeat(np.arange(500) * 300_000, 2)
    return pa.table(
        {
            "time": pa.array(times, pa.timestamp("ms")),
            "sensor": column if dictionary else pa.array((["x" * num_bytes, "b"] * 20)[:40] * 25),
            "speed": np.arange(1000.0),
        }
    )


def parquet(path: Path, table: pa.Table, **damage: bytes) -> Path:
    """A Parquet file, and bytes in place of its magic ones."""
    pq.write_table(table, path)
    content = path.read_bytes()
    content = damage.get("first", content[:4]) + content[4:-4] + damage.get("last", content[-4:])
    path.write_bytes(content)
    return path


def arrow(path: Path, table: pa.Table) -> Path:
    feather.write_feather(table, path, compression="zstd")
    return path


def written(path: Path, content: bytes | str) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


LONG = long_text(MIB, dictionary=True)
READINGS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "rows": ("a.npy", lambda path: sparse(path, (TERA, 3)), "would take .* are free on its disk"),
    "fortran": ("a.npy", lambda path: sparse(path, (TERA, 3), fortran=True), "would take"),
    "row": ("a.npy", lambda path: sparse(path, (2, TERA)), "for one row"),
    "no_memory": ("a.npy", lambda path: written(path, header((2**62, 2**62), "<f4")), "one row"),
    "bool": ("a.npy", lambda path: sparse(path, (8, 3), "|b1"), "holds bool"),
    "ids": (
        "a.npz",
        lambda path: bomb(path, values=((8, 4), "<f4"), node_ids=((4,), "<U4000000")),
        "ids of 16,000,000 bytes",
    ),
    "places": (
        "a.npz",
        lambda path: bomb(
            path, values=((8, 4), "<f4"), lat=((4,), "<U4000000"), lon=((4,), "<U4000000")
        ),
        "coordinates are numbers",
    ),
    "hdf5_rows": ("a.h5", lambda path: hdf5(path, "readings", (TERA, 3), "f4"), "would take"),
    "hdf5_row": ("a.h5", lambda path: hdf5(path, "readings", (3, TERA), "f4"), "for one row"),
    "hdf5_ids": (
        "a.h5",
        lambda path: hdf5(path, "node_ids", (3,), "S90000000", compression="gzip"),
        "ids of 90,000,000 bytes",
    ),
    "hdf5_short": ("a.h5", shorter_table, "has 8 times and block0 of it 5 rows"),
    "parquet_dictionary": ("a.parquet", lambda path: parquet(path, LONG), "text of 1,048,576"),
    "parquet_text": (
        "a.parquet",
        lambda path: parquet(path, long_text(MIB // 8, dictionary=False)),
        "text of 131,072 bytes",
    ),
    "arrow": ("a.feather", lambda path: arrow(path, LONG), "text of 1,048,576 bytes"),
    "parquet_first": ("a.parquet", lambda path: parquet(path, LONG, first=b"XXXX"), "begin"),
    "parquet_last": ("a.parquet", lambda path: parquet(path, LONG, last=b"XXXX"), "magic"),
    "json_bomb": ("a.json.gz", lambda path: written(path, b" " * (4 * MIB)), "more than 1 MiB"),
    "json_deep": ("a.json", lambda path: written(path, "[" * 100_000), "recursion"),
    "json_number": ("a.json", lambda path: written(path, "[" + "1" * 5_000), "digits"),
    "json_node": (
        "a.json",
        lambda path: written(path, json.dumps({"edges": [[0, 9]], "FX": [[1, 2]] * 3})),
        "'9' is not among",
    ),
    "text_line": ("a.csv.gz", lambda path: written(path, b"a,b\n" + b"1" * (65 * MIB)), "64 MiB"),
}
GRAPHS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "matrix": ("g.npy", lambda path: sparse(path, (300_000, 300_000)), "is read whole"),
    "member": ("g.npz", lambda path: bomb(path, adj=((4000, 4000), "<f4")), "is read whole"),
    "edges": ("g.npz", lambda path: bomb(path, edge_index=((2, 400_000), "<i4")), "read whole"),
    "layout": (
        "g.npz",
        lambda path: bomb(
            path,
            indptr=((4,), "<i4"),
            indices=((0,), "<i4"),
            data=((0,), "<f4"),
            format=((), "<U8000000"),
        ),
        "texts of 32,000,000 bytes",
    ),
    "market": (
        "g.mtx",
        lambda path: written(path, "%%MatrixMarket matrix coordinate real general\n9 9 99999999"),
        "promises",
    ),
    "points": ("g.geojson", lambda path: written(path, b" " * (4 * MIB)), "more than 1 MiB"),
    "points_deep": ("g.geojson", lambda path: written(path, '{"a":' * 100_000), "recursion"),
    "pickle_bytes": ("g.pkl", lambda path: written(path, b"\x80\x05\x96" + b"\xff" * 8), "promise"),
    "pickle_memo": ("g.pkl", lambda path: written(path, b"Nr\xff\xff\xff\xff."), "NoneType"),
}


def refused(folder: Path, message: str, source: Any, **options: Any) -> None:
    """Check that a source is refused in one line, within 80 MiB, and that nothing is left."""
    before = sorted(folder.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises((DataError, StoreError), match=message) as error:
            ingest(source, folder / "store", **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(error.value).splitlines()) == 1
    assert sorted(folder.rglob("*")) == before
    assert peak < 80 * MIB or "MiB: break" in str(error.value)


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that small files exceed."""
    monkeypatch.setattr(npy, "available_bytes", lambda: 64 * MIB)
    monkeypatch.setattr(text_files, "_MAX_JSON_BYTES", MIB)


@pytest.mark.parametrize(("name", "make", "message"), READINGS.values(), ids=READINGS)
def test_readings(tmp_path: Path, name: str, make: Callable[[Path], Path], message: str) -> None:
    """Readings that would fill the memory or the disk, or are damaged."""
    refused(tmp_path, message, make(tmp_path / name))


@pytest.mark.parametrize(("name", "make", "message"), GRAPHS.values(), ids=GRAPHS)
def test_graphs(tmp_path: Path, name: str, make: Callable[[Path], Path], message: str) -> None:
    """Graphs that would fill the memory."""
    refused(tmp_path, message, GOOD, graph=make(tmp_path / name))


@pytest.mark.parametrize("compressed", [False, True])
def test_types_of_matlab(tmp_path: Path, compressed: bool) -> None:
    """SciPy takes a type that does not exist for a place in its memory, which ends the process."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"v": GOOD})
    plain = bytearray(path.read_bytes())
    for kind in (0, 8, 10, 11, 14, 15, 16, 19, 40, 255):
        plain[176] = kind  # of the element of its numbers
        content = bytes(plain)
        if compressed:
            packed = zlib.compress(content[128:])
            content = content[:128] + struct.pack("<2I", 15, len(packed)) + packed
        path.write_bytes(content)
        refused(tmp_path, f"type {kind}, which is none", path)
    plain[176], plain[145] = 9, 8  # complex, without imaginary parts
    path.write_bytes(plain)
    refused(tmp_path, "v of a.mat holds complex numbers", path)


def test_an_empty_format(tmp_path: Path) -> None:
    """It is none, and was left out without a word."""
    with pytest.raises(ConfigError, match="time_format is empty: write a format"):
        ingest(GOOD, tmp_path / "store", time_format="")


@pytest.mark.parametrize("fortran", [False, True])
def test_fortran_order_takes_no_more(tmp_path: Path, fortran: bool) -> None:
    """A file in Fortran order is arranged on the disk, and never read whole."""
    values = np.arange(8_000_000, dtype=np.float32).reshape(80_000, 100)
    np.save(tmp_path / "a.npy", np.asfortranarray(values) if fortran else values)
    tracemalloc.start()
    try:
        store = ingest(tmp_path / "a.npy", tmp_path / "store", budget_bytes=2 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB  # the file has 30
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(store.read(0, len(values))[..., 0], values)


SPOILT = header((8, 3), "<f8") + GOOD.tobytes()
PLACES = range(10, SPOILT.index(b"\n") + 1)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES), st.sampled_from(b"(){}[]'\",:0\\#\n\0\xff"))
def test_a_damaged_header(tmp_path: Path, place: int, letter: int) -> None:
    """NumPy parses headers as Python, and raises what its parser does."""
    path = tmp_path / "a.npy"
    path.write_bytes(SPOILT[:place] + bytes([letter]) + SPOILT[place + 1 :])
    with contextlib.suppress(PgtiError):
        ingest(path, tmp_path / "store", overwrite=True)


@pytest.mark.parametrize("kind", ["external", "virtual"])
@pytest.mark.parametrize("is_there", [True, False])
def test_numbers_in_other_files(tmp_path: Path, kind: str, is_there: bool) -> None:
    """External storage and virtual datasets name any file, which need not be there."""
    other, path = tmp_path / "secret", tmp_path / "a.h5"
    if is_there:
        other.write_bytes(GOOD.tobytes())
    with h5py.File(path, "w") as file:
        if kind == "external":
            file.create_dataset("v", (8, 3), "f8", external=[(str(other), 0, 192)])
        else:
            layout = h5py.VirtualLayout((8, 3), "f8")
            layout[:] = h5py.VirtualSource(str(other), "v", (8, 3))
            file.create_virtual_dataset("v", layout)
    refused(tmp_path, "has its numbers in other files .*secret.*: give those files", path)
