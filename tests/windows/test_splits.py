"""Chronological splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import Splits, Starts, WindowSpec, split_by_fractions, split_by_rows

SPECS = st.builds(
    WindowSpec,
    input_steps=st.integers(1, 13),
    horizon=st.integers(1, 13),
    stride=st.integers(1, 4),
)


def parts(splits: Splits) -> tuple[Starts, Starts, Starts]:
    return splits.train, splits.val, splits.test


@pytest.mark.parametrize(
    ("num_steps", "counts"),
    [
        pytest.param(34_272, (23_974, 3_425, 6_850), id="METR-LA"),
        pytest.param(105_120, (73_568, 10_510, 21_019), id="PeMS"),
    ],
)
def test_fractions_round_as_dcrnn_and_pgt(num_steps: int, counts: tuple[int, int, int]) -> None:
    """The counts are those of the field's preprocessing."""
    splits = split_by_fractions(num_steps, WindowSpec())
    assert counts == tuple(len(part) for part in parts(splits))


@given(num_steps=st.integers(60, 400), spec=SPECS, gap=st.integers(0, 30))
def test_fractions_are_ordered_and_disjoint(num_steps: int, spec: WindowSpec, gap: int) -> None:
    """Without a gap the parts are all windows in order; with one only the border windows go."""
    whole = split_by_fractions(num_steps, spec)
    assert [*whole.train, *whole.val, *whole.test] == list(spec.starts(num_steps))
    gapped = split_by_fractions(num_steps, spec, gap=gap)
    assert gapped.train == whole.train
    for part, full in ((gapped.val, whole.val), (gapped.test, whole.test)):
        assert list(part) == [s for s in full if s >= full[0] + gap]


@given(num_steps=st.integers(100, 400), spec=SPECS)
def test_a_gap_of_a_span_shares_no_row(num_steps: int, spec: WindowSpec) -> None:
    """With gap = span - 1 the rows of the three splits do not meet."""
    splits = split_by_fractions(num_steps, spec, gap=spec.span - 1)
    rows = [
        {row for start in part for row in range(start, start + spec.span)} for part in parts(splits)
    ]
    assert not rows[0] & rows[1]
    assert not rows[1] & rows[2]
    assert not rows[0] & rows[2]


@given(num_steps=st.integers(80, 400), spec=SPECS)
def test_statistics_rows_hold_no_later_target(num_steps: int, spec: WindowSpec) -> None:
    """No row that statistics see is a target of a validation or test window."""
    splits = split_by_fractions(num_steps, spec)
    rows = splits.train_rows(spec)
    for start in (*splits.val, *splits.test):
        assert start + spec.input_steps not in rows
        assert start + spec.span - 1 not in rows
    assert rows.start == splits.train[0]
    assert rows[-1] == splits.train[-1] + spec.input_steps - 1


@given(
    num_steps=st.integers(60, 300),
    spec=SPECS,
    shares=st.tuples(st.floats(0.4, 0.8), st.floats(0.05, 0.2)),
    gap=st.integers(0, 10),
)
def test_rows_place_targets_in_their_range(
    num_steps: int, spec: WindowSpec, shares: tuple[float, float], gap: int
) -> None:
    """A split by rows holds exactly the windows whose targets all lie in its range."""
    val_row = int(num_steps * shares[0]) + spec.span
    test_row = val_row + int(num_steps * shares[1])
    if test_row > num_steps:
        test_row = num_steps
        val_row = min(val_row, num_steps)
    splits = split_by_rows(num_steps, spec, val_row=val_row, test_row=test_row, gap=gap)
    bounds = [(0, val_row), (val_row + gap, test_row), (test_row + gap, num_steps)]
    for part, (low, high) in zip(parts(splits), bounds, strict=True):
        expected = [
            s
            for s in spec.starts(num_steps)
            if s + spec.input_steps >= low and s + spec.span <= high
        ]
        assert expected == list(part)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.7, 0.1, 0.1), "add up to 0.9"),
        ((1.2, -0.4, 0.2), "between 0 and 1"),
        ((0.0, 0.5, 0.5), "no training window"),
        ((float("nan"), 0.5, 0.5), "between 0 and 1"),
    ],
)
def test_refuses_bad_fractions(fractions: tuple[float, float, float], message: str) -> None:
    """Shares must be shares, add up to one and leave something to train on."""
    with pytest.raises(ConfigError, match=message):
        split_by_fractions(200, WindowSpec(), fractions)


