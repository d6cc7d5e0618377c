"""Rows of a series that memory does not hold."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.batching import BatchLoader
from pgti.batching.batcher import WindowBatcher
from pgti.batching.host_rows import HostRows
from pgti.batching.mapped_series import MappedSeries, pages_of
from pgti.batching.numpy_assembler import NumpyAssembler
from pgti.store import SeriesStore
from pgti.windows import BlockShuffle, WindowSpec

from .sources import CPU, assert_same, make_source, standard


@given(
    first=st.integers(0, 500), count=st.integers(1, 200), page_bytes=st.sampled_from([1, 16, 64])
)
def test_pages_hold_the_bytes_and_little_else(first: int, count: int, page_bytes: int) -> None:
    """They begin with a page, less than one before the first byte, and end with the last byte."""
    begin, length = pages_of(first, first + count, page_bytes)
    assert begin % page_bytes == 0
    assert 0 <= first - begin < page_bytes
    assert begin + length == first + count


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


def test_a_series_from_disk_gives_the_same_batches(tmp_path: Path, released: list[Path]) -> None:
    """Announced, copied and let go again and again; nothing of it can be seen in a batch."""
    spec = WindowSpec(input_steps=5, horizon=3)
    source = make_source(tmp_path / "s", (300, 200, 1), spec)
    reader = MappedSeries(
        source.store, available=source.store.num_bytes - 1, release_bytes=10 * 8 * 400
    )
    rows = HostRows(source, CPU, reader)
    batcher = WindowBatcher(source, CPU, rows, NumpyAssembler(source), prefetch_depth=3)
    oracle = standard(source)
    loader = BatchLoader(batcher, spec.starts(300), 10, BlockShuffle(1, 3))
    for batch in loader.epoch(0):
        assert_same(batch, oracle.gather(batch.starts))
    assert len(released) > 5


def test_a_series_that_fits_stays_mapped(tmp_path: Path, released: list[Path]) -> None:
    """Announcing and letting go cost time, and gain none."""
    spec = WindowSpec(input_steps=5, horizon=3)
    source = make_source(tmp_path / "s", (300, 200, 1), spec, fill="mean")
    rows = MappedSeries(source.store, available=source.store.num_bytes, release_bytes=1)
    out = np.empty((300, rows.num_readings), dtype=rows.dtype)
    rows.copy_rows([(0, 300)], out)
    np.testing.assert_array_equal(out, source.store.raw.reshape(300, -1))
    assert released == []


def test_the_rows_themselves_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages count from where the map begins, and end with the rows."""
    source = make_source(tmp_path / "s", (300, 200, 1), WindowSpec())
    announced: list[tuple[int, int]] = []

    def seen(first: int, stop: int) -> tuple[int, int]:
        announced.append(pages_of(first, stop))
        return announced[-1]

    monkeypatch.setattr("pgti.batching.mapped_series.pages_of", seen)
    rows = MappedSeries(source.store, available=0)
    rows.copy_rows([(100, 102), (298, 300)], np.empty((4, 200), dtype=rows.dtype))
    mapped = source.store.raw.base
    assert isinstance(mapped, mmap.mmap)
    raw = source.store.raw.tobytes()
    for row, (first, count) in zip((100, 298), announced, strict=True):
        piece = bytes(mapped[first : first + count])
        assert len(piece) == count
        assert piece.endswith(raw[row * 400 : (row + 2) * 400])
        assert count < 2 * 400 + mmap.PAGESIZE
