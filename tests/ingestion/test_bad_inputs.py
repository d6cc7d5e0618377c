"""Bad inputs: each gives one clear line that names the offending value, and leaves nothing."""

import gzip
import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgti.errors import ConfigError, DataError, PgtiError, StoreError
from pgti.ingestion import IngestOptions, ingest

Case = tuple[Any, dict[str, Any], Any]
GOOD = np.arange(24, dtype=np.float64).reshape(8, 3) + 0.5
TIMES = pd.date_range("2012-03-01", periods=8, freq="5min")


def saved(path: Path, array: np.ndarray, **options: Any) -> Path:
    """An array in an `.npy` file."""
    np.save(path, array, **options)
    return path


def text(path: Path, content: str) -> Path:
    """A text file."""
    path.write_text(content, encoding="utf-8")
    return path


def cut(path: Path, keep: float) -> Path:
    """The file without its end."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def archive(path: Path, **arrays: np.ndarray) -> Path:
    """Arrays in a compressed `.npz` file."""
    np.savez_compressed(path, **arrays)
    return path


def noise(*shape: int) -> np.ndarray:
    """Numbers that do not compress, so that a cut goes through them."""
    return np.random.default_rng(0).normal(size=shape)


def dated(order: list[int]) -> pd.DataFrame:
    """Rows of good readings at the given multiples of five minutes."""
    frame = pd.DataFrame(GOOD[: len(order)], columns=["a", "b", "c"])
    frame.index = TIMES[0] + pd.to_timedelta(np.array(order) * 5, unit="min")
    return frame


def frame_csv(path: Path, order: list[int]) -> Path:
    """The same as a CSV file."""
    dated(order).to_csv(path)
    return path


def hdf5(path: Path, layout: str = "fixed") -> Path:
    """Good readings in an HDF5 file."""
    pytest.importorskip("tables", reason="PyTables is not installed")
    pd.DataFrame(noise(500, 40), columns=[f"s{i}" for i in range(40)]).to_hdf(
        path, key="df", format=layout
    )
    return path


def two_tables(path: Path) -> Path:
    """Two tables in an HDF5 file."""
    hdf5(path)
    dated([0, 1, 2]).to_hdf(path, key="speed")
    return path


def parquet(path: Path, frame: pd.DataFrame) -> Path:
    """A Parquet file."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame.to_parquet(path)
    return path


def with_value(value: float) -> np.ndarray:
    """Good readings but one."""
    values = GOOD.copy()
    values[4, 1] = value
    return values


class Malicious:
    """A pickle of it runs a command when it is read by `pickle.load`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        """What the unpickler is to call."""
        return os.system, (f"touch {self.marker}",)


def pickled(path: Path, content: Any) -> Path:
    """A pickle file."""
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def adjacency(ids: list[str], matrix: np.ndarray) -> tuple[list[str], dict[str, int], np.ndarray]:
    """DCRNN's triple."""
    return ids, {label: place for place, label in enumerate(ids)}, matrix


def edges(path: Path, *rows: str) -> Path:
    """An edge list."""
    return text(path, "\n".join(["from,to,weight", *rows]))


def matrix_with(value: float) -> np.ndarray:
    """A good adjacency matrix but for one weight."""
    matrix = np.eye(3)
    matrix[1, 2] = value
    return matrix


def raw_npz(path: Path, header: bytes, body: bytes) -> Path:
    """An archive whose one member has the header given."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("speed.npy", header + body)
    return path


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The header of a float64 array."""
    buffer = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