def test_refuses_a_series_shorter_than_a_window() -> None:
    """The message gives the series' length and the window's."""
    with pytest.raises(ConfigError, match="20 steps has 0 windows of 12 \\+ 12"):
        split_by_fractions(20, WindowSpec())


@pytest.mark.parametrize(("val_row", "test_row"), [(0, 5), (9, 5), (5, 500)])
def test_refuses_rows_out_of_order(val_row: int, test_row: int) -> None:
    """Borders must be in order and inside the series."""
    with pytest.raises(ConfigError, match="the rule is 0 < validation <= test <= 100"):
        split_by_rows(100, WindowSpec(), val_row=val_row, test_row=test_row)


def test_refuses_an_unknown_split() -> None:
    """The message lists the three that there are."""
    splits = split_by_fractions(100, WindowSpec())
    with pytest.raises(ConfigError, match="train, val, test"):
        splits.starts("dev")  # type: ignore[arg-type]


HOLES = st.sets(st.integers(0, 298), max_size=12).map(sorted)


def crosses(start: int, spec: WindowSpec, holes: list[int]) -> bool:
    """Whether a hole lies between two rows of a window."""
    return any(start <= hole < start + spec.span - 1 for hole in holes)


@given(num_steps=st.integers(200, 300), spec=SPECS, holes=HOLES, gap=st.integers(0, 30))
def test_windows_across_holes_are_left_out(
    num_steps: int, spec: WindowSpec, holes: list[int], gap: int
) -> None:
    """The others are split as if they were all, and counted."""
    whole = [s for s in spec.starts(num_steps) if not crosses(s, spec, holes)]
    if len(whole) < 4:
        return
    found = split_by_fractions(num_steps, spec, holes=np.array(holes, dtype=np.int64))
    assert [start for part in parts(found) for start in part] == whole
    assert len(found.test) == round(0.2 * len(whole))
    assert found.num_left_out == spec.num_windows(num_steps) - len(whole)
    assert bool(found.notes) == (found.num_left_out > 0)
    gapped = split_by_fractions(num_steps, spec, gap=gap, holes=np.array(holes, dtype=np.int64))
    for part, full in ((gapped.val, found.val), (gapped.test, found.test)):
        assert list(part) == [s for s in full if s >= full[0] + gap]


@given(spec=SPECS, holes=HOLES)
def test_splits_by_rows_leave_out_windows_across_holes(spec: WindowSpec, holes: list[int]) -> None:
    """The borders stay where the user put them."""
    everything = split_by_rows(300, spec, val_row=180, test_row=240)
    array = np.array(holes, dtype=np.int64)
    found = split_by_rows(300, spec, val_row=180, test_row=240, holes=array)
    for part, full in zip(parts(found), parts(everything), strict=True):
        assert list(part) == [s for s in full if not crosses(s, spec, holes)]
    left_out = sum(map(len, parts(everything))) - sum(map(len, parts(found)))
    assert found.num_left_out == left_out


def test_without_holes_splits_are_ranges() -> None:
    """Whether there is none at all, or none that a window reaches across."""
    none = split_by_fractions(200, WindowSpec(), holes=np.empty(0, dtype=np.int64))
    assert none == split_by_fractions(200, WindowSpec())
    assert isinstance(none.train, range)


def test_refuses_holes_that_leave_no_window() -> None:
    """The message says how many windows there would be."""
    holes = np.arange(10, 200, 12)
    with pytest.raises(ConfigError, match=r"177 windows .* 177 of which reach across missing rows"):
        split_by_fractions(200, WindowSpec(), holes=holes)
