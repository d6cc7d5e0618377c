"""Which rows a batch reads, and what the clock says about them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.batching.rows import RowFeatures, ScratchArrays, copy_row_ranges
from pgti.store import calendar_features
from pgti.windows import WindowSpec

from .sources import make_source


def test_features_of_rows_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order and shape, and past the end of the series by the horizon."""
    spec = WindowSpec(input_steps=5, horizon=3)
    source = make_source(tmp_path / "s", (400, 2, 1), spec, climatology=True)
    pages = []

    def counted(*arguments: Any) -> Any:
        pages.append(int(arguments[2][0]))
        return calendar_features(*arguments)

    monkeypatch.setattr("pgti.batching.rows.calendar_features", counted)
    features = RowFeatures(source, page_rows=16)
    assert source.typical is not None
    axis = source.store.time_axis
    for rows in (np.array([[3, 4], [399, 17]]), np.array([402, 5]), np.arange(0, 400)):
        np.testing.assert_array_equal(
            features.calendar(rows), calendar_features(axis, source.calendar, rows)
        )
    for rows in (np.array([[399, 0]]), np.arange(390, 400)[None]):
        expected = np.stack([source.typical.bins(axis, rows + ahead) for ahead in (0, 3)], axis=-1)
        np.testing.assert_array_equal(features.bins(rows), expected)
    assert sorted(pages) == list(range(0, 403, 16))


def test_buffers_keep_their_memory() -> None:
    """An array of the same name lies where the last one did, unless it is larger."""
    buffers = ScratchArrays()
    first = buffers.array("x", (4, 3), np.float32)
    assert (first.shape, first.dtype) == ((4, 3), np.float32)
    first[:] = 7
    smaller = buffers.array("x", (2, 5), np.float32)
    assert smaller.shape == (2, 5)
    assert np.shares_memory(first, smaller)
    assert not np.shares_memory(first, buffers.array("y", (4, 3), np.float32))
    larger = buffers.array("x", (20, 3), np.float32)
    assert larger.flags.c_contiguous
    assert not np.shares_memory(first, larger)
    assert (first[1:] == 7).all()


@given(runs=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=20))
def test_runs_are_taken_in_their_order(runs: list[tuple[int, int]]) -> None:
    """Of any lengths, and also when they overlap."""
    series = np.arange(40 * 6, dtype=np.int16).reshape(40, 3, 2)
    out = np.empty((sum(count for _, count in runs), 3, 2), dtype=np.int16)
    copy_row_ranges(series, [(first, first + count) for first, count in runs], out)
    rows = [row for first, count in runs for row in range(first, first + count)]
    np.testing.assert_array_equal(out, series[np.array(rows, dtype=np.int64)])