# name: (folder -> (source, options, graph), fragments of the message)
CASES: dict[str, tuple[Callable[[Path], Case], tuple[str, ...]]] = {
    "no such file": (lambda d: (d / "none.npy", {}, None), ("none.npy", "does not exist")),
    "a directory": (lambda d: (d, {}, None), ("holds no file of readings", "pattern")),
    "unknown suffix": (lambda d: (text(d / "a.sav", "x"), {}, None), (".sav", ".parquet")),
    "workbook": (lambda d: (text(d / "a.xlsx", "x"), {}, None), ("a.xlsx", "as CSV")),
    "truncated npy": (
        lambda d: (cut(saved(d / "a.npy", GOOD), 0.7), {}, None),
        ("a.npy is truncated", "224 bytes", "320"),
    ),
    "truncated npy header": (
        lambda d: (cut(saved(d / "a.npy", GOOD), 0.1), {}, None),
        ("a.npy cannot be read as a NumPy array",),
    ),
    "empty npy": (lambda d: (text(d / "a.npy", ""), {}, None), ("a.npy is empty (0 bytes)",)),
    "npy that is text": (lambda d: (text(d / "a.npy", "1,2\n" * 99), {}, None), ("a.npy",)),
    "truncated npz": (
        lambda d: (cut(archive(d / "a.npz", v=noise(50, 9)), 0.6), {}, None),
        ("a.npz cannot be read as an npz archive",),
    ),
    "npz member shorter than it says": (
        lambda d: (raw_npz(d / "a.npz", npy_header((10**9, 300)), b"\0" * 80), {}, None),
        ("speed of a.npz is truncated", "(1000000000, 300)"),
    ),
    "npz with a flipped byte": (
        lambda d: (flipped(archive(d / "a.npz", v=noise(50, 9))), {}, None),
        ("a.npz cannot be read",),
    ),
    "unknown npz key": (
        lambda d: (archive(d / "a.npz", v=GOOD), {"values": ("speed",)}, None),
        ("'speed'", "v (8, 3)"),
    ),
    "several npz keys": (
        lambda d: (archive(d / "a.npz", v=GOOD, w=GOOD), {}, None),
        ("v (8, 3), w (8, 3)",),
    ),
    "no npz key": (
        lambda d: (archive(d / "a.npz", v=GOOD[0]), {}, None),
        ("no array that could be meant", "v float64 (3,)"),
    ),
    "channels of different shapes": (
        lambda d: (archive(d / "a.npz", v=GOOD, w=GOOD[1:]), {"values": ("v", "w")}, None),
        ("7 x 3", "8 x 3"),
    ),
    "one axis": (lambda d: (saved(d / "a.npy", GOOD[0]), {}, None), ("(3,)", "1-D")),
    "four axes": (
        lambda d: (saved(d / "a.npy", np.ones((2, 2, 2, 2))), {}, None),
        ("(2, 2, 2, 2)", "4-D"),
    ),
    "objects": (
        lambda d: (
            saved(d / "a.npy", np.array([[1, "x"], [2, None]], dtype=object), allow_pickle=True),
            {},
            None,
        ),
        ("object", "never unpickled"),
    ),
    "words": (lambda d: (saved(d / "a.npy", np.array([["a"], ["b"]])), {}, None), ("<U1",)),
    "no rows": (lambda d: (saved(d / "a.npy", GOOD[:0]), {}, None), ("(0, 3)", "no rows")),
    "no sensors": (lambda d: (saved(d / "a.npy", GOOD[:, :0]), {}, None), ("(8, 0)", "no sensors")),
    "all missing": (
        lambda d: (saved(d / "a.npy", np.full((5, 3), -1.0)), {"missing": (-1.0,)}, None),
        ("missing",),
    ),
    "infinite": (
        lambda d: (saved(d / "a.npy", with_value(np.inf)), {"budget_bytes": 1}, None),
        ("1 infinite", "inf", "row 4", "'1'"),
    ),
    "beyond float32": (lambda d: (saved(d / "a.npy", with_value(1e300)), {}, None), ("infinite",)),
    "too many channels named": (
        lambda d: (saved(d / "a.npy", GOOD), {"channels": ("a", "b")}, None),
        ("channels has 2 values", "a, b", "has 1"),
    ),
    "too many scales": (
        lambda d: (saved(d / "a.npy", GOOD), {"scale": (1.0, 0.1)}, None),
        ("scale has 2 values", "1.0, 0.1"),
    ),
    "too many units": (
        lambda d: (saved(d / "a.npy", GOOD), {"units": ("mph", "veh")}, None),
        ("units has 2 values", "mph, veh"),
    ),
    "values of a format without names": (
        lambda d: (saved(d / "a.npy", GOOD), {"values": ("speed",)}, None),
        ("('speed',)", ".npy"),
    ),
    "a header of an array": (lambda _: (GOOD, {"header": True}, None), ("header is True",)),
    "empty csv": (lambda d: (text(d / "a.csv", ""), {}, None), ("a.csv is empty",)),
    "csv of a header": (lambda d: (text(d / "a.csv", "a,b\n"), {}, None), ("header and no rows",)),
    "csv cut in a line": (
        lambda d: (text(d / "a.csv", "a,b,c\n1,2,3\n4,5"), {}, None),
        ("line 3 of a.csv has 2 cells", "3"),
    ),
    "long csv line": (
        lambda d: (text(d / "a.csv", "a,b\n1.5,2\n3,4,5\n6,7\n"), {}, None),
        ("line 3 of a.csv has 3 cells", "2"),
    ),
    "empty csv line": (
        lambda d: (text(d / "a.csv", "a,b\n1.5,2\n\n6,7\n"), {}, None),
        ("line 3 of a.csv is empty",),
    ),
    "word in csv": (
        lambda d: (
            text(d / "a.csv", "x1,x2\n" + "1.5,2\n" * 50 + "3,abc\n1,2\n"),
            {"budget_bytes": 1},
            None,
        ),
        ("line 52, column 2 (x2)", "'abc'"),
    ),
    "bytes in csv": (lambda d: (npz_as_csv(d / "a.csv"), {}, None), ("a.csv",)),
    "truncated gzip": (
        lambda d: (cut(gzipped(d / "a.csv.gz"), 0.5), {}, None),
        ("a.csv.gz cannot be read",),
    ),
    "csv with a bad time": (
        lambda d: (text(d / "a.csv", "t,a\n2012-03-01,1\n2012-03-32,2\n"), {}, None),
        ("line 3", "'2012-03-32'"),
    ),
    "duplicate times": (
        lambda d: (frame_csv(d / "a.csv", [0, 1, 1, 2]), {}, None),
        ("line 3 and line 4", "2012-03-01T00:05:00"),
    ),
    "unsorted times": (
        lambda d: (frame_csv(d / "a.csv", [0, 1, 2, 1]), {"budget_bytes": 1}, None),
        ("line 4 and line 5", "2012-03-01T00:10:00", "2012-03-01T00:05:00", "sort"),
    ),
    "a gap": (
        lambda d: (frame_csv(d / "a.csv", [0, 1, 2, 5]), {}, None),
        ("line 4", "line 5", "T00:10:00", "T00:25:00", "the source lacks 2 rows"),
    ),
    "a gap of a century": (
        lambda d: (frame_csv(d / "a.csv", [0, 1, 2, 10_519_200]), {"gaps": "fill"}, None),
        ("2112-", "10,519,197 rows"),
    ),
    "gaps without times": (
        lambda d: (saved(d / "a.npy", GOOD), {"gaps": "fill"}, None),
        ("'fill'", "no times"),
    ),
    "start without interval": (
        lambda d: (saved(d / "a.npy", GOOD), {"start": "2012-03-01"}, None),
        ("2012-03-01", "interval"),
    ),
    "a time the clocks skip": (
        lambda _: (
            dated([0, 1, 2]).set_axis(
                pd.to_datetime(["2025-03-09 01:00", "2025-03-09 02:00", "2025-03-09 03:00"])
            ),
            {"time_zone": "America/Los_Angeles"},
            None,
        ),
        ("row 1", "2025-03-09T02:00:00", "America/Los_Angeles"),
    ),
    "a frame of words": (
        lambda _: (pd.DataFrame({"a": [1.0], "b": ["x"]}), {}, None),
        ("column 2 (b)", "'x'", "ignore=('b',)"),
    ),
    "two sensors of one id": (
        lambda d: (text(d / "a.csv", "a,b,a\n1,2,3\n"), {}, None),
        ("'a'", "twice"),
    ),
    "truncated h5": (lambda d: (cut(hdf5(d / "a.h5"), 0.5), {}, None), ("a.h5 cannot be read",)),
    "h5 that is text": (lambda d: (text(d / "a.h5", "x" * 99), {}, None), ("a.h5 cannot be read",)),
    "several h5 keys": (lambda d: (two_tables(d / "a.h5"), {}, None), ("df", "speed")),
    "unknown h5 key": (
        lambda d: (hdf5(d / "a.h5", "table"), {"values": ("t",)}, None),
        ("'t'", "df"),
    ),
    "truncated parquet": (
        lambda d: (cut(parquet(d / "a.parquet", dated([0, 1])), 0.5), {}, None),
        ("a.parquet cannot be read",),
    ),
    "parquet of words": (
        lambda d: (
            parquet(d / "a.parquet", pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})),
            {},
            None,
        ),
        ("column 2 (b)", "'x'", "ignore=('b',)"),
    ),
    "json that is cut": (lambda d: (text(d / "a.json", '{"FX": [[1, 2'), {}, None), ("a.json",)),
    "json of something else": (
        lambda d: (text(d / "a.json", '{"type": "FeatureCollection"}'), {}, None),
        ("keys type",),
    ),
    "json of ragged rows": (
        lambda d: (text(d / "a.json", '{"edges": [[0, 1]], "FX": [[1, 2], [3]]}'), {}, None),
        ("a.json",),
    ),
    "json edge to no node": (
        lambda d: (text(d / "a.json", '{"edges": [[0, 7]], "FX": [[1, 2], [3, 4]]}'), {}, None),
        ("'7'", "2 sensors"),
    ),
    "malicious pickle": (
        lambda d: (GOOD, {}, pickled(d / "a.pkl", Malicious(d / "run"))),
        ("a.pkl", "system"),
    ),
    "malicious object in a list": (
        lambda d: (GOOD, {}, pickled(d / "a.pkl", (["a"], {"a": 0}, [Malicious(d / "run")]))),
        ("a.pkl", "system"),
    ),
    "truncated pickle": (
        lambda d: (GOOD, {}, cut(pickled(d / "a.pkl", adjacency(["a"], np.eye(3))), 0.8)),
        ("a.pkl",),
    ),
    "pickle of something else": (
        lambda d: (GOOD, {}, pickled(d / "a.pkl", {"a": 1})),
        ("a.pkl holds a dict",),
    ),
    "matrix that is not square": (
        lambda d: (GOOD, {}, saved(d / "g.npy", np.ones((3, 2)))),
        ("(3, 2)", "square"),
    ),
    "matrix of another size": (
        lambda d: (GOOD, {}, saved(d / "g.npy", np.eye(4))),
        ("4 nodes", "3 sensors"),
    ),
    "truncated matrix": (
        lambda d: (GOOD, {}, cut(saved(d / "g.npy", np.eye(3)), 0.8)),
        ("g.npy is truncated",),
    ),
    "negative weight": (
        lambda d: (GOOD, {}, saved(d / "g.npy", matrix_with(-0.25))),
        ("1", "2", "-0.25"),
    ),
    "NaN weight": (lambda d: (GOOD, {}, saved(d / "g.npy", matrix_with(np.nan))), ("nan",)),
    "infinite weight": (lambda d: (GOOD, {}, saved(d / "g.npy", matrix_with(np.inf))), ("inf",)),
    "edge to no node": (
        lambda d: (GOOD, {}, edges(d / "g.csv", "0,1,1", "1,99,1")),
        ("line 3", "1 -> 99", "no node"),
    ),
    "edge twice with two weights": (
        lambda d: (GOOD, {}, edges(d / "g.csv", "0,1,1", "0,1,2")),
        ("0 -> 1", "1.0", "2.0"),
    ),
    "NaN in an edge list": (
        lambda d: (GOOD, {}, edges(d / "g.csv", "0,1,nan")),
        ("0 -> 1", "nan"),
    ),
    "word as a weight": (
        lambda d: (GOOD, {}, edges(d / "g.csv", "0,1,1", "1,2,far")),
        ("line 3, column 3", "'far'"),
    ),
    "ragged edge list": (
        lambda d: (GOOD, {}, edges(d / "g.csv", "0,1,1", "1,2")),
        ("line 3 of g.csv has 2 cells",),
    ),
    "ids that do not match": (
        lambda d: (
            dated([0, 1]),
            {},
            pickled(d / "a.pkl", adjacency(["a", "b", "z"], np.eye(3))),
        ),
        ("'c'", "'z'"),
    ),
    "CSR arrays that do not fit": (
        lambda d: (
            GOOD,
            {},
            archive(
                d / "g.npz",
                indptr=np.array([0, 1, 1, 2]),
                indices=np.array([0, 5]),
                data=np.ones(2),
            ),
        ),
        ("is 5", "no node"),
    ),
    "edges of unequal length": (
        lambda d: (
            archive(d / "a.npz", v=GOOD, s=np.arange(2), t=np.arange(1)),
            {"edges": ("s", "t")},
            None,
        ),
        ("(2,)", "(1,)"),
    ),
    "edges from nowhere": (
        lambda d: (saved(d / "a.npy", GOOD), {"edges": ("s", "t")}, None),
        ("'s', 't'", ".npy cannot use"),
    ),
    "coordinates out of range": (
        lambda d: (
            GOOD,
            {"neighbours": 1},
            text(d / "g.csv", "id,lat,lon\n0,34,-118\n1,95,-118\n2,34,-117\n"),
        ),
        ("95",),
    ),
    "damaged SciPy matrix": (
        lambda d: (GOOD, {}, scipy_archive(d / "g.npz", indptr=[0, 10**7, 2, 3])),
        ("g.npz", "indptr must rise"),
    ),
    "SciPy matrix of no entries with wild pointers": (
        lambda d: (GOOD, {}, scipy_archive(d / "g.npz", indptr=[0, 10**7, 0, 0])),
        ("g.npz", "indptr must rise"),
    ),
    "SciPy matrix that leads out of itself": (
        lambda d: (GOOD, {}, scipy_archive(d / "g.npz", indices=[-5, 1, 2])),
        ("is -5", "no node"),
    ),
    "SciPy matrix in another layout": (
        lambda d: (GOOD, {}, scipy_archive(d / "g.npz", format=np.array(b"bsr"))),
        ("'bsr'", "tocsr"),
    ),
    "edges named by one column of a csv": (
        lambda d: (GOOD, {"edges": ("from",)}, edges(d / "g.csv", "0,1,1")),
        ("(from)", "source,target"),
    ),
    "a cell as long as a book": (
        lambda d: (text(d / "a.csv", "x" * 200_000 + "\n1\n2\n"), {}, None),
        ("a.csv", "field limit"),
    ),
    "a cell as long as a book in an edge list": (
        lambda d: (GOOD, {}, text(d / "g.csv", "from,to\n" + "x" * 200_000 + ",1\n")),
        ("g.csv", "field limit"),
    ),
    "damaged LZMA": (lambda d: (damaged_lzma(d / "a.npz"), {}, None), ("a.npz cannot be read",)),
    "json links that are numbers": (
        lambda d: (text(d / "a.json", '{"nodes": [{"id": 1, "y": [1]}], "links": [1]}'), {}, None),
        ("entry 0 of links", "is 1"),
    ),
    "epoch time between seconds": (
        lambda d: (text(d / "a.csv", "time,a\n1700000000,1\n1700000300.5,2\n"), {}, None),
        ("line 3", "1700000300.5", "whole seconds"),
    ),
    "infinite epoch time": (
        lambda d: (text(d / "a.csv", "time,a\n1700000000,1\ninf,2\n"), {}, None),
        ("line 3", "inf"),
    ),
    "epoch time in another unit": (
        lambda d: (text(d / "a.csv", "time,a\n1700000000,1\n1e18,2\n"), {}, None),
        ("line 3", "1e18", "number of s"),
    ),
    "a time of the year 20270": (
        lambda _: (
            dated([0, 1]).set_axis(np.array(["2024", "20270"], dtype="datetime64[s]")),
            {},
            None,
        ),
        ("row 1", "years 1 to 9999"),
    ),
    "rows beyond the year 9999": (
        lambda d: (saved(d / "a.npy", GOOD), {"start": "9999-12-01", "interval": "9d"}, None),
        ("9999-12-01", "9d"),
    ),
    "two levels of columns in a table": (
        lambda d: (two_levels(d / "a.h5"), {}, None),
        ("3 columns for 3 sensors and 2 channels",),
    ),
    "two levels of columns in parquet": (
        lambda d: (two_levels(d / "a.parquet"), {}, None),
        ("3 columns for 3 sensors and 2 channels",),
    ),
    "an empty frame in h5": (lambda d: (empty_hdf5(d / "a.h5"), {}, None), ("no rows",)),
    "several matrices": (
        lambda d: (GOOD, {}, archive(d / "g.npz", a=np.eye(3), b=np.eye(3))),
        ("2 square matrices", "a (3, 3), b (3, 3)"),
    ),
    "a delimiter of an archive": (
        lambda d: (archive(d / "a.npz", v=GOOD), {"delimiter": ";"}, None),
        ("delimiter is ';'", ".npz cannot use"),
    ),
    "edges of a matrix file": (
        lambda d: (GOOD, {"edges": ("a", "b")}, saved(d / "g.npy", np.eye(3))),
        ("edges is ('a', 'b')", ".npy cannot use"),
    ),
    "neighbours of a matrix file": (
        lambda d: (GOOD, {"neighbours": 3}, saved(d / "g.npy", np.eye(3))),
        ("neighbours is 3", ".npy cannot use"),
    ),
    "neighbours of an edge list": (
        lambda d: (GOOD, {"neighbours": 3}, edges(d / "g.csv", "0,1,1")),
        ("neighbours is 3", "g.csv holds edges"),
    ),
    "ids of a csv": (
        lambda d: (text(d / "a.csv", "a,b\n1.5,2\n"), {"ids": "station"}, None),
        ("ids is 'station'", ".csv cannot use"),
    ),
    "ids that a graph does not have": (
        lambda d: (
            GOOD,
            {"ids": "station"},
            archive(d / "g.npz", a=np.eye(3), sensor_id=[1, 2, 3]),
        ),
        ("'station'", "no such array"),
    ),
    "graph of an unknown suffix": (lambda d: (GOOD, {}, text(d / "g.gv", "x")), (".gml", ".npz")),
}


