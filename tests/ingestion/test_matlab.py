"""Variables of MATLAB files, in versions 5 and 7.3."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse

import pgti
from pgti.errors import DataError
from pgti.ingestion import IngestOptions, open_readings
from pgti.ingestion.arrays import matlab

T, N = 24, 3
SPEED = np.random.default_rng(0).normal(50, 9, (T, N))
SPEED[4, 1] = np.nan
NAMES = ["A1", "B20", "C"]
TIMES = pd.date_range("2016-08-01", periods=T, freq="10min")
DAY_NUMBERS = (TIMES - pd.Timestamp("1970-01-01")) / pd.Timedelta("1D") + 719529.0


def write5(path: Path, **variables: object) -> Path:
    """A file of version 5; lists become cells."""
    cells = {
        key: np.array(value, dtype=object)[:, None] if isinstance(value, list) else value
        for key, value in variables.items()
    }
    scipy.io.savemat(path, cells, do_compression=True)
    return path


def write73(path: Path, **variables: object) -> Path:
    """A file as MATLAB writes it: axes reversed, text as codes, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in variables.items():
            if isinstance(value, list):
                cells = [
                    file.create_dataset(f"#refs#/{key}{i}", data=codes(text))
                    for i, text in enumerate(value)
                ]
                for cell in cells:
                    cell.attrs["MATLAB_class"] = np.bytes_("char")
                data = np.array([[cell.ref for cell in cells]], dtype=h5py.ref_dtype)
                file.create_dataset(key, data=data)
                file[key].attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                array = np.atleast_2d(np.asarray(value)).T
                options = {"chunks": True, "compression": "gzip"} if array.size > 10 else {}
                file.create_dataset(key.replace(".", "/"), data=array, **options)
                file[key.replace(".", "/")].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as binary:
        binary.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


def codes(text: str) -> np.ndarray:
    """Text as MATLAB stores it, a column of UTF-16 codes."""
    return np.frombuffer(text.encode("utf-16-le"), dtype="<u2")[:, None]


WRITERS = pytest.mark.parametrize("write", [write5, write73])


@WRITERS
@pytest.mark.parametrize("budget_bytes", [1, 300, 1 << 20])
def test_a_matrix_with_ids_times_and_places(
    tmp_path: Path, write: object, budget_bytes: int
) -> None:
    """Names in a cell, day numbers, latitudes and longitudes come along."""
    path = write(  # type: ignore[operator]
        tmp_path / "a.mat",
        speed=SPEED,
        station=NAMES,
        time=np.asarray(DAY_NUMBERS)[:, None],
        lat=np.array([[34.0, 34.1, 34.2]]),
        lon=np.array([[-118.0, -118.1, -118.2]]),
    )
    options = IngestOptions(budget_bytes=budget_bytes)
    store = pgti.ingest(path, tmp_path / "s", options)
    np.testing.assert_array_equal(store.read(0, T)[..., 0], SPEED.astype(np.float32))
    assert store.meta.node_ids == tuple(NAMES)
    assert store.meta.channels == ("speed",)
    assert (store.meta.start, store.meta.interval_seconds) == ("2016-08-01T00:00:00", 600)
    np.testing.assert_array_equal(store.graph.coordinates[:, 0], [34.0, 34.1, 34.2])
    assert pgti.ingest(path, tmp_path / "n", neighbours=1).graph.adjacency.nnz > 0


@WRITERS
def test_a_tensor_of_sensors_days_and_slots(tmp_path: Path, write: object) -> None:
    """The layout of the Guangzhou, Hangzhou and Seattle data sets."""
    tensor = SPEED.T.reshape(N, 4, 6)
    path = write(tmp_path / "tensor.mat", tensor=tensor)  # type: ignore[operator]
    options = {"axes": ("sensor", "day", "slot"), "start": "2016-08-01", "interval": "10min"}
    store = pgti.ingest(path, tmp_path / "s", **options)
    np.testing.assert_array_equal(store.read(0, T)[..., 0], SPEED.astype(np.float32))
    plain = open_readings(path, IngestOptions())
    assert (plain.num_rows, plain.num_nodes, plain.num_channels) == (3, 4, 6)


