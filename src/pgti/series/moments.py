"""Count, mean and squared deviations of readings, kept so that parts can be merged."""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from pgti.series.codec import MISSING_CODE, Codec, GridCodec

__all__ = ["Moments", "moments_of_raw"]


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Statistics of the observed readings of each channel.

    Args:
        count: observed readings, float64 [C].
        mean: their mean, float64 [C]; 0 where there is none.
        m2: the sum of squared deviations from the mean, float64 [C].
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @classmethod
    def empty(cls, num_channels: int) -> "Moments":
        """Moments of no readings at all."""
        zeros = np.zeros(num_channels)
        return cls(zeros, zeros, zeros)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both parts together (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        safe = np.where(count > 0, count, 1.0)
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / safe
        m2 = self.m2 + other.m2 + delta**2 * self.count * other.count / safe
        return Moments(count, mean, m2)

    @staticmethod
    def merge_all(parts: list["Moments"], num_channels: int) -> "Moments":
        """Moments of all parts together, merged in the order given."""
        return reduce(Moments.merge, parts, Moments.empty(num_channels))


def moments_of_raw(raw: NDArray[np.int16] | NDArray[np.float32], codec: Codec) -> Moments:
    """Moments of stored readings, accumulated in float64 (in whole numbers for int16).

    Args:
        raw: stored readings [rows, N, C].
        codec: what they mean.
    """
    channels = [raw[..., c] for c in range(raw.shape[-1])]
    if isinstance(codec, GridCodec):
        parts = [
            _grid_moments(channel, divisor)
            for channel, divisor in zip(channels, codec.divisors, strict=True)
        ]
    else:
        parts = [_float_moments(channel) for channel in channels]
    count, mean, m2 = np.asarray(parts, dtype=np.float64).reshape(-1, 3).T
    return Moments(count, mean, m2)


def _grid_moments(codes: NDArray[np.int16], divisor: int) -> tuple[float, float, float]:
    missing = int(np.count_nonzero(codes == MISSING_CODE))
    count = codes.size - missing
    if count == 0:
        return 0.0, 0.0, 0.0
    # Sums of whole numbers are exact: no reading's rounding depends on its neighbours.
    total = int(codes.sum(dtype=np.int64)) - missing * MISSING_CODE
    wide = codes.astype(np.int32)
    squares = int(np.multiply(wide, wide, out=wide).sum(dtype=np.int64)) - missing * MISSING_CODE**2
    # count * M2 = count * sum(q^2) - sum(q)^2, in Python's unbounded integers.
    m2 = (count * squares - total * total) / count
    return float(count), total / count / divisor, m2 / divisor**2


def _float_moments(values: NDArray[np.float32]) -> tuple[float, float, float]:
    observed = values[~np.isnan(values)].astype(np.float64)
    if observed.size == 0:
        return 0.0, 0.0, 0.0
    mean = float(observed.mean())
    return float(observed.size), mean, float(((observed - mean) ** 2).sum())