def scipy_archive(path: Path, **changed: Any) -> Path:
    """A sparse unit matrix as SciPy writes it, with changed arrays."""
    arrays = {
        "indptr": np.array([0, 1, 2, 3]),
        "indices": np.arange(3),
        "data": np.ones(3),
        "shape": np.array([3, 3]),
        "format": np.array(b"csr"),
    }
    if "indptr" in changed and changed["indptr"][-1] == 0:
        arrays |= {"indices": np.arange(0), "data": np.ones(0)}
    return archive(path, **arrays | {key: np.asarray(value) for key, value in changed.items()})


def damaged_lzma(path: Path) -> Path:
    """An archive compressed with LZMA, with some bytes changed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("v.npy", npy_header((50, 9)) + noise(50, 9).tobytes())
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)
    return path


def two_levels(path: Path) -> Path:
    """A table whose columns are (sensor, channel)."""
    pairs = [("a", "speed"), ("b", "speed"), ("c", "flow")]
    frame = dated([0, 1]).set_axis(
        pd.MultiIndex.from_tuples(pairs, names=["sensor", "channel"]), axis=1
    )
    if path.suffix == ".parquet":
        return parquet(path, frame)
    pytest.importorskip("tables", reason="PyTables is not installed")
    frame.to_hdf(path, key="df", format="table")
    return path


def empty_hdf5(path: Path) -> Path:
    """A DataFrame without rows, as pandas writes it."""
    pytest.importorskip("tables", reason="PyTables is not installed")
    dated([]).to_hdf(path, key="df")
    return path


def flipped(path: Path) -> Path:
    """The file with one byte of its data changed."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    return path


