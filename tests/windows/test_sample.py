"""A few windows in place of all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import subsample_evenly


@given(first=st.integers(0, 100), stride=st.integers(1, 5), length=st.integers(1, 300),
       count=st.integers(1, 400))  # fmt: skip
def test_the_choice_is_spread_evenly(first: int, stride: int, length: int, count: int) -> None:
    """Distinct, in order, the ends included, and gaps that differ by one window at most."""
    starts = range(first, first + stride * length, stride)

    chosen = np.asarray(subsample_evenly(starts, count))

    assert len(chosen) == min(count, length)
    assert np.isin(chosen, np.asarray(starts)).all()
    gaps = np.diff(chosen) // stride
    assert (gaps >= 1).all()
    if len(chosen) >= 2:
        assert chosen[0] == starts[0]
        assert chosen[-1] == starts[-1]
        assert gaps.max() - gaps.min() <= 1


def test_one_window_is_the_middle_one() -> None:
    """Neither end stands for a split."""
    assert subsample_evenly(range(10, 15), 1).tolist() == [12]
    assert subsample_evenly(np.array([3, 5]), 1).tolist() == [3]


@pytest.mark.parametrize("count", [None, 5, 6, 10**9])
def test_all_are_used_where_the_split_has_no_more(count: int | None) -> None:
    """The starts come back as they are; an empty split stays empty."""
    starts = range(7, 12)
    assert subsample_evenly(starts, count) is starts
    assert len(subsample_evenly(range(0), count)) == 0


@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_a_count_that_is_none_is_refused(count: object) -> None:
    """It must be a whole number of at least 1."""
    with pytest.raises(ConfigError, match=r"max_windows is .*at least 1"):
        subsample_evenly(range(3), count)  # type: ignore[arg-type]
