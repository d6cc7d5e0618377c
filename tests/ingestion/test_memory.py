"""Memory while ingesting is bounded by the budget, whatever the size of the source.

What Python and NumPy allocate is traced here; other libraries: see test_process_memory.
"""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgti.ingestion import IngestOptions, ingest, open_readings
from pgti.ingestion.times.resample import resample

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


def peak_of(work: Callable[[], object]) -> int:
    """Most bytes that Python and NumPy held at once during the work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("write", [as_npy, as_fortran_npy, as_npz])
def test_readers_stay_in_their_budget(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Reading a source of many budgets takes at most three: a chunk, the next, and a parser."""
    source = write(tmp_path)

    def read_all() -> int:
        readings = open_readings(source, IngestOptions())
        return sum(len(chunk.values) for chunk in readings.chunks(BUDGET_BYTES))

    assert read_all() == ROWS
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


def as_channels(path: Path) -> list[Path]:
    """Five files of half the readings, which are open at the same time."""
    names, readings = ("speed", "flow", "density", "wind", "rain"), values()[:, : NODES // 2]
    for name in names:
        np.save(path / f"{name}.npy", readings)
    return [path / f"{name}.npy" for name in names]


def as_days(path: Path) -> list[Path]:
    """Many files with times, one after the other."""
    times = pd.date_range("2024-01-01", periods=ROWS, freq="1min")
    frame = pd.DataFrame(values().astype(np.float32), index=times).add_prefix("s")
    for first in range(0, ROWS, 2000):
        frame.iloc[first : first + 2000].to_parquet(path / f"{first}.parquet")
    return sorted(path.glob("*.parquet"))


@pytest.mark.parametrize(
    ("write", "options"),
    [(as_channels, {}), (as_days, {}), (as_days, {"resample": "1h", "aggregate": ("mean",)})],
)
def test_several_files_stay_in_a_few_budgets(
    tmp_path: Path, write: Callable[[Path], list[Path]], options: dict[str, Any]
) -> None:
    """What is open shares the budget; what was joined or aggregated takes another."""
    sources, chosen = write(tmp_path), IngestOptions(**options)

    def read_all() -> int:
        readings = resample(open_readings(sources, chosen), chosen)
        return sum(len(chunk.values) for chunk in readings.chunks(BUDGET_BYTES))

    assert peak_of(read_all) < 4 * BUDGET_BYTES
