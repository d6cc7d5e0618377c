"""Which digits of a source float32 loses: the readings, their largest difference, and the first."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgti.store.codec import Values

__all__ = ["LostDigits"]

_MAX_DECIMALS = 9
_MAX_WRITTEN = 1e13  # above it, so many doubles are decimals that one is no sign of a written one
_MAX_WHOLE = 2.0**53
_WHOLE = 2.0**23  # from here on the floats next to each other are half a unit apart and more
_HEAD_SHARE = 8  # of a piece, whose first rows say how many decimals it has
_HALF = 0.499999  # of the last place: where float32 is halfway, the difference is a bit less
_SKIPPED = 7  # pieces after one of calculated numbers that are right
_SOME = 1 << 10  # numbers
_ROUGH = 0.1  # of the steps from row to row that an error may be


_Errors: TypeAlias = tuple[NDArray[np.bool_], NDArray[np.float64]]
"""Which readings may have lost digits [rows, N], and the error of each of them, 0 if it has not."""


class LostDigits:
    """Counts the readings of which float32 loses digits, piece by piece.

    A number that was written as a decimal, such as 33554433 or 48.123456, has lost digits if the
    float32 nearest to it is another decimal with as many places: 33554432, 48.123455. That of 64.3
    is 64.3 again, and nothing is lost. A number with more digits than anybody writes comes from a
    calculation; float32 has its first seven. Of a sensor with such numbers digits are lost if the
    rounding is more than a tenth of what changes from row to row.

    The decimals of a channel are those of the first rows of a piece; all of its readings are looked
    at where the largest has more than seven digits. Of calculated numbers every eighth piece is
    looked at until one has lost digits.

    Args:
        node_ids: id of each sensor.
        channels: name of each channel.

    Attributes:
        node_ids: as given.
        channels: as given.
        num_lost: readings that have lost digits.
        largest: the largest difference, in original units.
        first: the first of them in words; "" if there is none.
        num_large: readings of an exact store beyond 2^53, where float64 rounds whole numbers.
    """

    def __init__(self, node_ids: tuple[str, ...], channels: tuple[str, ...]) -> None:
        self.node_ids, self.channels = node_ids, channels
        self.num_lost, self.largest, self.first, self.num_large = 0, 0.0, "", 0
        self._decimals = [0] * len(channels)
        self._skipped = [0] * len(channels)

    def compare(self, values: Values, readings: Values, first_row: int) -> None:
        """Compare readings of the source with those that a store has in float32.

        Args:
            values: of the source [rows, N, C]; NaN means missing.
            readings: the same in float32.
            first_row: number of their first row.
        """
        if np.can_cast(values.dtype, np.float32, "safe") or not len(values):
            return
        for channel in range(len(self.channels)):
            source = values[..., channel].astype(np.float64, copy=False)
            stored = readings[..., channel]
            found = self._find(source, stored, channel)
            if found is not None:
                self._count(source, stored, found, first_row, channel)

    def look_for_large(self, values: Values) -> None:
        """Count readings [rows, N, C] beyond 2^53: a text may have written other whole numbers."""
        magnitudes = np.abs(values)
        largest = float(np.fmax.reduce(magnitudes, axis=None))
        if largest > _MAX_WHOLE:
            self.num_large += int(np.count_nonzero(magnitudes > _MAX_WHOLE))

    def note(self, advice: str) -> tuple[str, ...]:
        """What was lost, in one line that ends with what to do about it; none if nothing was."""
        if self.num_large:
            were = "1 reading is" if self.num_large == 1 else f"{self.num_large:,} readings are"
            return (
                f"{were} beyond 2^53, where float64 has no longer every whole number: they are the "
                "nearest that it has",
            )
        if not self.num_lost:
            return ()
        were = "1 reading has" if self.num_lost == 1 else f"{self.num_lost:,} readings have"
        return (
            f"{were} more digits than float32 and changed by up to {self.largest:.6g} "
            f"({self.first}): {advice}",
        )

    def _find(self, source: NDArray[np.float64], stored: Values, channel: int) -> _Errors | None:
        """The readings that may have lost digits, and their errors; None if none has."""
        if self._skipped[channel]:
            self._skipped[channel] -= 1
            return None
        head = source[: -(-len(source) // _HEAD_SHARE)]
        if not _is_on(head, self._decimals[channel]):
            finer = (each for each in range(_MAX_DECIMALS + 1) if _is_on(head, each))
            decimals = next(finer, None)
            if decimals is None:
                rough = _find_rough(source, stored)
                self._skipped[channel] = 0 if rough is not None else _SKIPPED
                return rough
            self._decimals[channel] = max(decimals, self._decimals[channel])
        scale = 10.0 ** self._decimals[channel]
        if float(np.fmax.reduce(np.abs(stored), axis=None)) * scale < _WHOLE:
            return None
        error = source - stored
        np.abs(error, out=error)
        suspects = error >= _HALF / scale  # NaN is not
        if not suspects.any():
            return None
        numbers, errors = source[suspects], error[suspects]
        # Some have fewer decimals: they are asked for those alone.
        shorter: Any = slice(None)
        for decimals in reversed(range(self._decimals[channel])):
            power = 10.0**decimals
            left = numbers[shorter]
            is_shorter = np.rint(left * power) / power == left
            places = np.flatnonzero(is_shorter)
            shorter = places if isinstance(shorter, slice) else shorter[places]
            errors[shorter[errors[shorter] * power < _HALF]] = 0
        return suspects, errors

    def _count(
        self,
        source: NDArray[np.float64],
        stored: Values,
        found: _Errors,
        first_row: int,
        channel: int,
    ) -> None:
        suspects, errors = found
        count = int(np.count_nonzero(errors))
        if not count:
            return
        self.num_lost += count
        self.largest = max(self.largest, float(errors.max()))
        if not self.first:
            row, node = (int(each) for each in np.argwhere(suspects)[np.flatnonzero(errors)[0]])
            of_channel = f", channel {self.channels[channel]!r}" if len(self.channels) > 1 else ""
            self.first = (
                f"the first in row {first_row + row}, sensor {self.node_ids[node]!r}{of_channel}: "
                f"{_plain(source[row, node])} became {_plain(stored[row, node])}"
            )


def _is_on(values: NDArray[np.float64], decimals: int) -> bool:
    """Whether all observed values are decimals with that many places."""
    scale = 10.0**decimals
    some = max(1, _SOME // values.shape[1])
    for part in (values[:some], values[some:]):  # most often the first few tell
        scaled = part * scale
        if decimals and float(np.fmax.reduce(np.abs(scaled), None, initial=0)) > _MAX_WRITTEN:
            return False
        is_on = np.rint(scaled, out=scaled)
        is_on /= scale
        if not ((is_on == part) | np.isnan(part)).all():
            return False
    return True


def _find_rough(source: NDArray[np.float64], stored: Values) -> _Errors | None:
    """The readings of sensors whose rounding is much of what changes from row to row."""
    head = slice(max(2, -(-len(source) // _HEAD_SHARE)))
    steps = np.abs(np.diff(source[head], axis=0))
    errors = np.abs(source[head] - stored[head])
    num_steps, num_errors = ((~np.isnan(each)).sum(axis=0) for each in (steps, errors))
    mean_step = np.nansum(steps, axis=0) / np.maximum(num_steps, 1)
    mean_error = np.nansum(errors, axis=0) / np.maximum(num_errors, 1)
    is_rough = (mean_step > 0) & (mean_error > _ROUGH * mean_step)
    if not is_rough.any():
        return None
    error = np.abs(source - stored)
    suspects = (error > 0) & is_rough
    return suspects, error[suspects]


def _plain(value: np.floating) -> str:
    """A number with all its digits and no more; a whole one is not shortened to 2147483600."""
    return np.format_float_positional(np.float64(value) if value % 1 == 0 else value, trim="-")
