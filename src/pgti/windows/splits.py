"""Chronological splits: which windows train, which validate, which test.

Two rules are offered. *By fractions* reproduces the rounding of DCRNN's and PGT's preprocessing,
so that results compare with the literature: windows are split, and the windows next to a border
share rows with their neighbours. *By rows* splits the targets: a window belongs to a split when
all its target rows lie in the split's range of rows, and no target row is in two splits.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, require_whole_number
from pgti.windows.spec import WindowSpec

__all__ = [
    "SPLIT_NAMES",
    "SplitName",
    "Splits",
    "split_by_fractions",
    "split_by_rows",
    "subsample_evenly",
]

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """The window starts of each split, in time order; each is a range with the spec's stride."""

    train: range
    val: range
    test: range

    def starts(self, name: SplitName) -> range:
        """Window starts of the split called `name`."""
        if name not in SPLIT_NAMES:
            raise ConfigError(f"there is no split {name!r}: it is one of {', '.join(SPLIT_NAMES)}")
        starts: range = getattr(self, name)
        return starts

    def train_rows(self, spec: WindowSpec) -> range:
        """Rows that statistics may be computed from: the inputs of the training windows.

        DCRNN's rule. No row of it is a target of a validation or test window, so statistics do
        not change when such a reading does.
        """
        if not self.train:
            return range(0)
        return range(self.train[0], self.train[-1] + spec.input_steps)


def split_by_fractions(
    num_steps: int,
    spec: WindowSpec,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    gap: int = 0,
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
    starts = spec.starts(num_steps)
    num_test = round(len(starts) * fractions[2])
    num_train = round(len(starts) * fractions[0])
    num_val = len(starts) - num_train - num_test
    # Both roundings up can claim one window too many; it is taken from the test windows.
    num_test += min(0, num_val)
    num_val = max(0, num_val)
    skipped = -(-gap // spec.stride)
    splits = Splits(
        train=starts[:num_train],
        val=starts[num_train : num_train + num_val][skipped:],
        test=starts[len(starts) - num_test :][skipped:],
    )
    return _checked(splits, num_steps, spec)


def split_by_rows(
    num_steps: int, spec: WindowSpec, *, val_row: int, test_row: int, gap: int = 0
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

    splits = Splits(
        train=targets_within(0, val_row),
        val=targets_within(val_row + gap, test_row),
        test=targets_within(test_row + gap, num_steps),
    )
    return _checked(splits, num_steps, spec)


def _checked(splits: Splits, num_steps: int, spec: WindowSpec) -> Splits:
    if not splits.train:
        raise ConfigError(
            f"no training window: a series of {num_steps} steps has "
            f"{spec.num_windows(num_steps)} windows of {spec.input_steps} + {spec.horizon} steps; "
            "shorten input_steps or horizon, or give train a larger fraction"
        )
    return splits


def subsample_evenly(
    starts: range | NDArray[np.int64], count: int | None
) -> range | NDArray[np.int64]:
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