@WRITERS
def test_several_matrices(tmp_path: Path, write: object) -> None:
    """One is named, or several become channels; the sizes of all are in the refusal."""
    path = write(tmp_path / "a.mat", speed=SPEED, flow=SPEED * 2, k=3.0)  # type: ignore[operator]
    with pytest.raises(DataError, match=r"2 variables that could be meant: .*flow \(24, 3\)"):
        open_readings(path, IngestOptions())
    readings = open_readings(path, IngestOptions(values=("flow", "speed")))
    values = np.concatenate([chunk.values for chunk in readings.chunks(1 << 20)])
    np.testing.assert_array_equal(values, np.stack([SPEED * 2, SPEED], axis=-1))
    assert readings.channels == ("flow", "speed")
    with pytest.raises(DataError, match=r"has no variable 'occ'"):
        open_readings(path, IngestOptions(values=("occ",)))


def test_numbers_of_every_class(tmp_path: Path) -> None:
    """Values are those of scipy.io, whatever the class."""
    for dtype in ("int8", "uint16", "int32", "uint64", "single"):
        array = (np.arange(12).reshape(4, 3) % 5).astype(dtype)
        path = write5(tmp_path / "a.mat", a=array)
        readings = open_readings(path, IngestOptions())
        (chunk,) = readings.chunks(1 << 20)
        np.testing.assert_array_equal(chunk.values[..., 0], scipy.io.loadmat(path)["a"])


def test_text_of_times_and_char_matrices(tmp_path: Path) -> None:
    """Rows of a char matrix are ids; text in a cell may be times."""
    path = write5(
        tmp_path / "a.mat",
        speed=SPEED,
        ids=np.array(["A1 ", "B20", "C  "]),
        dates=[time.isoformat() for time in TIMES],
    )
    store = pgti.ingest(path, tmp_path / "s")
    assert store.meta.node_ids == tuple(NAMES)
    assert store.meta.start == "2016-08-01T00:00:00"


def test_fields_of_structures(tmp_path: Path) -> None:
    """Those of 7.3 have a name with a dot; of version 5 they are refused with a way out."""
    path = write73(tmp_path / "a.mat", **{"data.speed": SPEED})
    readings = open_readings(path, IngestOptions(values=("data.speed",)))
    np.testing.assert_array_equal(next(readings.chunks(1 << 20)).values[..., 0], SPEED)
    path = write5(tmp_path / "b.mat", data={"speed": SPEED}, road=scipy.sparse.eye(3).tocsc())
    for key, kind in (("data", "struct"), ("data.speed", "struct"), ("road", "sparse")):
        with pytest.raises(DataError, match=f"{key} of b.mat is a {kind}, or part of one"):
            open_readings(path, IngestOptions(values=(key,)))
    with pytest.raises(DataError, match=r"no variable .* it has data \(struct\), road \(sparse\)"):
        open_readings(path, IngestOptions())


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    """Their imaginary parts would be lost."""
    path = write5(tmp_path / "a.mat", voltage=SPEED + 1j)
    with pytest.raises(DataError, match=r"voltage of a\.mat holds complex numbers"):
        pgti.ingest(path, tmp_path / "s")


def test_damaged_files(tmp_path: Path) -> None:
    """Both versions are refused in one line."""
    for write in (write5, write73):
        path = write(tmp_path / "a.mat", speed=SPEED)
        path.write_bytes(path.read_bytes()[:700])
        with pytest.raises(DataError, match=r"a.mat"):
            pgti.ingest(path, tmp_path / "s")
    (tmp_path / "a.mat").write_bytes(b"no such thing at all" * 30)
    with pytest.raises(DataError, match=r"a.mat cannot be read as a MATLAB file"):
        pgti.ingest(tmp_path / "a.mat", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_memory_is_compared_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of version 5 that does not fit is refused before it is read."""
    path = write5(tmp_path / "a.mat", speed=SPEED)
    monkeypatch.setattr(matlab, "available_bytes", lambda: 1000)
    monkeypatch.setattr(scipy.io, "loadmat", None)
    with pytest.raises(DataError, match=r"speed of a.mat takes 576 bytes.* save it with -v7.3"):
        pgti.ingest(path, tmp_path / "s")


def test_newer_variables(tmp_path: Path) -> None:
    """They are read with the axes and names of the first."""
    how = {"axes": ("sensor", "time"), "values": ("speed",)}
    old = write73(tmp_path / "old.mat", speed=SPEED[:10].T, flow=SPEED[:10].T, station=NAMES)
    store = pgti.ingest(old, tmp_path / "s", **how)
    new = write5(tmp_path / "new.mat", speed=SPEED[10:, ::-1].T, station=NAMES[::-1])
    grown = store.append(new)
    np.testing.assert_array_equal(grown.read(0, T)[..., 0], SPEED.astype(np.float32))
