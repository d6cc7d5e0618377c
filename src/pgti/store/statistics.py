"""What a store knows of its readings without reading them: moments of blocks, and digests.

Both depend on the readings and the numbers of their rows alone, not on the dtype on disk nor on the
pieces in which the rows came: a store that grew row by row equals one that was written at once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pgti.store.codec import Values
from pgti.store.moments import Moments, moments_of

__all__ = [
    "DIGEST_BYTES",
    "BlockMoments",
    "ReadingsDigest",
    "RunningStatistics",
    "Sizes",
    "canonical",
    "digest_of",
]

DIGEST_BYTES = 32
_PIECE_READINGS = 1 << 16  # 256 KiB of float32: they fit the processor's cache
_GROUP_READINGS = 1 << 18


def canonical(values: Values, dtype: DTypeLike = np.float32) -> Values:
    """Readings in `dtype` in which equal readings have equal bytes: one NaN, one zero."""
    # A float64 beyond float32 becomes inf, which writers refuse; "invalid" are signalling NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        readings: Values = np.ascontiguousarray(values, dtype=dtype)
        readings = readings + readings.dtype.type(0)  # -0 + 0 is 0
    missing = np.isnan(readings)
    if missing.any():
        readings[missing] = np.nan
    return readings


def digest_of(rows: NDArray[Any]) -> str:
    """SHA-256 of the numbers of an array."""
    return hashlib.sha256(np.ascontiguousarray(rows).data if rows.size else b"").hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What pieces of a series are summarized together.

    Attributes:
        num_nodes: sensors, N.
        num_channels: channels, C.
        block_rows: rows of a block, whose moments are stored.
    """

    num_nodes: int
    num_channels: int
    block_rows: int

    @property
    def piece_rows(self) -> int:
        """Rows whose moments are computed at a time."""
        return min(self.block_rows, max(1, _PIECE_READINGS // (self.num_nodes * self.num_channels)))

    @property
    def group_rows(self) -> int:
        """Rows of a link of the chain of digests."""
        return max(1, _GROUP_READINGS // (self.num_nodes * self.num_channels))


class ReadingsDigest:
    """A chain of SHA-256 over groups of rows: each link is that of the one before and its rows.

    So the digest of the first rows of a series is known at every number of rows.

    Args:
        group_rows: rows of a link.
        link: the link before row `num_rows`.
        num_rows: where it continues, a multiple of `group_rows`.

    Attributes:
        links: those that were completed, 32 bytes each.
        num_rows: rows that it has seen.
    """

    def __init__(
        self, group_rows: int, link: bytes = bytes(DIGEST_BYTES), num_rows: int = 0
    ) -> None:
        self._group_rows = group_rows
        self._last = link
        self._open = hashlib.sha256(link)
        self.links: list[bytes] = []
        self.num_rows = num_rows

    def update(self, values: Values) -> None:
        """Take the next rows [rows, N, C], canonical."""
        done = 0
        while done < len(values):
            rows = min(len(values) - done, self._group_rows - self.num_rows % self._group_rows)
            self._open.update(np.ascontiguousarray(values[done : done + rows]).data)
            self.num_rows += rows
            done += rows
            if self.num_rows % self._group_rows == 0:
                self._last = self._open.digest()
                self.links.append(self._last)
                self._open = hashlib.sha256(self._last)

    def links_array(self) -> NDArray[np.uint8]:
        """The completed links, [links, 32]."""
        return np.frombuffer(b"".join(self.links), dtype=np.uint8).reshape(-1, DIGEST_BYTES)

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        is_open = self.num_rows % self._group_rows
        return (self._open.digest() if is_open else self._last).hex()


class BlockMoments:
    """Moments of blocks of rows, each merged from the moments of its pieces in their order.

    Args:
        sizes: rows of a block and of a piece, and channels.
        folded: moments of the whole pieces of the block that is begun.
        num_rows: where it continues, the first row of a piece.

    Attributes:
        blocks: moments [C, 3] of the blocks that were completed.
        folded: moments of the whole pieces of the open block.
        num_rows: rows that it has seen.
    """

    def __init__(self, sizes: Sizes, folded: Moments | None = None, num_rows: int = 0) -> None:
        self._block_rows, self._piece_rows = sizes.block_rows, sizes.piece_rows
        self._empty = Moments.empty(sizes.num_channels)
        self._waiting: list[Values] = []
        self._num_waiting = 0
        self.blocks: list[NDArray[np.float64]] = []
        self.folded = self._empty if folded is None else folded
        self.num_rows = num_rows

    def update(self, values: Values) -> None:
        """Take the next rows [rows, N, C]."""
        done = 0
        while done < len(values):
            first = self.num_rows - self._num_waiting  # of the open piece
            stop = min(self._piece_rows, self._block_rows - first % self._block_rows)
            rows = values[done : done + stop - self._num_waiting]
            done += len(rows)
            self.num_rows += len(rows)
            self._waiting.append(rows)
            self._num_waiting += len(rows)
            if self._num_waiting == stop:
                self._fold()

    def blocks_array(self) -> NDArray[np.float64]:
        """The completed blocks, [blocks, C, 3]."""
        return np.array(self.blocks, dtype=np.float64).reshape(-1, len(self._empty.count), 3)

    def open_moments(self) -> tuple[tuple[float, float, float], ...]:
        """Count, mean and m2 of each channel over the whole pieces of the open block."""
        return tuple((float(n), float(m), float(d)) for n, m, d in self.folded.to_array())

    def _fold(self) -> None:
        self.folded = self.folded.merge(moments_of(self._open_piece()))
        self._waiting, self._num_waiting = [], 0
        if self.num_rows % self._block_rows == 0:
            self.blocks.append(self.folded.to_array())
            self.folded = self._empty

    def _open_piece(self) -> Values:
        return self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)


class RunningStatistics:
    """Moments and digests of rows that come piece by piece.

    Args:
        moments: where the moments continue.
        digest: where the digests continue.
    """

    def __init__(self, moments: BlockMoments, digest: ReadingsDigest) -> None:
        self.moments, self.digest = moments, digest

    @classmethod
    def of_new_series(cls, sizes: Sizes) -> "RunningStatistics":
        """Statistics that begin with row 0."""
        return cls(BlockMoments(sizes), ReadingsDigest(sizes.group_rows))

    @classmethod
    def resume(
        cls,
        sizes: Sizes,
        num_steps: int,
        folded: tuple[tuple[float, float, float], ...],
        link: bytes,
        read: Callable[[int, int], Values],
    ) -> "RunningStatistics":
        """Statistics that continue after the rows of a series; few of them are read.

        Args:
            sizes: of the series.
            num_steps: its rows.
            folded: moments of the whole pieces of its last block, as `BlockMoments.open_moments`.
            link: the last link of its chain of digests; 32 zero bytes if it has none.
            read: reads rows first..stop-1, canonical.
        """
        first = num_steps // sizes.block_rows * sizes.block_rows
        first += (num_steps - first) // sizes.piece_rows * sizes.piece_rows
        group = num_steps // sizes.group_rows * sizes.group_rows
        statistics = cls(
            BlockMoments(sizes, Moments(*np.array(folded).T), first),
            ReadingsDigest(sizes.group_rows, link, group),
        )
        first = statistics.first_row
        statistics.update(read(first, num_steps), first)
        return statistics

    @property
    def first_row(self) -> int:
        """The first row that one of the two has not seen."""
        return min(self.moments.num_rows, self.digest.num_rows)

    def update(self, values: Values, first_row: int) -> None:
        """Take rows [rows, N, C] from `first_row` on; each part skips those that it has seen."""
        self.moments.update(values[self.moments.num_rows - first_row :])
        self.digest.update(values[self.digest.num_rows - first_row :])
