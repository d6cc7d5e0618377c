"""Mergeable statistics of readings: count, mean and squared deviations."""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from pgti.store.codec import Codec, Raw, Values

__all__ = ["Moments", "moments_of", "moments_of_raw", "moments_of_rows"]


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Statistics of the observed readings of each channel.

    Attributes:
        count: observed readings, float64 [C].
        mean: their mean, float64 [C]; 0 where the count is 0.
        m2: the sum of squared deviations from the mean, float64 [C].
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviations to divide by, [C]: 1 where they would be 0."""
        std = np.sqrt(self.m2 / np.maximum(self.count, 1))
        return np.where(std > 0, std, 1.0)

    @classmethod
    def empty(cls, num_channels: int) -> "Moments":
        """Moments of no readings."""
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

    def to_array(self) -> NDArray[np.float64]:
        """Count, mean and m2 of each channel, [C, 3]."""
        return np.stack([self.count, self.mean, self.m2], axis=-1)

    @staticmethod
    def merge_all(parts: list["Moments"], num_channels: int) -> "Moments":
        """Moments of all parts together, merged in the order given."""
        return reduce(Moments.merge, parts, Moments.empty(num_channels))


def moments_of_raw(raw: Raw, codec: Codec) -> Moments:
    """Moments of stored readings, accumulated in float64.

    They are those of the decoded readings, so that a statistic never depends on the dtype on disk,
    which readings elsewhere in the series decide.

    Args:
        raw: stored readings [rows, N, C].
        codec: decodes them.
    """
    return moments_of(codec.decode(raw))


def moments_of(values: Values) -> Moments:
    """Moments of readings [rows, N, C], NaN for missing, accumulated in float64."""
    parts = [_channel_moments(values[..., channel]) for channel in range(values.shape[-1])]
    count, mean, m2 = np.asarray(parts, dtype=np.float64).reshape(-1, 3).T
    return Moments(count, mean, m2)


def _channel_moments(values: Values) -> tuple[float, float, float]:
    missing = np.isnan(values)
    observed = (values[~missing] if missing.any() else values.ravel()).astype(np.float64)
    if observed.size == 0:
        return 0.0, 0.0, 0.0
    mean = float(observed.mean())
    observed -= mean
    # Not np.dot, whose last bit depends on the number of threads.
    return float(observed.size), mean, float(np.square(observed, out=observed).sum())


def moments_of_rows(
    raw: Raw, codec: Codec, rows: range, block_moments: NDArray[np.float64], block_rows: int
) -> Moments:
    """Statistics of the observed readings of consecutive rows.

    Args:
        raw: the stored series [T, N, C].
        codec: decodes it.
        rows: which rows.
        block_moments: count, mean and m2 of each whole block of rows, [blocks, C, 3].
        block_rows: rows of a block; only rows at the two ends are read.
    """
    first, last = -(-rows.start // block_rows), rows.stop // block_rows
    if last <= first:
        return moments_of_raw(raw[rows.start : rows.stop], codec)
    parts = [
        moments_of_raw(raw[rows.start : first * block_rows], codec),
        *(Moments(*block_moments[block].T) for block in range(first, last)),
        moments_of_raw(raw[last * block_rows : rows.stop], codec),
    ]
    return Moments.merge_all(parts, raw.shape[2])
