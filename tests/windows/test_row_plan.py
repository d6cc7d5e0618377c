"""Which rows a batch reads: against every row of every window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import BlockShuffle, WindowSpec, num_union_rows, plan_rows, union_rows

STARTS = st.lists(st.integers(0, 120), max_size=30) | st.lists(
    st.integers(0, 2**40), max_size=6
)  # close together, and far apart


@st.composite
def offsets(draw: st.DrawFn) -> list[range]:
    """The rows of a window: one range, or history before it, rising and apart."""
    ranges, first = [], draw(st.integers(-60, 0))
    for _ in range(draw(st.integers(1, 3))):
        ranges.append(range(first, first + draw(st.integers(1, 30))))
        first = ranges[-1].stop + draw(st.integers(1, 20))
    return ranges


def rows_of_windows(starts: list[int], window: list[range]) -> list[list[int]]:
    return [[start + row for each in window for row in each] for start in starts]


@given(starts=STARTS, window=offsets())
def test_a_union_has_each_row_once_and_every_window_finds_its_own(
    starts: list[int], window: list[range]
) -> None:
    """Rising, as few ranges as can be: between two of them a row is missing."""
    wanted = rows_of_windows(starts, window)
    union = sorted({row for rows in wanted for row in rows})
    plan = union_rows(np.array(starts, dtype=np.int64), window)
    assert plan.rows.tolist() == [union]
    assert num_union_rows(np.array(starts, dtype=np.int64), window) == len(union)
    assert plan.window_index is not None
    assert plan.window_index.shape == (len(starts), sum(map(len, window)))
    assert plan.rows[0][plan.window_index].tolist() == wanted
    assert [row for each in plan.ranges for row in range(*each)] == union
    firsts, stops = zip(*plan.ranges, strict=True) if plan.ranges else ((), ())
    assert all(first > stop for first, stop in zip(firsts[1:], stops[:-1], strict=True))


@given(starts=st.lists(st.integers(0, 200), min_size=1, max_size=40), window=offsets())
def test_every_window_finds_its_rows(starts: list[int], window: list[range]) -> None:
    """Directly, or through a union that is worth it."""
    plan = plan_rows(np.array(starts), window)
    wanted = np.array(rows_of_windows(starts, window))
    union = len(set(wanted.reshape(-1).tolist()))
    assert [row for each in plan.ranges for row in range(*each)] == plan.rows.reshape(-1).tolist()
    if plan.window_index is None:
        np.testing.assert_array_equal(plan.rows, wanted)
        assert union > 0.6 * wanted.size
    else:
        assert plan.rows.shape == (1, union)
        assert union <= 0.6 * wanted.size
        np.testing.assert_array_equal(plan.rows[0][plan.window_index], wanted)


def test_a_block_reads_each_row_once() -> None:
    """8 windows of 24 rows that follow one another have 31 rows in place of 192."""
    window = WindowSpec(input_steps=12, horizon=12).row_offsets()
    assert union_rows(np.arange(100, 108), window).ranges == [(100, 131)]
    order = BlockShuffle(0, 8).epoch(8 * 1000, 0)
    unions = [num_union_rows(order[first : first + 64], window) for first in range(0, 8000, 64)]
    assert max(unions) == 8 * 31
    assert min(unions) >= 8 * 8 + 23


def test_order_of_the_windows_and_the_argument_are_kept() -> None:
    """Starts come in any order, more than once, and are not sorted in place."""
    starts = np.array([40, 3, 4, 40])
    plan = union_rows(starts, [range(3)])
    assert starts.tolist() == [40, 3, 4, 40]
    assert plan.window_index is not None
    assert plan.window_index[:, 0].tolist() == [4, 0, 1, 4]
    assert plan.rows.tolist() == [[3, 4, 5, 6, 40, 41, 42]]


def test_refuses_a_range_without_rows() -> None:
    """Each range of a window has a row at least."""
    with pytest.raises(ConfigError, match="rows of a window is 0"):
        union_rows(np.array([1]), [range(0)])
