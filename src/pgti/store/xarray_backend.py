"""A channel of a store as an array that xarray indexes: imported where xarray is known to be."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from pgti.store.codec import GridCodec, Values

if TYPE_CHECKING:
    from pgti.store.store import SeriesStore

__all__ = ["lazy_channel"]


class _StoredChannel(BackendArray):
    """Readings of one channel, [T, N]; other processes open the store themselves.

    Args:
        store: that has them.
        channel: its place.
    """

    def __init__(self, store: "SeriesStore", channel: int) -> None:
        self._store, self._channel = store, channel
        codec = store.codec
        if isinstance(codec, GridCodec):
            codec = replace(codec, divisors=(codec.divisors[channel],))
        self._codec = codec
        self.shape = store.raw.shape[:2]
        self.dtype = np.dtype(codec.reading_dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> Values:
        """Readings at whole numbers or slices of rows and sensors."""
        raw = self._store.raw[(*key, slice(self._channel, self._channel + 1))]
        return self._codec.decode(raw)[..., 0]


def lazy_channel(store: "SeriesStore", channel: int) -> Any:
    """The readings of a channel [T, N], of which only what is indexed is read."""
    return indexing.LazilyIndexedArray(_StoredChannel(store, channel))
