"""Chronological splits: which windows train, which validate, which test.

Two rules are offered. *By fractions* reproduces the rounding of DCRNN's and PGT's preprocessing,
so that results compare with the literature: windows are split, and the windows next to a border
share rows with their neighbours. *By rows* splits the targets: a window belongs to a split when
all its target rows lie in the split's range of rows, and no target row is in two splits.

Windows that reach across a hole in the times are left out before the windows are split.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, option, require_whole_number
from pgti.windows.spec import WindowSpec

__all__ = [
    "SPLIT_NAMES",
    "SplitName",
    "Splits",
    "Starts",
    "leave_out_holes",
    "split_by_fractions",
    "split_by_rows",
    "subsample_evenly",
]

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)

Starts: TypeAlias = range | NDArray[np.int64]
"""Window starts in time order: a range, or int64 [S] where windows between them are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """The window starts of each split, in time order.

    Attributes:
        train: a range with the spec's stride, or an array where windows are left out.
        val: likewise.
        test: likewise.
        num_left_out: windows that are in no split because they reach across a hole.
    """

    train: Starts
    val: Starts
    test: Starts
    num_left_out: int = 0

    def starts(self, name: SplitName) -> Starts:
        """Window starts of the split called `name`."""
        if name not in SPLIT_NAMES:
            raise ConfigError(f"there is no split {name!r}: it is one of {', '.join(SPLIT_NAMES)}")
        starts: Starts = getattr(self, name)
        return starts

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in one line."""
        if not self.num_left_out:
            return ()
        total = self.num_left_out + sum(len(self.starts(name)) for name in SPLIT_NAMES)
        reach = "window reaches" if self.num_left_out == 1 else "windows reach"
        return (
            f"{self.num_left_out:,} of {total:,} {reach} across missing rows and "
            f"{'is' if self.num_left_out == 1 else 'are'} left out; "
            f"{option('windows.across_holes', value=True)} uses such windows",
        )

    def train_rows(self, spec: WindowSpec) -> range:
        """Rows that statistics may be computed from: the inputs of the training windows.

        DCRNN's rule. No row of it is a target of a validation or test window, so statistics do
        not change when such a reading does.
        """
        if not len(self.train):
            return range(0)
        return range(int(self.train[0]), int(self.train[-1]) + spec.input_steps)


def leave_out_holes(starts: Starts, extent: range, holes: NDArray[np.int64] | None) -> Starts:
    """The starts of the windows that reach across no hole; a range where all of them do so.

    Args:
        starts: window starts, rising.
        extent: rows that a window reaches over, relative to its start (`WindowSpec.extent`).
        holes: the rows that a hole follows, rising, int64; None or empty for none.

    >>> leave_out_holes(range(0, 10), range(3), np.array([4]))
    array([0, 1, 2, 5, 6, 7, 8, 9])
    """
    if holes is None or not len(holes):
        return starts
    firsts = np.asarray(starts, dtype=np.int64) + extent.start
    before = np.append(holes, np.iinfo(np.int64).max)[np.searchsorted(holes, firsts)]
    is_whole = before >= firsts + len(extent) - 1
    return starts if is_whole.all() else np.asarray(starts, dtype=np.int64)[is_whole]


def split_by_fractions(
    num_steps: int,
    spec: WindowSpec,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    gap: int = 0,
    holes: NDArray[np.int64] | None = None,
) -> Splits:
    """Split the windows of a series into consecutive parts, rounded as DCRNN and PGT round.

    With W windows, test has round(W * fractions[2]), train round(W * fractions[0]) and
    validation what is left (Python's round, half to even).

    Args:
        num_steps: rows of the series.
        spec: the window's shape.
        fractions: of train, validation and test; each >= 0, train > 0, sum 1.
        gap: rows left out between splits: the windows of validation and test whose start lies
            within `gap` rows after where the split would begin are dropped. With
            `gap = spec.span - 1` no row is in two splits.
        holes: the rows that a hole follows: windows that reach across one are left out, and the
            others are split; None leaves none out.

    Raises:
        ConfigError: if the fractions or the gap break their rules, or if no training window is
            left.

    >>> splits = split_by_fractions(34_272, WindowSpec())
    >>> len(splits.train), len(splits.val), len(splits.test)
    (23974, 3425, 6850)
    """
    if not all(0.0 <= each <= 1.0 for each in fractions):
        raise ConfigError(
            f"split fractions {fractions} must be three numbers between 0 and 1: train, val, test"
        )
    if abs(sum(fractions) - 1.0) > 1e-6:
        raise ConfigError(
            f"split fractions {fractions} add up to {sum(fractions):g}: they must add up to 1"
        )
    require_whole_number("gap", gap, 0)
    starts = leave_out_holes(spec.starts(num_steps), spec.extent, holes)
    num_test = round(len(starts) * fractions[2])
    num_train = round(len(starts) * fractions[0])
    num_val = len(starts) - num_train - num_test
    # Both roundings up can claim one window too many; it is taken from the test windows.
    num_test += min(0, num_val)
    num_val = max(0, num_val)
    splits = Splits(
        train=starts[:num_train],
        val=_after_gap(starts[num_train : num_train + num_val], gap),
        test=_after_gap(starts[len(starts) - num_test :], gap),
        num_left_out=spec.num_windows(num_steps) - len(starts),
    )
    return _checked(splits, num_steps, spec)


def _after_gap(starts: Starts, gap: int) -> Starts:
    """The windows that begin at least `gap` rows after the first."""
    if isinstance(starts, range):
        return starts[-(-gap // starts.step) :]
    return starts[starts >= starts[0] + gap] if len(starts) else starts


def split_by_rows(
    num_steps: int,
    spec: WindowSpec,
    *,
    val_row: int,
    test_row: int,
    gap: int = 0,
    holes: NDArray[np.int64] | None = None,
) -> Splits:
    """Split by target rows: validation's targets begin at `val_row`, test's at `test_row`.

    A window whose targets cross a border belongs to no split; the inputs of a validation or test
    window may reach back across it, as they would in use.

    Args:
        num_steps: rows of the series.
        spec: the window's shape.
        val_row: first row that is a validation target, 0 < val_row <= test_row.
        test_row: first row that is a test target, <= num_steps.
        gap: rows after each border that are nobody's targets.
        holes: the rows that a hole follows: windows that reach across one are left out.

    Raises:
        ConfigError: if the rows are out of order or outside the series, or no training window is
            left.
    """
    if not 0 < val_row <= test_row <= num_steps:
        raise ConfigError(
            f"validation begins at row {val_row} and test at row {test_row}: "
            f"the rule is 0 < validation <= test <= {num_steps} (the series' length)"
        )
    require_whole_number("gap", gap, 0)
    starts = spec.starts(num_steps)

    def targets_within(first: int, end: int) -> range:
        low = -(-max(0, first - spec.input_steps) // spec.stride)  # rounded up
        high = (end - spec.span) // spec.stride + 1
        return starts[low : max(low, high)]

    parts = (
        targets_within(0, val_row),
        targets_within(val_row + gap, test_row),
        targets_within(test_row + gap, num_steps),
    )
    train, val, test = (leave_out_holes(part, spec.extent, holes) for part in parts)
    num_left_out = sum(map(len, parts)) - len(train) - len(val) - len(test)
    splits = Splits(train=train, val=val, test=test, num_left_out=num_left_out)
    return _checked(splits, num_steps, spec)


def _checked(splits: Splits, num_steps: int, spec: WindowSpec) -> Splits:
    if not len(splits.train):
        left_out = ""
        if splits.num_left_out:
            left_out = (
                f", {splits.num_left_out} of which reach across missing rows "
                f"({option('windows.across_holes', value=True)} uses them)"
            )
        raise ConfigError(
            f"no training window: a series of {num_steps} steps has "
            f"{spec.num_windows(num_steps)} windows of {spec.input_steps} + {spec.horizon} steps"
            f"{left_out}; shorten input_steps or horizon, or give train a larger fraction"
        )
    return splits


def subsample_evenly(starts: Starts, count: int | None) -> Starts:
    """At most `count` of the starts, spread evenly over them, in their order.

    The same for the same arguments, always; the first and the last are among them where `count`
    is 2 or more, and 1 takes the middle one.

    Args:
        starts: window starts of a split.
        count: how many to take; None, or as many as there are, takes all.

    Raises:
        ConfigError: if `count` is not a positive whole number.
    """
    if count is None:
        return starts
    require_whole_number("max_windows", count, 1)
    last = len(starts) - 1
    if count > last:
        return starts
    if count == 1:
        return np.asarray(starts, dtype=np.int64)[last // 2 : last // 2 + 1]
    return np.asarray(starts, dtype=np.int64)[np.arange(count) * last // (count - 1)]
