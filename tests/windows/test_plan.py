"""Which rows a batch needs: against every row of every window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import BlockShuffle, num_union_rows, plan_rows

STARTS = st.lists(st.integers(0, 120), max_size=30) | st.lists(
    st.integers(0, 2**40), max_size=6
)  # close together, and far apart


@given(starts=STARTS, span=st.integers(1, 30))
def test_a_plan_is_the_union_of_its_windows(starts: list[int], span: int) -> None:
    """Each row once, rising; every window finds all of its rows, in time order."""
    wanted = [[start + step for step in range(span)] for start in starts]
    union = sorted({row for window in wanted for row in window})
    plan = plan_rows(np.array(starts, dtype=np.int64), span)
    assert plan.rows.tolist() == union
    assert plan.num_rows == len(union)
    assert num_union_rows(np.array(starts, dtype=np.int64), span) == len(union)
    assert plan.span == span
    assert plan.window_rows.shape == (len(starts), span)
    assert plan.rows[plan.window_rows].tolist() == wanted
    np.testing.assert_array_equal(plan.window_rows[:, 0], plan.offsets)


@given(starts=STARTS, span=st.integers(1, 30))
def test_ranges_are_as_few_as_can_be(starts: list[int], span: int) -> None:
    """Between two ranges a row is missing: they neither overlap nor touch."""
    plan = plan_rows(np.array(starts, dtype=np.int64), span)
    assert (plan.stops > plan.firsts).all()
    assert (plan.firsts[1:] > plan.stops[:-1]).all()
    assert sum(len(range(*pair)) for pair in zip(plan.firsts, plan.stops, strict=True)) == (
        plan.num_rows
    )


def test_a_block_reads_each_row_once() -> None:
    """8 windows of 24 rows that follow one another have 31 rows in place of 192."""
    plan = plan_rows(np.arange(100, 108), 24)
    assert (plan.firsts.tolist(), plan.stops.tolist()) == ([100], [131])
    order = BlockShuffle(0, 8).epoch(8 * 1000, 0)
    unions = [num_union_rows(order[first : first + 64], 24) for first in range(0, 8000, 64)]
    assert max(unions) == 8 * 31
    assert min(unions) >= 8 * 8 + 23


def test_order_of_the_windows_and_the_argument_are_kept() -> None:
    """Starts come in any order, more than once, and are not sorted in place."""
    starts = np.array([40, 3, 4, 40])
    plan = plan_rows(starts, 3)
    assert starts.tolist() == [40, 3, 4, 40]
    assert plan.offsets.tolist() == [4, 0, 1, 4]
    assert plan.rows.tolist() == [3, 4, 5, 6, 40, 41, 42]


@pytest.mark.parametrize("span", [0, -3, 2.0, True])
def test_refuses_bad_spans(span: object) -> None:
    """A window has a positive whole number of rows."""
    with pytest.raises(ConfigError, match="span is"):
        plan_rows(np.array([1]), span)  # type: ignore[arg-type]
