"""Rows of a series that memory does not hold."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.batching import BatchLoader, IndexBatcher, StandardBatcher
from pgti.batching.mapped import MappedRows, byte_ranges
from pgti.series import SeriesStore
from pgti.windows import BlockShuffle, WindowSpec

from .sources import CPU, assert_same, make_source


@given(
    rows=st.lists(st.integers(0, 50), max_size=30),
    row_bytes=st.integers(1, 40),
    begin=st.integers(0, 100),
)
def test_ranges_hold_every_row_and_little_else(rows: list[int], row_bytes: int, begin: int) -> None:
    """From the page of its first row to the end of its last one, and nothing between two runs."""
    ranges = byte_ranges(np.array(rows, dtype=np.int64), row_bytes, begin, page_bytes=16)
    assert all(first % 16 == 0 and first >= 0 for first, _ in ranges)
    covered = {byte for first, count in ranges for byte in range(first, first + count)}
    wanted = {byte for row in rows for byte in _bytes_of(row, row_bytes, begin)}
    assert wanted <= covered
    for byte in covered - wanted:
        assert any((byte // 16) * 16 <= other < (byte // 16 + 1) * 16 for other in wanted)


def _bytes_of(row: int, row_bytes: int, begin: int) -> range:
    return range(begin + row * row_bytes, begin + (row + 1) * row_bytes)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stores that let their pages go."""
    stores: list[Path] = []
    release = SeriesStore.release

    def counted(store: SeriesStore) -> None:
        stores.append(store.path)
        release(store)

    monkeypatch.setattr(SeriesStore, "release", counted)
    return stores


def test_a_series_from_disk_gives_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: list[Path]
) -> None:
    """Announced, copied and let go again and again; nothing of it can be seen in a batch."""
    spec = WindowSpec(input_steps=5, horizon=3)
    source = make_source(tmp_path / "s", (300, 200, 1), spec)
    monkeypatch.setattr("pgti.batching.mapped.available_bytes", lambda: source.store.num_bytes - 1)
    monkeypatch.setattr("pgti.batching.mapped._MAPPED_BYTES", 10 * 8 * 400)
    batcher, standard = IndexBatcher(source, CPU, 3, budget_bytes=0), StandardBatcher(source, CPU)
    loader = BatchLoader(batcher, spec.starts(300), 10, BlockShuffle(1, 3))
    for batch in loader.epoch(0):
        assert_same(batch, standard.gather(batch.starts))
    assert len(released) > 5


def test_a_series_that_fits_stays_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: list[Path]
) -> None:
    """Announcing and letting go cost time, and gain none."""
    spec = WindowSpec(input_steps=5, horizon=3)
    source = make_source(tmp_path / "s", (300, 200, 1), spec)
    monkeypatch.setattr("pgti.batching.mapped.available_bytes", lambda: source.store.num_bytes)
    monkeypatch.setattr("pgti.batching.mapped._MAPPED_BYTES", 1)
    rows = MappedRows(source.store)
    out = np.empty((300, rows.num_readings), dtype=rows.dtype)
    rows.take(np.arange(300), out)
    np.testing.assert_array_equal(out, source.store.raw.reshape(300, -1))
    assert released == []


def test_the_rows_themselves_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranges count from where the map begins, and end within it."""
    source = make_source(tmp_path / "s", (300, 200, 1), WindowSpec())
    monkeypatch.setattr("pgti.batching.mapped.available_bytes", lambda: 0)
    announced: list[tuple[int, int]] = []

    def seen(*arguments: int | np.ndarray) -> list[tuple[int, int]]:
        announced.extend(byte_ranges(*arguments))  # type: ignore[arg-type]
        return announced

    monkeypatch.setattr("pgti.batching.mapped.byte_ranges", seen)
    rows = MappedRows(source.store)
    rows.take(np.array([[100, 101], [298, 299]]), np.empty((4, 200), dtype=rows.dtype))
    mapped = source.store.raw.base
    assert isinstance(mapped, mmap.mmap)
    raw = source.store.raw.tobytes()
    for row, (first, count) in zip((100, 298), announced, strict=True):
        piece = bytes(mapped[first : first + count])
        assert len(piece) == count
        assert piece.endswith(raw[row * 400 : (row + 2) * 400])
        assert count < 2 * 400 + mmap.PAGESIZE
