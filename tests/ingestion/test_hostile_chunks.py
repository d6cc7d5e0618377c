"""Chunks that unpack to more or less than they should, and descriptions without an end."""

import bz2
import gzip
import json
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import DataError
from pgti.ingestion import ingest

MIB = 1 << 20
GOOD = np.arange(800.0).reshape(80, 10) + 0.25
TIMES = pd.date_range("2012-03-01", periods=80, freq="5min")


def refused(folder: Path, message: str, source: Path) -> None:
    """Check that a file is refused in one line, and that nothing is left."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match=message) as error:
        ingest(source, folder / "store")
    assert len(str(error.value).splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def plain_file(path: Path, **options: Any) -> str:
    """A dataset of readings; its name in the file."""
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=GOOD, chunks=(20, 10), **options)
    return "v"


def pandas_file(path: Path) -> str:
    frame = pd.DataFrame(GOOD, index=TIMES, columns=[f"s{node}" for node in range(10)])
    frame.to_hdf(path, key="df", format="table", complib="zlib", complevel=1)
    return "df/table"


def netcdf_file(path: Path) -> str:
    plain_file(path, compression="gzip")
    with h5py.File(path, "a") as file:
        file["time"] = np.arange(80) * 300
        file["time"].attrs["units"] = "seconds since 2012-03-01"
        file["sensor"] = np.arange(10)
        for axis, name in enumerate(("time", "sensor")):
            file[name].make_scale(name)
            file["v"].dims[axis].attach_scale(file[name])
    return "v"


def matlab_file(path: Path) -> str:
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("v", data=GOOD.T, chunks=(10, 20), compression="gzip")
        file["v"].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return "v"


def replace_chunk(path: Path, key: str, content: Callable[[bytes], bytes], mask: int = 0) -> None:
    """Write other bytes in place of the second chunk of a dataset."""
    with h5py.File(path, "a") as file:
        dataset = file[key].id
        offset = dataset.get_chunk_info(min(1, dataset.get_num_chunks() - 1)).chunk_offset
        dataset.write_direct_chunk(offset, content(dataset.read_direct_chunk(offset)[1]), mask)


LIES: dict[str, Callable[[bytes], bytes]] = {
    "short": lambda packed: zlib.compress(zlib.decompress(packed)[:-8]),
    "empty": lambda _: zlib.compress(b""),
    "long": lambda packed: zlib.compress(zlib.decompress(packed) + b"1"),
    "bomb": lambda _: zlib.compress(bytes(64 * MIB), 1),
    "cut": lambda packed: packed[:-20],
    "spoilt": lambda packed: packed[:9] + b"\xff" * 9 + packed[18:],
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.h5", lambda path: plain_file(path, compression="gzip", shuffle=True)),
        ("p.h5", pandas_file),
        ("a.nc", netcdf_file),
        ("a.mat", matlab_file),
    ],
)
def test_deflated_chunks(tmp_path: Path, name: str, make: Callable[[Path], str], lie: str) -> None:
    """HDF5 gives what its memory holds behind a chunk that is too short."""
    path = tmp_path / name
    key = make(path)
    replace_chunk(path, key, LIES[lie])
    refused(tmp_path, r"the chunk of .* should unpack to [\d,]+ bytes, and does not", path)


def packed_by(options: dict[str, Any]) -> bytes:
    """A chunk as HDF5 packs it, where it can."""
    if "allow_unknown_filter" in options:
        return b""
    with h5py.File.in_memory() as file:
        file.create_dataset("v", data=GOOD, chunks=(20, 10), **options)
        packed: bytes = file["v"].id.read_direct_chunk((0, 0))[1]
    return packed


@pytest.mark.parametrize(
    ("options", "content"),
    [
        ({"compression": "lzf"}, lambda packed: packed[:-40]),
        ({"compression": "lzf"}, lambda _: b"\x00a"),
        ({"compression": "lzf"}, lambda packed: packed * 2),
        ({"fletcher32": True}, lambda packed: packed[:-8]),
        ({"compression": "gzip", "fletcher32": True}, lambda _: zlib.compress(b"a") + b"1234"),
        (
            {"compression": 32001, "allow_unknown_filter": True},  # blosc
            lambda _: b"\2\1\0\x08" + struct.pack("<III", 8, 8, 24) + bytes(8),
        ),
    ],
)
def test_chunks_of_other_filters(
    tmp_path: Path, options: dict[str, Any], content: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", (80, 10), "f8", chunks=(20, 10), **options)
        file["v"].id.write_direct_chunk((0, 0), content(packed_by(options)))
    refused(tmp_path, "should unpack to", path)


def test_an_unpacked_chunk_that_is_short(tmp_path: Path) -> None:
    """A chunk may say that its filters were not used."""
    path = tmp_path / "a.h5"
    plain_file(path, compression="gzip")
    replace_chunk(path, "v", lambda _: b"12345678", mask=1)
    refused(tmp_path, "should unpack to", path)


@settings(max_examples=20, deadline=None)
@given(
    compression=st.sampled_from([None, "lzf", "gzip"]),
    shuffle=st.booleans(),
    fletcher32=st.booleans(),
    scaleoffset=st.sampled_from([None, 2]),
    chunks=st.tuples(st.integers(1, 80), st.integers(1, 10)),
    is_skipped=st.booleans(),
    data=st.data(),
)
def test_good_chunks_are_read(
    tmp_path_factory: pytest.TempPathFactory,
    compression: str | None,
    shuffle: bool,
    fletcher32: bool,
    scaleoffset: int | None,
    chunks: tuple[int, int],
    is_skipped: bool,
    data: st.DataObject,
) -> None:
    """Whatever filters a dataset has, and whether a chunk skips them."""
    path = tmp_path_factory.mktemp("good") / "a.h5"
    values = np.round(GOOD * data.draw(st.sampled_from([0, 1, 7])), 2)
    fletcher32 = fletcher32 and scaleoffset is None
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "v", data=values, chunks=chunks, compression=compression, shuffle=shuffle,
            fletcher32=fletcher32, scaleoffset=scaleoffset,
        )  # fmt: skip
        if is_skipped and compression == "gzip" and not (fletcher32 or shuffle or scaleoffset):
            first = np.zeros(chunks)
            part = values[: chunks[0], : chunks[1]]
            first[: len(part), : part.shape[1]] = part
            file["v"].id.write_direct_chunk((0, 0), first.tobytes(), 1)
        expected = file["v"][:]
    store = ingest(path, path.with_suffix(""), exact=True)
    np.testing.assert_array_equal(store.read(0, 80)[..., 0], expected)


@pytest.mark.parametrize("place", ["attribute", "ids"])
@pytest.mark.parametrize("size", [2**64 - 1, 2**63])
def test_a_heap_without_an_end(tmp_path: Path, place: str, size: int) -> None:
    """HDF5 never comes back from texts whose sizes lead in a circle."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = GOOD
        if place == "attribute":
            file["v"].attrs["units"] = "km/h"
        else:
            file["node_ids"] = [f"s{node}" for node in range(10)]
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + 16  # index, references, nothing, size
    content[first + 8 : first + 16] = size.to_bytes(8, "little")
    path.write_bytes(content)
    refused(tmp_path, "a.h5", path)


