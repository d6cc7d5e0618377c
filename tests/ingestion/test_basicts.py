"""Data sets of BasicTS, in both of its layouts."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import pgti
from pgti.errors import DataError
from pgti.ingestion import IngestOptions, open_readings

T, N = 60, 4
SPEED = np.random.default_rng(0).normal(50, 9, (T, N, 1)).astype(np.float32)
CLOCK = np.broadcast_to((np.arange(T) / 288 % 1)[:, None, None], (T, N, 1))
FULL = np.concatenate([SPEED, CLOCK, np.full((T, N, 1), 3 / 7)], axis=2).astype(np.float32)
NAMES = ["traffic speed", "time of day", "day of week"]
ROAD = np.eye(N, k=1, dtype=np.float32)


def write(directory: Path, **about: object) -> None:
    """`data.dat`, `desc.json` and `adj_mx.pkl`."""
    (directory / "data.dat").write_bytes(FULL.tobytes())
    described = {"shape": list(FULL.shape), "frequency (minutes)": 5, "feature_description": NAMES}
    described |= {"regular_settings": {"null_val": float("nan")}, **about}
    (directory / "desc.json").write_text(json.dumps(described))
    (directory / "adj_mx.pkl").write_bytes(pickle.dumps(ROAD))


@pytest.mark.parametrize("given", ["data.dat", "desc.json", ""])
@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_bytes_with_a_description(tmp_path: Path, given: str, budget_bytes: int) -> None:
    """Readings, interval and graph; what repeats the calendar is left out and said."""
    write(tmp_path)
    options = IngestOptions(budget_bytes=budget_bytes, start="2012-03-01")
    store = pgti.ingest(tmp_path / given, tmp_path / "s", options)
    np.testing.assert_array_equal(store.read(0, T), SPEED)
    assert store.meta.channels == ("traffic speed",)
    assert store.meta.interval_seconds == 300
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), ROAD)
    notes = " ".join(store.notes)
    assert "the channels time of day, day of week of data.dat were left out" in notes
    assert "adj_mx.pkl" in notes


def test_all_channels_if_named(tmp_path: Path) -> None:
    """Names for every channel keep them; a graph that the user gives comes first."""
    write(tmp_path)
    names = ("speed", "tod", "dow")
    store = pgti.ingest(tmp_path, tmp_path / "s", channels=names, graph=np.eye(N))
    np.testing.assert_array_equal(store.read(0, T), FULL)
    assert store.meta.channels == names
    assert "adj_mx" not in " ".join(store.notes)


def test_splits_with_a_description(tmp_path: Path) -> None:
    """The three files follow one another, in the order of time."""
    for name, rows in {"test": (50, T), "train": (0, 40), "val": (40, 50)}.items():
        np.save(tmp_path / f"{name}_data.npy", SPEED[slice(*rows), :, 0])
        np.save(tmp_path / f"{name}_timestamps.npy", CLOCK[slice(*rows), 0])
    (tmp_path / "meta.json").write_text(json.dumps({"frequency (minutes)": 60}))
    for source in (tmp_path, tmp_path / "meta.json"):
        store = pgti.ingest(source, tmp_path / "s", overwrite=True)
        np.testing.assert_array_equal(store.read(0, T), SPEED)
        assert store.meta.interval_seconds == 3600
        assert "train_data.npy, val_data.npy, test_data.npy" in store.notes[0]
    np.save(tmp_path / "val_data.npy", SPEED[40:50, :2, 0])
    with pytest.raises(DataError, match=r"val_data.npy has 2 sensors and 1 channel, unlike train"):
        open_readings(tmp_path, IngestOptions())


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"shape": [T, N, 2]}, r"data.dat has 2880 bytes and desc.json promises 1920"),
        ({"shape": [T, "x"]}, r"the shape in desc.json is"),
        ({"shape": [10**12, 10**12]}, "promises 4000000000000000000000000"),
    ],
)
def test_a_wrong_description(tmp_path: Path, about: dict[str, object], message: str) -> None:
    """Sizes are compared before anything is read."""
    write(tmp_path, **about)
    with pytest.raises(DataError, match=message):
        pgti.ingest(tmp_path, tmp_path / "s")


def test_a_damaged_description(tmp_path: Path) -> None:
    """It must be JSON."""
    write(tmp_path)
    (tmp_path / "desc.json").write_text("{")
    with pytest.raises(DataError, match=r"desc.json cannot be read as JSON"):
        pgti.ingest(tmp_path, tmp_path / "s")
    (tmp_path / "desc.json").unlink()
    with pytest.raises(DataError, match=r"data.dat is not text"):
        pgti.ingest(tmp_path / "data.dat", tmp_path / "s")


def test_an_interval_of_its_own(tmp_path: Path) -> None:
    """Another one that the user gives is refused."""
    write(tmp_path)
    with pytest.raises(pgti.ConfigError, match=r"interval is 1h and the rows of data.dat are 5min"):
        pgti.ingest(tmp_path, tmp_path / "s", interval="1h", start="2012-03-01")
    assert not (tmp_path / "s").exists()
