"""Missing codes and scales."""

from pathlib import Path

import numpy as np
import pytest

from pgti.ingestion import IngestOptions, ingest
from pgti.store import SeriesStore


def stored(array: np.ndarray, path: Path, options: IngestOptions) -> np.ndarray:
    """The readings of the store of an array."""
    ingest(array, path, options)
    store = SeriesStore.open(path)
    return store.read(0, store.meta.num_steps)


@pytest.mark.parametrize("dtype", ["int16", "int64", "float32", "float64"])
def test_a_tenth_is_a_division(tmp_path: Path, dtype: str) -> None:
    """Every tenth is the float32 nearest to it, which a product with 0.1 is not always."""
    raw = np.arange(3, 9003).reshape(-1, 3)
    values = stored(raw.astype(dtype), tmp_path / "s", IngestOptions(scale=(0.1,)))
    expected = np.array([np.float32(str(number / 10)) for number in raw.ravel()])
    np.testing.assert_array_equal(values.ravel(), expected)


@pytest.mark.parametrize("scale", [3.6, 2.0, -1.0, 1.0, 1e-8, 1 / 16_777_217])
def test_other_scales(tmp_path: Path, scale: float) -> None:
    """Any other factor is applied in float64 and rounded once."""
    raw = np.random.default_rng(1).integers(1, 30_000, size=(40, 5)).astype(np.int16)
    values = stored(raw, tmp_path / "s", IngestOptions(scale=(scale,)))
    expected = (raw.astype(np.float64) * scale).astype(np.float32)
    np.testing.assert_allclose(values[..., 0], expected, rtol=1.2e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_missing_codes(tmp_path: Path, dtype: str) -> None:
    """Codes are raw values: they are taken out before the scale, and may be infinite."""
    raw = np.array([[1.0, -9999.9, 0.0], [np.inf, 5.0, np.nan], [-np.inf, 0.5, 7.0]], dtype=dtype)
    options = IngestOptions(missing=(0.0, -9999.9, np.inf, -np.inf), scale=(0.5,))
    values = stored(raw, tmp_path / "s", options)[..., 0]
    nan = np.nan
    np.testing.assert_array_equal(values, [[0.5, nan, nan], [nan, 2.5, nan], [nan, 0.25, 3.5]])


def test_progress_is_told(tmp_path: Path) -> None:
    """Rows written and their total are reported after each chunk."""
    reports: list[tuple[int, int | None]] = []
    options = IngestOptions(budget_bytes=16 * 3 * 4)
    ingest(
        np.ones((10, 3)),
        tmp_path / "s",
        options,
        progress=lambda done, all_: reports.append((done, all_)),
    )
    assert reports == [(4, 10), (8, 10), (10, 10)]