def npz_as_csv(path: Path) -> Path:
    """An archive under a wrong suffix."""
    archive(path.with_suffix(".npz"), v=GOOD)
    return path.with_suffix(".npz").rename(path)


def gzipped(path: Path) -> Path:
    """A compressed CSV file."""
    rows = "\n".join(",".join(map(str, row)) for row in noise(200, 5))
    path.write_bytes(gzip.compress(rows.encode()))
    return path


def listing(folder: Path) -> list[str]:
    """Every file and directory below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", CASES)
def test_bad_input(tmp_path: Path, name: str) -> None:
    """One line that names the value; the target's parent stays as it was."""
    make, fragments = CASES[name]
    sources, outputs = tmp_path / "in", tmp_path / "out"
    sources.mkdir()
    outputs.mkdir()
    source, options, graph = make(sources)
    before = listing(tmp_path)
    with pytest.raises((DataError, ConfigError, StoreError)) as caught:
        ingest(source, outputs / "new" / "store", IngestOptions(**options), graph=graph)
    message = str(caught.value)
    assert "\n" not in message
    assert all(fragment in message for fragment in fragments), message
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"interval": "5 parsecs"}, "'5 parsecs'"),
        ({"interval": "0min"}, "'0min'"),
        ({"start": "yesterday"}, "'yesterday'"),
        ({"start": "2012-03-01T00:00+02:00"}, "2012-03-01T00:00+02:00"),
        ({"start": "2012-13-01"}, "'2012-13-01'"),
        ({"time_zone": "Mars/Olympus"}, "'Mars/Olympus'"),
        ({"gaps": "ignore"}, "'ignore'"),
        ({"edge_values": "cost"}, "'cost'"),
        ({"graph_kind": "tree"}, "'tree'"),
        ({"scale": (0.0,)}, "0.0"),
        ({"scale": (float("nan"),)}, "nan"),
        ({"threshold": 1.5}, "1.5"),
        ({"sigma": -1.0}, "-1.0"),
        ({"neighbours": 0}, "0"),
        ({"budget_bytes": 0}, "0"),
        ({"edges": ("a", "b", "c", "d")}, "a, b, c, d"),
        ({"coordinates": ("lat",)}, "lat"),
        ({"delimiter": "::"}, "'::'"),
        ({"delimiter": "\n"}, r"'\n'"),
        ({"delimiter": '"'}, "'\"'"),
        ({"delimiter": "→"}, "'→'"),
        ({"interval": "9999999999d"}, "9999999999d"),
        ({"interval": "9" * 5000 + "s"}, "longer than ten years"),
        ({"start": "0001-01-01", "time_zone": "Asia/Tokyo"}, "0001-01-01"),
        ({"start": "9999-12-31T23:59", "time_zone": "America/New_York"}, "9999-12-31T23:59"),
        ({"values": ("a", "a")}, "'a'"),
    ],
)
def test_bad_option(options: dict[str, Any], fragment: str) -> None:
    """An option that cannot be used is refused before anything is read."""
    with pytest.raises(ConfigError) as caught:
        IngestOptions(**options)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_existing_target_is_kept(tmp_path: Path) -> None:
    """An existing store is neither touched nor, if the new one fails, replaced."""
    ingest(GOOD, tmp_path / "s")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "s").iterdir())}
    with pytest.raises(StoreError, match="exists already: choose another"):
        ingest(GOOD + 1, tmp_path / "s")
    with pytest.raises(DataError, match="infinite"):
        ingest(with_value(np.inf), tmp_path / "s", IngestOptions(overwrite=True))
    assert {path: path.read_bytes() for path in sorted((tmp_path / "s").iterdir())} == before
    assert listing(tmp_path) == sorted(["s", *(f"s/{path.name}" for path in before)])
    ingest(GOOD + 1, tmp_path / "s", IngestOptions(overwrite=True))
    assert (tmp_path / "s" / "series.npy").read_bytes() != before[tmp_path / "s" / "series.npy"]


def test_unwritable_target(tmp_path: Path) -> None:
    """A target below a file cannot be made: one line, and the file is still there."""
    text(tmp_path / "file", "content")
    with pytest.raises(StoreError) as caught:
        ingest(GOOD, tmp_path / "file" / "store")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "file" / "store") in str(caught.value)
    assert listing(tmp_path) == ["file"]


def test_full_disk(tmp_path: Path) -> None:
    """Where no more bytes can be written there is one line and nothing is left."""
    program = f"""
import numpy as np
from pathlib import Path
from pgti.errors import StoreError
from pgti.ingestion import IngestOptions, ingest
try:
    ingest(np.random.default_rng(0).normal(size=(5000, 40)), Path({str(tmp_path)!r}) / "new" / "s",
           IngestOptions(budget_bytes=1 << 16))
except StoreError as error:
    print(error)
"""

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))

    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (line,) = done.stdout.splitlines()
    assert str(tmp_path / "new" / "s") in line
    assert "cannot be written" in line
    assert listing(tmp_path) == []


def test_every_error_leads_to_exit_two() -> None:
    """The command line turns `PgtiError` into exit 2: all of these are one."""
    for kind in (DataError, ConfigError, StoreError):
        assert issubclass(kind, PgtiError)
