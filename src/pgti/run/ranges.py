"""Whether newer readings lie where those of training did: a scale or a missing code forgotten."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import option
from pgti.store import SECONDS_PER_DAY, SeriesStore, TypicalReadings

__all__ = ["compare_ranges"]

_MAX_READINGS = 1 << 20
# Limits at which ordinary months and hours of the real series in the tests are not reported.
_MIN_CODES, _CODE_SHARE = 3, 0.01  # readings that are one value, and their share
_SAME = 0.8  # of the readings outside are that value
_OUTSIDE_SHARE, _MARGIN = 0.2, 0.05  # of the readings; of the range of training
_FACTOR, _FAR_SHARE = 7, 0.9
_STEADY = 0.3  # low readings are at least that part of the median, as speeds are and flows are not
_MANY_SENSORS, _LONG_SECONDS = 50, 2 * SECONDS_PER_DAY


def compare_ranges(
    store: SeriesStore,
    typical: TypicalReadings | None,
    num_rows: int | None = None,
    *,
    is_scaled: bool = False,
    missing: tuple[float, ...] | None = None,
) -> tuple[str, ...]:
    """A line for each channel whose newer readings are far from those of training.

    Four things are told: a value outside the range of training that occurs again and again, as a
    missing code does; readings that are several times as large as usual, or as small; many readings
    outside the range; and any reading that is farther outside than the range is wide.

    Args:
        store: newer readings, of the run's sensors and channels.
        typical: what each sensor usually reads; None tells nothing.
        num_rows: newest rows to look at; by default about 2^20 readings.
        is_scaled: whether the scale of training was applied without the user's asking for it.
        missing: codes that they were read with; None for a store, of which nothing is converted.
    """
    if typical is None:
        return ()
    meta, axis = store.meta, store.time_axis
    if num_rows is None:
        num_rows = max(1, _MAX_READINGS // (meta.num_nodes * meta.num_channels))
    first = max(0, meta.num_steps - num_rows)
    rows = np.arange(first, meta.num_steps)
    if typical.num_days > 1 and not axis.is_dated:
        return ()
    readings = store.read(first, meta.num_steps)
    usual = typical.table[typical.bins(axis, rows)]
    is_long = len(rows) * (axis.interval_seconds or 0) >= _LONG_SECONDS
    lines = []
    for channel, name in enumerate(meta.channels):
        observed = ~np.isnan(readings[..., channel])
        if not observed.any() or not np.isfinite(typical.minimum[channel]):
            continue
        comparison = _Comparison(
            name=name,
            sensors=np.nonzero(observed)[1],
            node_ids=meta.node_ids,
            missing=missing,
            readings=readings[..., channel][observed],
            usual=usual[..., channel][observed],
            quantiles=typical.quantiles[:, channel],
            low=float(typical.minimum[channel]),
            high=float(typical.maximum[channel]),
            has_evidence=is_long or meta.num_nodes >= _MANY_SENSORS,
            is_scaled=is_scaled,
        )
        line = (
            comparison.find_code()
            or comparison.find_factor()
            or comparison.find_range()
            or comparison.find_outlier()
        )
        if line is not None:
            lines.append(line)
    return tuple(lines)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Comparison:
    """Observed newer readings of a channel beside those of training.

    Attributes:
        name: of the channel.
        sensors: position of the sensor of each newer reading.
        node_ids: of all sensors.
        missing: codes that the newer ones were read with; None for those of a store.
        readings: the newer ones.
        usual: what their sensors usually read at their times.
        quantiles: of the training readings, at evenly spaced levels.
        low: least training reading.
        high: greatest training reading.
        has_evidence: whether a common cause, such as the weather, can be excluded.
        is_scaled: whether the scale of training was applied to them.
    """

    name: str
    sensors: NDArray[np.int64]
    node_ids: tuple[str, ...]
    missing: tuple[float, ...] | None
    readings: NDArray[np.floating[Any]]
    usual: NDArray[np.floating[Any]]
    quantiles: NDArray[np.floating[Any]]
    low: float
    high: float
    has_evidence: bool
    is_scaled: bool

    def find_code(self) -> str | None:
        """A whole number that occurs again and again, below or above all of training."""
        for outside in (self.readings < self.low, self.readings > self.high):
            values, counts = np.unique(self.readings[outside], return_counts=True)
            if not len(values):
                continue
            place = int(counts.argmax())
            count, total = int(counts[place]), len(self.readings)
            enough = max(_MIN_CODES, _CODE_SHARE * total, _SAME * outside.sum())
            # Where all of them are one value, they may as well be in another unit.
            if enough <= count < total and float(values[place]).is_integer():
                code = float(values[place])
                far = self._describe_farthest(self.readings != code)
                also = "" if far is None else f"; {far}"
                return (
                    f"{count:,} of {total:,} readings of {self.name} are {_show(code)}, outside "
                    f"those of training ({self._range}){also}: if that means missing, "
                    f"{self._pass_missing(code)}"
                )
        return None

    def find_factor(self) -> str | None:
        """Readings that are several times as large as usual, or as small."""
        median = float(self._quantile(0.5))
        low, lower = self._quantile(0.05), self._quantile(0.1)
        is_steady = low > 0 and low >= _STEADY * median
        if not (is_steady or (self.has_evidence and lower > 0)):
            return None
        positive = self.usual > 0
        if not positive.any():
            return None
        factor = float(np.median(self.readings[positive] / self.usual[positive]))
        above = self.readings > (self._quantile(0.95) if is_steady else self._quantile(0.9))
        below = self.readings < (low if is_steady else lower)
        is_large = factor >= _FACTOR and above.mean() >= _FAR_SHARE
        is_small = 0 < factor <= 1 / _FACTOR and below.mean() >= _FAR_SHARE
        if not (is_large or is_small):
            return None
        often = f"{factor:.2g} times" if is_large else f"1/{1 / factor:.2g} of"
        return (
            f"the readings of {self.name} are about {often} what is usual at their times (median "
            f"{np.median(self.readings):.4g}, usual {np.median(self.usual):.4g}): check their unit "
            f"and {self._scale}"
        )

    def find_range(self) -> str | None:
        """Many readings outside the range of training."""
        margin = _MARGIN * (self.high - self.low)
        outside = (self.readings < self.low - margin) | (self.readings > self.high + margin)
        share = float(outside.mean())
        if share < _OUTSIDE_SHARE:
            return None
        return (
            f"{share:.0%} of the readings of {self.name} lie far outside those of training "
            f"({self._range}; now {_show(self.readings.min())} to {_show(self.readings.max())}): "
            f"check their unit, {self._scale} and {option('missing')}"
        )

    def find_outlier(self) -> str | None:
        """A reading that is farther outside the range of training than that is wide."""
        far = self._describe_farthest(np.ones(len(self.readings), dtype=np.bool_))
        if far is None:
            return None
        farthest = float(self.readings[self._distances.argmax()])
        hint = "correct it"
        if farthest.is_integer():
            hint += f", or if it means missing, {self._pass_missing(farthest)}"
        return f"{far}, far outside those of training ({self._range}): {hint}"

    def _describe_farthest(self, among: NDArray[np.bool_]) -> str | None:
        """The reading farthest outside, with its sensor, if that is more than the range's width."""
        distances = np.where(among, self._distances, 0)
        num_far = int((distances > self.high - self.low).sum())
        if not num_far:
            return None
        place = int(distances.argmax())
        more = "" if num_far == 1 else f" (the farthest of {num_far:,} such readings)"
        sensor = self.node_ids[int(self.sensors[place])]
        return f"{self.name} of sensor {sensor} is {_show(self.readings[place])}{more}"

    @property
    def _distances(self) -> NDArray[np.floating[Any]]:
        """How far each reading is outside the range, 0 within it."""
        outside = np.maximum(self.low - self.readings, self.readings - self.high)
        return np.asarray(np.maximum(outside, 0))

    def _pass_missing(self, code: float) -> str:
        """What to do with a code: to name it beside those that the readings were read with."""
        codes = tuple(_plain(each) for each in (*(self.missing or ()), code))
        if self.missing is None:
            return f"ingest the store again with {option('missing', codes)}"
        return f"pass {option('options.missing', codes)}"

    @property
    def _scale(self) -> str:
        if not self.is_scaled:
            return option("scale")
        return f"{option('scale')} ({option('scale', 1)} if they are in that of training already)"

    @property
    def _range(self) -> str:
        return f"{_show(self.low)} to {_show(self.high)}"

    def _quantile(self, level: float) -> np.floating[Any]:
        quantile: np.floating[Any] = self.quantiles[round(level * (len(self.quantiles) - 1))]
        return quantile


def _plain(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _show(value: float | np.floating) -> str:
    return f"{float(value):.6g}"
