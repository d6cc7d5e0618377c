"""Standardization of channels, from training rows alone."""

from dataclasses import dataclass

from pgti.errors import DataError
from pgti.store.store import SeriesStore

__all__ = ["Scaler"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaler:
    """z = (x - mean) / std for each channel, over the observed readings of the training rows.

    Attributes:
        mean: mean of each channel, in the channel's unit.
        std: population standard deviation of each channel; 1 where a channel is constant.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def fit(cls, store: SeriesStore, rows: range) -> "Scaler":
        """Fit on the observed readings of `rows`.

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
        return cls(mean=tuple(moments.mean.tolist()), std=tuple(moments.std.tolist()))
