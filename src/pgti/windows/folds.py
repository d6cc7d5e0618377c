"""Rolling origins: consecutive stretches of a series, each forecast from what lies before it."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, option, require_whole_number
from pgti.windows.spec import WindowSpec
from pgti.windows.splits import Starts, leave_out_holes

__all__ = ["Fold", "rolling_folds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """A stretch that is forecast by a model of the rows before it.

    Attributes:
        first_row: its first row, the first that is a target; everything that is learned comes from
            the rows before it.
        starts: starts of the windows whose first target lies in the stretch. Their inputs reach
            before it, and the targets of the last ones beyond it.
    """

    first_row: int
    starts: Starts


def rolling_folds(
    num_steps: int,
    spec: WindowSpec,
    num_folds: int,
    *,
    first_row: int | None = None,
    fold_steps: int | None = None,
    holes: NDArray[np.int64] | None = None,
) -> tuple[Fold, ...]:
    """Consecutive folds up to the end of a series; each window is in one of them.

    Args:
        num_steps: rows of the series.
        spec: the window's shape.
        num_folds: how many.
        first_row: first row of the first fold; by default half the series lies before it, or
            `num_folds * fold_steps` first targets after it.
        fold_steps: rows of a fold; by default the folds divide what there is, equal to a row.
        holes: the rows that a hole follows: windows that reach across one are left out; None leaves
            none out.

    Raises:
        ConfigError: if a number breaks its rule, or the series is too short.

    >>> [fold.first_row for fold in rolling_folds(1000, WindowSpec(), 3)]
    [500, 663, 826]
    """
    require_whole_number("folds", num_folds, 1)
    if num_folds > num_steps:
        raise ConfigError(
            f"there are {num_folds} folds and the series has {num_steps} steps: use fewer "
            f"{option('folds')}"
        )
    if fold_steps is not None:
        require_whole_number("fold_steps", fold_steps, 1)
    stop = num_steps - spec.horizon + 1  # of the rows that can be a first target
    if first_row is None:
        first_row = num_steps // 2 if fold_steps is None else stop - num_folds * fold_steps
    if fold_steps is None:
        rows = [first_row + (stop - first_row) * i // num_folds for i in range(num_folds + 1)]
    else:
        rows = [first_row + fold_steps * i for i in range(num_folds + 1)]
    if not spec.input_steps <= rows[0] < stop or rows[-1] > stop:
        raise ConfigError(
            f"{num_folds} folds of {'equal' if fold_steps is None else fold_steps} steps from row "
            f"{first_row} do not fit into a series of {num_steps} steps, of which the first "
            f"{spec.input_steps} are inputs and the last {spec.horizon - 1} no first target: use "
            f"fewer {option('folds')}, smaller {option('fold_steps')}, or another "
            f"{option('first_from')}"
        )
    folds = tuple(
        Fold(
            first_row=begin,
            starts=leave_out_holes(
                range(
                    _next_multiple(begin - spec.input_steps, spec.stride),
                    end - spec.input_steps,
                    spec.stride,
                ),
                spec.extent,
                holes,
            ),
        )
        for begin, end in pairwise(rows)
    )
    for number, fold in enumerate(folds, start=1):
        if not len(fold.starts):
            raise ConfigError(
                f"fold {number} of {num_folds} has no window: use fewer {option('folds')}, or a "
                f"smaller {option('windows.stride')}"
            )
    return folds


def _next_multiple(number: int, of: int) -> int:
    return -(-number // of) * of