def test_texts_in_one_place(tmp_path: Path) -> None:
    """Each of many ids may be the same megabytes of the file."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"] = np.ones((4, 1000))
        ids = file.create_dataset("node_ids", (1000,), h5py.string_dtype())
        ids[0] = "x" * (2 * MIB)
        ids[1:] = [str(node) for node in range(999)]
        start = ids.id.get_offset()
    content = bytearray(path.read_bytes())
    content[start : start + 16_000] = content[start : start + 16] * 1000
    path.write_bytes(content)
    refused(tmp_path, "texts of 2,097,152 bytes", path)


def zarr_file(
    path: Path, packed: bytes, *, codecs: Any = (), compressor: Any = None, filters: Any = None
) -> Path:
    """A Zarr store of format 3, or of format 2 where it has a compressor or filters."""
    array = path / "v"
    array.mkdir(parents=True)
    names = ["time", "sensor"]
    if codecs:
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
        described = {
            "zarr_format": 3, "node_type": "array", "shape": [8, 3], "data_type": "float64",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 3]}},
            "chunk_key_encoding": {"name": "v2"}, "fill_value": 0.0, "dimension_names": names,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, *codecs],
        }  # fmt: skip
        (array / "zarr.json").write_text(json.dumps(described))
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        described = {
            "zarr_format": 2, "shape": [8, 3], "chunks": [8, 3], "dtype": "<f8", "fill_value": 0,
            "order": "C", "filters": filters, "compressor": compressor,
        }  # fmt: skip
        (array / ".zarray").write_text(json.dumps(described))
        (array / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": names}))
    (array / "0.0").write_bytes(packed)
    return path


ZEROS = bytes(64 * MIB)
GZIP = {"name": "gzip", "configuration": {"level": 1}}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
ZSTD_OF_8_GIB = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 8 << 30) + b"\1\0\0"
BOMBS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "gzip3": (gzip.compress(ZEROS, 1), {"codecs": [GZIP]}),
    "gzip3_crc": (gzip.compress(ZEROS, 1) + b"1234", {"codecs": [GZIP, {"name": "crc32c"}]}),
    "zstd3": (ZSTD_OF_8_GIB, {"codecs": [ZSTD]}),
    "zlib": (zlib.compress(ZEROS, 1), {"compressor": {"id": "zlib", "level": 1}}),
    "bz2": (bz2.compress(ZEROS), {"compressor": {"id": "bz2", "level": 1}}),
    "lzma": (lzma.compress(ZEROS, preset=0), {"compressor": {"id": "lzma"}}),
    "lz4": (struct.pack("<I", 1 << 31), {"compressor": {"id": "lz4"}}),
    "blosc": (
        b"\2\1\x21\x08" + struct.pack("<III", 1 << 30, 1 << 20, 16),
        {"compressor": {"id": "blosc"}},
    ),
    "filter": (zlib.compress(ZEROS, 1), {"filters": [{"id": "zlib", "level": 1}]}),
    "twice": (
        b"",
        {"compressor": {"id": "zlib", "level": 1}, "filters": [{"id": "gzip", "level": 1}]},
    ),
    "cut": (
        b"\2\1\x21\x08" + struct.pack("<III", 192, 192, 1 << 20),
        {"compressor": {"id": "blosc"}},
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_chunks_of_zarr(tmp_path: Path, kind: str) -> None:
    """A few bytes that unpack to megabytes, where the array has 192 bytes."""
    packed, options = BOMBS[kind]
    path = zarr_file(tmp_path / "a.zarr", packed, **options)
    messages = {"twice": "packed twice", "cut": "truncated"}
    refused(tmp_path, messages.get(kind, "unpacks to more than"), path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_larger_than_its_array(tmp_path: Path, version: Any) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    names: dict[str, Any] = {"dimension_names": ("time", "sensor")}
    if version == 2:
        names = {"attributes": {"_ARRAY_DIMENSIONS": ["time", "sensor"]}}
    group.create_array("v", shape=(8, 3), chunks=(10**6, 10**3), dtype="f8", **names)
    refused(tmp_path, r"has the shape \(8, 3\) and is stored in chunks", tmp_path / "a.zarr")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", (8, 3), "f8", chunks=(1 << 20, 64), maxshape=(None, None))
    refused(tmp_path, r"has the shape \(8, 3\) and is stored in chunks", tmp_path / "a.h5")


@pytest.mark.parametrize("version", ["4", "5"])
def test_numbers_that_matlab_promises(tmp_path: Path, version: Any) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"v": GOOD}, format=version)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<2i", 80, 10), struct.pack("<2i", 80, 1 << 26)))
    refused(tmp_path, r"promises \(80, 67108864\) numbers of v", path)
