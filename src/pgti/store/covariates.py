"""Channels whose values are known in advance: which may be, and their values after the last row."""

from typing import Any

import numpy as np

from pgti.display import count_of
from pgti.errors import ConfigError, DataError, option
from pgti.store.codec import Values
from pgti.store.statistics import canonical

__all__ = ["as_future", "check_known_future"]

_ROWS = 1 << 10  # checked at a time: many values are mapped


def check_known_future(known: tuple[str, ...], channels: tuple[str, ...]) -> None:
    """Refuse channels known in advance that a series cannot have.

    Args:
        known: their names.
        channels: names of the channels of the series.

    Raises:
        ConfigError: naming the channel.
    """
    listed = option("known_future", ",".join(known))
    for name in known:
        if name not in channels:
            raise ConfigError(
                f"{listed} names the channel {name!r}, and the series has {', '.join(channels)}: "
                f"choose among them, or name the channels of the source with {option('channels')}"
            )
        if known.count(name) > 1:
            raise ConfigError(f"{listed} names the channel {name!r} twice")
    if known and len(known) == len(channels):
        raise ConfigError(
            f"{listed} names every channel: at least one must be left to forecast, whose future is "
            "not known"
        )


def as_future(
    values: Values | None, num_nodes: int, num_known: int, dtype: np.dtype[Any]
) -> Values:
    """Values of channels known in advance after the last row of a series, canonical [rows, N, F].

    Args:
        values: those given, NaN for missing, or None; a memory map is canonical already, and is
            not copied.
        num_nodes: N.
        num_known: F.
        dtype: of the readings of the series.

    Raises:
        DataError: if their shape is another, or one is infinite.
    """
    if values is None or not len(values):
        return np.empty((0, num_nodes, num_known), dtype=dtype)
    if values.ndim != 3 or values.shape[1:] != (num_nodes, num_known):
        raise DataError(
            f"values of shape {values.shape} after the last row were given: the rule is [rows, "
            f"{count_of(num_nodes, 'sensor')}, {count_of(num_known, 'channel')} known in advance]"
        )
    is_mapped = isinstance(values, np.memmap) and values.dtype == dtype
    later = values if is_mapped else canonical(values, dtype)
    if any(np.isinf(later[row : row + _ROWS]).any() for row in range(0, len(later), _ROWS)):
        raise DataError(
            "a value after the last row is infinite, or beyond float32: declare it as missing"
        )
    return later
