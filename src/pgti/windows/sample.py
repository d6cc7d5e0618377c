"""A few windows in place of all of a split."""

import numpy as np
from numpy.typing import NDArray

from pgti.errors import require_whole_number

__all__ = ["subsample_evenly"]


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
    require_whole_number("the number of windows", count, 1)
    last = len(starts) - 1
    if count > last:
        return starts
    if count == 1:
        return np.asarray(starts, dtype=np.int64)[last // 2 : last // 2 + 1]
    return np.asarray(starts, dtype=np.int64)[np.arange(count) * last // (count - 1)]
