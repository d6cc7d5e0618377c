"""The pass over the readings of a store."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pgti.store import SeriesStore
from pgti.store.summary import summarize

from .small_stores import write_store


@pytest.mark.parametrize("grid", [True, False], ids=["int16", "float32"])
@pytest.mark.parametrize("num_steps", [1, 255, 256, 600])
def test_it_is_what_numpy_finds(
    grid: bool, num_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts and ranges of each sensor and channel, in both encodings and pieces of any size."""
    rng = np.random.default_rng(0)
    values = rng.normal(-3, 20, (num_steps, 5, 2)).astype(np.float32)
    if grid:
        values = (values.round() / 4).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, 3] = np.nan  # a dead sensor
    values[0, 0] = 1.25
    write_store(tmp_path / "store", values)
    store = SeriesStore.open(tmp_path / "store")
    assert store.meta.dtype == ("int16" if grid else "float32")
    for piece in (1 << 20, 40):
        monkeypatch.setattr("pgti.store.summary._PIECE_READINGS", piece)
        seen: list[tuple[int, int | None]] = []
        summary = summarize(store, lambda *done: seen.append(done))  # noqa: B023 - called here
        assert seen[-1] == (num_steps, num_steps)
        np.testing.assert_array_equal(summary.num_missing, np.isnan(values).sum(axis=0))
        np.testing.assert_array_equal(summary.minimum, np.fmin.reduce(values, axis=0))
        np.testing.assert_array_equal(summary.maximum, np.fmax.reduce(values, axis=0))
        assert summary.minimum.dtype == summary.maximum.dtype == np.float32


def test_the_ends_of_the_grid(tmp_path: Path) -> None:
    """The smallest and the largest code are readings, beside the code of what is missing."""
    values = np.array([[[-32767.0]], [[32767.0]], [[np.nan]]], dtype=np.float32)
    write_store(tmp_path / "store", values)
    store = SeriesStore.open(tmp_path / "store")
    assert store.meta.dtype == "int16"
    summary = summarize(store)
    assert (summary.minimum.item(), summary.maximum.item()) == (-32767.0, 32767.0)
    assert summary.num_missing.item() == 1


PEAK = """
import sys
from pathlib import Path
from pgti.store import SeriesStore
from pgti.store.summary import summarize
summarize(SeriesStore.open(sys.argv[1]))
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_memory_does_not_grow_with_the_series(tmp_path: Path) -> None:
    """Rows that were read are unmapped: a long series takes as much as a short one."""
    peaks = []
    for num_steps in (1_000, 40_000):  # 1.6 and 64 MB
        path = tmp_path / str(num_steps)
        write_store(path, np.ones((num_steps, 800, 1), dtype=np.float32))
        command = [sys.executable, "-c", PEAK, path]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    assert peaks[1] < peaks[0] + (15 << 10), "kiB"
