"""Windows that were cut beforehand become the series again, or are refused with the reason."""

from pathlib import Path

import numpy as np
import pytest

import pgti
from pgti.errors import DataError
from pgti.ingestion import IngestOptions, open_readings

T, N, L, H = 90, 3, 5, 4
SPEED = np.random.default_rng(0).normal(50, 9, (T, N))
SPEED[20:30] = 0.0  # a night without readings: windows of it are alike
SPEED[40, 1] = np.nan
CLOCK = np.broadcast_to((0.25 + np.arange(T)[:, None] / 288) % 1, (T, N))
BOTH = np.stack([SPEED, CLOCK], axis=-1)


def windows(
    series: np.ndarray, stride: int = 1, first: int = 0, stop: int = T
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [S, L, ...] and targets [S, H, ...] of a range of steps."""
    starts = range(first, stop - L - H + 1, stride)
    x = np.stack([series[start : start + L] for start in starts])
    return x, np.stack([series[start + L : start + L + H] for start in starts])


def write_splits(directory: Path, series: np.ndarray, stride: int = 1) -> None:
    """The three files of DCRNN and Graph WaveNet."""
    x, y = windows(series, stride)
    ends = {"train": (0, 50), "val": (50, 60), "test": (60, None)}
    for name, (first, stop) in ends.items():
        np.savez_compressed(directory / f"{name}.npz", x=x[first:stop], y=y[first:stop])


def values(source: object, budget_bytes: int = 1 << 20, **options: object) -> np.ndarray:
    """The readings of a source, [T, N, C]."""
    readings = open_readings(source, IngestOptions(**options))
    found = np.concatenate([chunk.values for chunk in readings.chunks(budget_bytes)])
    assert found.shape == (readings.num_rows, readings.num_nodes, readings.num_channels)
    return found


@pytest.mark.parametrize("budget_bytes", [1, 4000, 1 << 20])
def test_three_files_are_one_series(tmp_path: Path, budget_bytes: int) -> None:
    """Every step once, bit for bit; the time of day is left out and said."""
    write_splits(tmp_path, BOTH)
    np.testing.assert_array_equal(values(tmp_path, budget_bytes)[..., 0], SPEED)
    store = pgti.ingest(tmp_path, tmp_path / "s", start="2012-03-01T06:00")
    notes = " ".join(store.notes)
    assert "82 windows that start 1 step after one another" in notes
    assert "channel 2 of x of train.npz, val.npz, test.npz is the time of day" in notes
    assert "rows 5min apart, the first at 06:00" in notes
    assert (store.meta.interval_seconds, store.meta.start) == (300, "2012-03-01T06:00:00")
    listed = [tmp_path / f"{name}.npz" for name in ("test", "train", "val")]
    np.testing.assert_array_equal(values(listed)[..., 0], SPEED)
    with pytest.raises(DataError, match=r"do not follow the last ones before"):
        values(tmp_path / "t*.npz")  # val.npz is missing
    both = values(tmp_path, channels=("speed", "clock"))
    np.testing.assert_array_equal(both, BOTH)


def test_one_file_of_three(tmp_path: Path) -> None:
    """The others are named."""
    write_splits(tmp_path, SPEED[..., None])
    store = pgti.ingest(tmp_path / "train.npz", tmp_path / "s")
    np.testing.assert_array_equal(store.read(0, 58)[..., 0], SPEED[:58].astype(np.float32))
    assert "val.npz and test.npz beside train.npz were not read" in " ".join(store.notes)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_windows_at_a_stride(tmp_path: Path, stride: int) -> None:
    """As long as they overlap they are joined, and the stride is said."""
    x, y = windows(SPEED, stride)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    found = values(tmp_path / "a.npz")[..., 0]
    np.testing.assert_array_equal(found, SPEED[: len(found)])
    assert len(found) == (len(x) - 1) * stride + L + H
    assert (
        f"start {stride} steps after" in open_readings(tmp_path / "a.npz", IngestOptions()).notes[0]
    )


def test_splits_in_one_archive(tmp_path: Path) -> None:
    """LibCity's names, whatever their order in the file; targets of one channel."""
    x, y = windows(np.stack([SPEED, SPEED**2], axis=-1))
    parts = {"test": slice(60, None), "train": slice(0, 50), "val": slice(50, 60)}
    arrays = {f"x_{name}": x[part] for name, part in parts.items()}
    arrays |= {f"y_{name}": y[part][..., :1] for name, part in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    found = values(tmp_path / "a.npz")
    np.testing.assert_array_equal(found[..., 0], SPEED)
    np.testing.assert_array_equal(found[:-H, :, 1], SPEED[:-H] ** 2)
    assert np.isnan(found[-H:, :, 1]).all()


def test_scaled_inputs_of_astgcn(tmp_path: Path) -> None:
    """Steps come last and inputs are scaled: the series is that of the targets."""
    x, y = windows(SPEED)
    scaled = ((x - 50) / 9).transpose(0, 2, 1)[:, :, None]
    arrays = {"train_x": scaled[:60], "train_target": y[:60].transpose(0, 2, 1)}
    arrays |= {"test_x": scaled[60:], "test_target": y[60:].transpose(0, 2, 1)}
    extra = {"train_timestamp": np.arange(60)[:, None], "mean": np.ones((1, 1, 3, 1))}
    np.savez(tmp_path / "a.npz", **arrays, **extra)
    np.testing.assert_array_equal(values(tmp_path / "a.npz")[..., 0], SPEED[L:])
    notes = open_readings(tmp_path / "a.npz", IngestOptions()).notes
    assert "the series is that of the targets" in " ".join(notes)


def refusal(source: Path, target: Path, **options: object) -> str:
    """The one line that refuses windows; nothing is written."""
    with pytest.raises(DataError) as caught:
        pgti.ingest(source, target, **options)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shuffled_windows(tmp_path: Path) -> None:
    """From the first, or at some later place."""
    x, y = windows(SPEED)
    order = np.random.default_rng(1).permutation(len(x))
    np.savez(tmp_path / "a.npz", x=x[order], y=y[order])
    assert "not consecutive windows" in refusal(tmp_path / "a.npz", tmp_path / "s")
    order = np.arange(len(x))
    order[[50, 51]] = 51, 50
    np.savez(tmp_path / "b.npz", x=x[order], y=y[order])
    message = refusal(tmp_path / "b.npz", tmp_path / "s")
    assert "window 50 of x and y of b.npz does not follow window 49 1 step later" in message


@pytest.mark.parametrize("budget_bytes", [1, 1 << 20])
def test_splits_that_do_not_meet(tmp_path: Path, budget_bytes: int) -> None:
    """Windows that were cut after the split leave rows out between files."""
    for name, (first, stop) in {"train": (0, 60), "test": (60, T)}.items():
        x, y = windows(SPEED, 1, first, stop)
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    message = refusal(tmp_path, tmp_path / "s", budget_bytes=budget_bytes)
    assert "the first windows of x and y of test.npz do not follow the last ones before" in message


def test_a_changed_reading_is_noticed(tmp_path: Path) -> None:
    """A repetition that differs by one bit, in inputs and in targets."""
    for name in ("x", "y"):
        arrays = dict(zip("xy", windows(SPEED), strict=True))
        arrays[name][70, 2, 0] = np.nextafter(arrays[name][70, 2, 0], 100)
        np.savez(tmp_path / "a.npz", **arrays)
        assert "does not follow" in refusal(tmp_path / "a.npz", tmp_path / "s")


def test_windows_that_do_not_overlap(tmp_path: Path) -> None:
    """Nothing proves that they follow one another."""
    np.savez(tmp_path / "a.npz", **dict(zip("xy", windows(SPEED, L + H), strict=True)))
    assert "too far apart" in refusal(tmp_path / "a.npz", tmp_path / "s")


def test_a_hole_in_the_clock(tmp_path: Path) -> None:
    """Rows that were dropped before the windows were cut show in the time of day."""
    x, y = windows(np.delete(BOTH, 45, axis=0), 1, 0, T - 1)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    message = refusal(tmp_path / "a.npz", tmp_path / "s")
    assert "channel 2 of a.npz is the time of day up to row 45, where it jumps" in message


def test_named_arrays_are_no_windows(tmp_path: Path) -> None:
    """Whoever names an array gets it as a series."""
    np.savez(tmp_path / "a.npz", x=np.ones((9, 3, 2)), y=np.ones((9, 3, 1)))
    assert values(tmp_path / "a.npz", values=("x",)).shape == (9, 3, 2)


def test_newer_windows_are_appended(tmp_path: Path) -> None:
    """The rows that a store has already are the same ones."""
    x, y = windows(SPEED.astype(np.float32))
    np.savez(tmp_path / "old.npz", x=x[:40], y=y[:40])
    np.savez(tmp_path / "new.npz", x=x[30 + L :], y=y[30 + L :])
    how = {"start": "2024-01-01", "interval": "1h"}
    store = pgti.ingest(tmp_path / "old.npz", tmp_path / "s", **how)
    grown = store.append(tmp_path / "new.npz", start="2024-01-02T11:00")
    np.testing.assert_array_equal(grown.read(0, T)[..., 0], SPEED.astype(np.float32))
