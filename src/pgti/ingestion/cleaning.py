"""From raw values to readings: missing codes to NaN, infinities refused, units scaled."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.instants import RowLabels
from pgti.ingestion.options import IngestOptions

__all__ = ["Cleaner", "drop_codes", "numeric_codes", "scale_values"]


_NINES = tuple(
    float(sign + code)
    for sign in ("", "-")
    for code in ("999.9", "999.99", "9999", "9999.9", "9999.99", "99999", "999999", "1e20", "1e30")
)
_NETCDF_FILL = 9.969209968386869e36
_USUAL_CODES = (*_NINES, -999.0, -32768.0, _NETCDF_FILL)  # 999 and 32767 may well be readings
_SMALLEST_CODE = 999


class Cleaner:
    """Cleans chunk after chunk, and counts infinite readings, and usual codes, on the way.

    Args:
        options: raw values that mean "missing", which may be infinite; scales, none, one for all
            channels, or one for each.
        channels: name of each channel.
        node_ids: id of each sensor.
        labels: what messages call the rows.
        has_codes: whether codes of missing readings may be among the values; where a reader made
            them NaN, a mean that is as large as a code is a reading.
    """

    def __init__(
        self,
        options: IngestOptions,
        channels: tuple[str, ...],
        node_ids: tuple[str, ...],
        labels: RowLabels,
        *,
        has_codes: bool = True,
    ) -> None:
        self._channels = channels
        self._node_ids = node_ids
        self._missing = numeric_codes(options.missing) if has_codes else ()
        self._has_codes = has_codes
        self._scale = options.scale
        self._labels = labels
        self._num_infinite = 0
        self._first_infinite: str | None = None
        self._lowest, self._highest = math.inf, -math.inf
        self._num_codes = dict.fromkeys(_USUAL_CODES, 0)

    @property
    def has_failed(self) -> bool:
        """Whether an infinite reading was met: there will be no store, the rest is only counted."""
        return self._first_infinite is not None

    def clean(self, values: NDArray[np.floating[Any]], first_row: int) -> NDArray[np.floating[Any]]:
        """Readings [rows, N, C], in the array given where its dtype allows."""
        drop_codes(values, self._missing)
        self._count_infinities(values, first_row)
        if values.size and self._has_codes:
            self._count_codes(values)
        if len(self._scale) == 1:
            return scale_values(values, self._scale[0])
        if self._scale:
            parts = [scale_values(values[..., c], factor) for c, factor in enumerate(self._scale)]
            return np.stack(parts, axis=-1)
        return values

    def check(self) -> None:
        """Refuse the source if it had infinite readings.

        Raises:
            DataError: with their number and the place of the first.
        """
        if self._first_infinite is not None:
            raise DataError(
                f"{self._labels.source} has {self._num_infinite} infinite readings, the first "
                f"{self._first_infinite}: declare the value with {option('missing')} or repair the "
                f"source"
            )

    def notes(self) -> tuple[str, ...]:
        """A line for each usual code of missing readings that is the smallest or largest value."""
        notes = []
        for code, number in self._num_codes.items():
            end = "smallest" if code < 0 else "largest"
            bound = self._lowest if code < 0 else self._highest
            if number and math.isclose(code, bound, rel_tol=1e-6):
                shown = int(code) if code.is_integer() and abs(code) < 1e6 else code
                notes.append(
                    f"{count_of(number, 'reading')} of {self._labels.source} "
                    f"{'is' if number == 1 else 'are'} {shown}, the {end} of all: if it means "
                    f"missing, pass {option('missing', (shown,))}"
                )
        return tuple(notes)

    def _count_codes(self, values: NDArray[np.floating[Any]]) -> None:
        low, high = (float(each.reduce(values, axis=None)) for each in (np.fmin, np.fmax))
        self._lowest, self._highest = min(self._lowest, low), max(self._highest, high)
        if abs(low) < _SMALLEST_CODE and abs(high) < _SMALLEST_CODE:
            return
        for code in _USUAL_CODES:
            stored = values.dtype.type(code)
            if stored in (low, high):
                self._num_codes[code] += int((values == stored).sum())

    def _count_infinities(self, values: NDArray[np.floating[Any]], first_row: int) -> None:
        infinite = np.isinf(values)
        if not infinite.any():
            return
        if self._first_infinite is None:
            row, node, channel = (int(place) for place in np.argwhere(infinite)[0])
            self._first_infinite = (
                f"({values[row, node, channel]}) in {self._labels.short(first_row + row)}, sensor "
                f"{self._node_ids[node]!r}, channel {self._channels[channel]!r}"
            )
        self._num_infinite += int(infinite.sum())


def numeric_codes(missing: tuple[float | str, ...]) -> tuple[float, ...]:
    """The codes of missing readings that are numbers; NaN, which always is one, is left out."""
    return tuple(code for code in missing if not isinstance(code, str) and not math.isnan(code))


def drop_codes(values: NDArray[np.floating[Any]], codes: Iterable[float]) -> None:
    """Make the codes of missing readings NaN, in the array given."""
    for code in codes:
        values[values == values.dtype.type(code)] = np.nan


def scale_values(values: NDArray[np.floating[Any]], factor: float) -> NDArray[np.floating[Any]]:
    """Values times the factor, correctly rounded where the factor is 1/k for a whole number k."""
    if factor == 1:
        return values
    divisor = round(1 / factor) if math.isfinite(1 / factor) else 0
    if divisor != 0 and math.isclose(divisor * factor, 1, rel_tol=1e-12):
        # A product with 0.1 is rounded twice (0.1 itself is not exact); a quotient once. Rounded to
        # float32 afterwards, a float64 quotient of float32 numbers is that of float32.
        return values.astype(np.float64, copy=False) / divisor
    return values.astype(np.float64) * factor
