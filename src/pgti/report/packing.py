"""Many series in few bytes of a page: whole numbers, differences over time, deflate, base64."""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PackedSeries", "pack_series"]

_LEVELS = {
    2: 65_000,
    1: 250,
}  # by the bytes of a number; the number after the last is a missing one


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedSeries:
    """Series of each sensor, as a page holds them.

    The numbers are `low + code * step` of their row; the code `missing` stands for none. Codes are
    differences from the code before in time, modulo 256 or 65,536, of the rows in order, deflated.

    Attributes:
        content: base64 of the deflated codes [rows, lines, times].
        bytes_per_number: 1 or 2, little-endian.
        missing: the code of a missing number.
        low: smallest number of each row, [rows].
        step: of each row, what a code counts, [rows]: the numbers are off by half of it at most.
        shape: rows, lines and times.
    """

    content: str
    bytes_per_number: int
    missing: int
    low: NDArray[np.float32]
    step: NDArray[np.float32]
    shape: tuple[int, int, int]

    @property
    def num_bytes(self) -> int:
        """Bytes of a page, about."""
        return len(self.content) + 16 * len(self.low)


def pack_series(values: NDArray[np.float32], budget_bytes: int) -> PackedSeries:
    """Pack the last times of series into so many bytes of a page.

    Numbers have two bytes where all times fit so, else one; of too many times, the last ones stay.

    Args:
        values: [rows, lines, times], a row for each sensor and channel; NaN where missing.
        budget_bytes: what the page may grow by, about.
    """
    for size in _LEVELS:
        packed = _pack(values, size)
        if packed.num_bytes <= budget_bytes:
            return packed
    times = values.shape[2]
    while packed.num_bytes > budget_bytes and times > 1:
        times = max(1, int(times * min(0.95, budget_bytes / packed.num_bytes)))
        packed = _pack(values[:, :, -times:], 1)
    return packed


def _pack(values: NDArray[np.float32], size: int) -> PackedSeries:
    top = _LEVELS[size]
    flat = values.reshape(len(values), -1).astype(np.float64)
    known = np.isfinite(flat)
    low = np.where(known, flat, np.inf).min(axis=1, initial=np.inf)
    high = np.where(known, flat, -np.inf).max(axis=1, initial=-np.inf)
    low, high = (np.where(known.any(axis=1), each, 0.0) for each in (low, high))
    step = (high - low) / top
    scaled = (flat - low[:, None]) / np.where(step > 0, step, 1.0)[:, None]
    codes = np.where(known, np.rint(np.where(known, scaled, 0.0)), top + 1)
    whole = codes.astype(f"<u{size}").reshape(values.shape)
    differences = np.diff(whole, axis=2, prepend=whole.dtype.type(0))
    deflated = zlib.compress(np.ascontiguousarray(differences).tobytes(), 6)
    return PackedSeries(
        content=base64.b64encode(deflated).decode(),
        bytes_per_number=size,
        missing=top + 1,
        low=low.astype(np.float32),
        step=step.astype(np.float32),
        shape=(values.shape[0], values.shape[1], values.shape[2]),
    )
