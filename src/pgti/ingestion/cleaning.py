"""From raw values to readings: missing codes to NaN, infinities refused, units scaled."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, option
from pgti.ingestion.instants import RowLabels
from pgti.ingestion.options import IngestOptions

__all__ = ["Cleaner", "drop_codes", "numeric_codes", "scale_values"]


class Cleaner:
    """Cleans chunk after chunk, and counts infinite readings on the way.

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
        self._scale = options.scale
        self._labels = labels
        self._num_infinite = 0
        self._first_infinite: str | None = None

    @property
    def has_failed(self) -> bool:
        """Whether an infinite reading was met: there will be no store, the rest is only counted."""
        return self._first_infinite is not None

    def clean(self, values: NDArray[np.floating[Any]], first_row: int) -> NDArray[np.floating[Any]]:
        """Readings [rows, N, C], in the array given where its dtype allows."""
        drop_codes(values, self._missing)
        self._count_infinities(values, first_row)
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
