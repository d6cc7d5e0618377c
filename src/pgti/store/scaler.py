"""Standardization of channels, from training rows alone."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.store.codec import Codec
from pgti.store.moments import Moments
from pgti.store.static_features import StaticFeatures
from pgti.store.store import SeriesStore

__all__ = ["Scaler"]

_CHUNK_READINGS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaler:
    """z = (x - offset - mean) / std, over the observed readings of the training rows.

    A series in float32 has no offsets: mean and standard deviation are those of a channel.

    In float32, z of a meter that reads 33,554,433 would not show that it moves by ones. So in an
    exact series each sensor and channel has an offset, its training mean rounded to the channel's
    grid: x - offset is computed in float64 and is small. The mean is 0 then, and the standard
    deviation, that of all x - offset of a channel, is rounded to a power of two, so that float32
    holds z and what z stands for exactly, too.

    Attributes:
        mean: mean of each channel, in the channel's unit.
        std: population standard deviation of each channel; 1 where a channel is constant.
        offsets: of each sensor and channel, N * C numbers, the channels of a sensor together; None
            without offsets. A sensor without a training reading has the mean offset of the others.
        static_mean: mean of each numeric feature of the sensors, over the sensors; None where the
            series has no such feature. A run that starts from another has that run's.
        static_std: standard deviation of each, 1 where it is the same everywhere; with the mean.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    offsets: tuple[float, ...] | None = None
    static_mean: tuple[float, ...] | None = None
    static_std: tuple[float, ...] | None = None

    @classmethod
    def fit(cls, store: SeriesStore, rows: range) -> "Scaler":
        """Fit on the observed readings of `rows`; of an exact series all of them are read.

        Raises:
            DataError: if a channel has no observed reading there.
        """
        moments = store.moments(rows)
        for name, count in zip(store.meta.channels, moments.count, strict=True):
            if count == 0:
                raise DataError(
                    f"channel {name!r} has no observed reading in the training rows "
                    f"{rows.start} to {rows.stop - 1}; choose another split or drop the channel"
                )
        if store.meta.is_exact:
            scaler = _fit_offsets(store, rows)
        else:
            scaler = cls(mean=tuple(moments.mean.tolist()), std=tuple(moments.std.tolist()))
        return scaler.with_static(store.static_features)

    def with_static(self, features: StaticFeatures | None) -> "Scaler":
        """The same with mean and standard deviation of these features, unless it has them."""
        if self.static_mean is not None or features is None or all(features.is_categorical):
            return self
        mean, std = features.statistics()
        return replace(self, static_mean=tuple(mean.tolist()), static_std=tuple(std.tolist()))

    @property
    def offset_array(self) -> NDArray[np.float64] | None:
        """The offsets, [N, C]; None without."""
        if self.offsets is None:
            return None
        return np.array(self.offsets).reshape(-1, len(self.mean))

    def to_plain(self) -> dict[str, list[float]]:
        """Its numbers by name, as a checkpoint has them."""
        numbers = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: list(each) for name, each in numbers.items() if each is not None}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The scaler that `to_plain` describes."""
        return cls(
            **{each.name: tuple(plain[each.name]) for each in fields(cls) if each.name in plain}
        )

    def check_fits(self, num_nodes: int, num_channels: int, static: StaticFeatures | None) -> None:
        """Refuse to standardise the readings of other sensors or channels, or other features.

        Raises:
            DataError: naming what differs.
        """
        numeric = 0 if static is None else static.is_categorical.count(False)
        features = len(self.static_mean or ())
        for what, known, present in (
            ("channels", len(self.mean), num_channels),
            ("sensors", len(self.offsets or ()) // len(self.mean) or num_nodes, num_nodes),
            ("features", features or numeric, numeric or features),
        ):
            if known != present:
                raise DataError(
                    f"the scaler has the numbers of {known} {what} and the series has {present}: "
                    "fit it on the training rows of the series"
                )


def _fit_offsets(store: SeriesStore, rows: range) -> Scaler:
    meta = store.meta
    shape = meta.num_nodes, meta.num_channels
    moments = Moments.empty(math.prod(shape))
    first = np.full(math.prod(shape), np.nan)  # readings: of the others the difference is added up
    size = max(1, _CHUNK_READINGS // math.prod(shape))
    for begin in range(rows.start, rows.stop, size):
        chunk = store.read(begin, min(begin + size, rows.stop)).reshape(-1, math.prod(shape))
        newest = chunk[(~np.isnan(chunk)).argmax(axis=0), np.arange(len(first))]
        first = np.where(np.isnan(first), newest, first)
        chunk = chunk - first
        count = (~np.isnan(chunk)).sum(axis=0).astype(np.float64)
        mean = np.nansum(chunk, axis=0) / np.maximum(count, 1)
        m2 = np.nansum(np.square(chunk - mean), axis=0)
        moments = moments.merge(Moments(count, mean, m2))
        store.release()
    count, mean, m2 = (
        each.reshape(shape) for each in (moments.count, first + moments.mean, moments.m2)
    )
    usual = (count > 0).sum(axis=0)
    usual_mean = np.where(count > 0, mean, 0).sum(axis=0) / usual
    offsets = _round_to_grid(np.where(count > 0, mean, usual_mean), store.codec)
    # Of x - offset: deviations from a sensor's mean, and what rounding it has added.
    squares = (m2 + count * np.square(mean - offsets)).sum(axis=0)
    std = np.sqrt(squares / count.sum(axis=0))
    powers = [math.ldexp(1.0, round(math.log2(each))) if each > 0 else 1.0 for each in std]
    return Scaler(
        mean=(0.0,) * meta.num_channels,
        std=tuple(powers),
        offsets=tuple(offsets.ravel().tolist()),
    )


def _round_to_grid(values: NDArray[np.float64], codec: Codec) -> NDArray[np.float64]:
    if codec.divisors is None:
        return values
    divisors = np.array(codec.divisors, dtype=np.float64)
    rounded: NDArray[np.float64] = np.rint(values * divisors) / divisors
    return rounded
