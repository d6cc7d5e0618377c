"""Memory while ingesting is bounded by the budget, whatever the size of the source."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.ingest import IngestOptions, ingest, open_readings

BUDGET_BYTES = 1 << 20
ROWS, NODES = 40_000, 50  # 16 MB as float64, 16 times the budget


def values() -> np.ndarray:
    """Readings off any grid."""
    return np.random.default_rng(5).normal(60, 8, size=(ROWS, NODES))


def as_npy(path: Path) -> Path:
    """The readings as `.npy`."""
    np.save(path / "a.npy", values())
    return path / "a.npy"


def as_fortran_npy(path: Path) -> Path:
    """The readings as `.npy` in Fortran order."""
    np.save(path / "a.npy", np.asfortranarray(values()))
    return path / "a.npy"


def as_npz(path: Path) -> Path:
    """The readings as a compressed `.npz`."""
    np.savez_compressed(path / "a.npz", v=values().astype(np.float32))
    return path / "a.npz"


def as_csv(path: Path) -> Path:
    """A quarter of the readings as CSV, with times."""
    times = pd.date_range("2020-01-01", periods=ROWS // 4, freq="5min")
    pd.DataFrame(values()[: ROWS // 4], index=times).round(2).to_csv(path / "a.csv")
    return path / "a.csv"


def as_hdf5(path: Path) -> Path:
    """The readings as HDF5."""
    pytest.importorskip("tables", reason="PyTables is not installed")
    times = pd.date_range("2020-01-01", periods=ROWS, freq="5min")
    pd.DataFrame(values(), index=times, columns=map(str, range(NODES))).to_hdf(
        path / "a.h5", key="df"
    )
    return path / "a.h5"


def peak_of(work: Callable[[], object]) -> int:
    """Most bytes that Python and NumPy held at once during the work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("write", [as_npy, as_fortran_npy, as_npz, as_csv, as_hdf5])
def test_readers_stay_in_their_budget(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Reading a source of many budgets takes at most three: a chunk, the next, and a parser."""
    source = write(tmp_path)

    def read_all() -> int:
        readings = open_readings(source, IngestOptions())
        return sum(len(chunk.values) for chunk in readings.chunks(BUDGET_BYTES))

    assert read_all() in (ROWS, ROWS // 4)  # imports of optional libraries count once
    assert peak_of(read_all) < 3 * BUDGET_BYTES


def test_memory_does_not_grow_with_the_series(tmp_path: Path) -> None:
    """Four times as many rows take no more memory, from the file to the store."""
    block = np.random.default_rng(5).normal(60, 8, size=(150_000, 50)).astype(np.float32)
    peaks = []
    for name, repeats in (("short", 1), ("long", 4)):
        np.save(tmp_path / f"{name}.npy", np.tile(block, (repeats, 1)))
        options = IngestOptions(budget_bytes=BUDGET_BYTES)
        peaks.append(
            peak_of(lambda: ingest(tmp_path / f"{name}.npy", tmp_path / name, options))  # noqa: B023 - called at once
        )
    short, long = peaks
    assert long < 1.1 * short
