"""Encoding readings into `series.npy`: as whole numbers while that is lossless, then as floats."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pgti.errors import StoreError
from pgti.store.codec import (
    Codec,
    ExactGridCodec,
    Float32Codec,
    Float64Codec,
    GridCodec,
    Raw,
    Values,
    grid_divisor,
)
from pgti.store.layout import write_header
from pgti.store.meta import SERIES_OFFSET, StoreMeta, codec_of

__all__ = ["SeriesEncoder"]


class SeriesEncoder:
    """Writes the series' file piece by piece, in the smallest lossless encoding.

    It begins with the coarsest grid that fits, refines it when a reading is off the grid, and
    converts the file to floats at the first reading that is on no known grid. An exact series has
    int32 and float64 in place of int16 and float32.

    Args:
        path: the file, created at once.
        num_nodes: sensors, N.
        num_channels: channels, C.
        exact: whether the series is exact; of a series that is resumed, as it was.
        recode_readings: readings to convert at a time.
        resumed: description of a series of that file, after whose rows it continues.
        successor: file that the series moves to if it needs another encoding, so that those who
            read it are not disturbed; with `resumed`.

    Attributes:
        codec: decodes the numbers written so far.
        num_steps: rows written so far.

    Raises:
        OSError: if the file cannot be created; every method raises it if writing fails.
    """

    def __init__(
        self,
        path: Path,
        num_nodes: int,
        num_channels: int,
        *,
        exact: bool = False,
        recode_readings: int = 1 << 22,
        resumed: StoreMeta | None = None,
        successor: Path | None = None,
    ) -> None:
        self._path, self._successor = path, successor
        self._recode_rows = max(1, recode_readings // (num_nodes * num_channels))
        self._row_shape = num_nodes, num_channels
        self.codec: Codec = (ExactGridCodec if exact else GridCodec)((1,) * num_channels)
        self._max_code = np.zeros(num_channels)
        self.num_steps = 0
        if resumed is None:
            self._file = self._new_file()
        else:
            self._resume(resumed)

    def _resume(self, meta: StoreMeta) -> None:
        self.codec, self.num_steps = codec_of(meta), meta.num_steps
        self._max_code = np.array(meta.max_codes or self._max_code, dtype=np.float64)
        self._file = self._path.open("r+b")
        self._file.seek(SERIES_OFFSET + meta.num_readings * self.codec.dtype.itemsize)
        self._file.truncate()

    @property
    def has_moved(self) -> bool:
        """Whether a series that was resumed has moved to its successor."""
        return self._path == self._successor

    @property
    def max_codes(self) -> tuple[int, ...] | None:
        """The largest code of each channel in absolute value; None where there are no codes."""
        if isinstance(self.codec, Float32Codec):
            return None
        return tuple(int(code) for code in self._max_code)

    def append(self, values: Values) -> None:
        """Append readings [rows, N, C], contiguous and finite, NaN for missing."""
        raw = self._encode(values)
        self._open_file().write(raw.data)
        self.num_steps += len(values)

    def finish(self) -> None:
        """Flush the file to the disk, with its header if it is a new one, and close it."""
        file = self._open_file()
        if self._successor is None or self.has_moved:
            write_header(
                file, self.codec.dtype, (self.num_steps, *self._row_shape), offset=SERIES_OFFSET
            )
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def close(self) -> None:
        """Close the file, finished or not."""
        # Closing flushes, and on a full disk that fails again: the first error is reported.
        with contextlib.suppress(OSError):
            self._file.close()

    def _encode(self, values: Values) -> Raw:
        if isinstance(self.codec, Float32Codec):
            return self.codec.encode(values)
        codes = self.codec.encode(values)
        if codes is None:
            self._recode(self._finer_codec(self.codec, values))
            return self._encode(values)
        missing = codes == self.codec.missing_code
        largest = np.abs(np.where(missing, 0, codes)).max(axis=(0, 1))
        self._max_code = np.maximum(self._max_code, largest)
        return codes

    def _finer_codec(self, codec: GridCodec, values: Values) -> Codec:
        """A grid for both what is written and `values`, or floats."""
        divisors = []
        for channel, old in enumerate(codec.divisors):
            new = grid_divisor(values[..., channel], multiple_of=old, kind=type(codec))
            if new is None or self._max_code[channel] * (new // old) > codec.max_code:
                return Float64Codec() if isinstance(codec, ExactGridCodec) else Float32Codec()
            divisors.append(new)
        return type(codec)(tuple(divisors))

    def _recode(self, codec: Codec) -> None:
        """Rewrite the file in another encoding."""
        old, self.codec = self.codec, codec
        self._max_code = np.zeros(self._row_shape[1])
        if self.num_steps == 0:
            return
        piece_bytes = self._recode_rows * math.prod(self._row_shape) * old.dtype.itemsize
        displaced = None
        with self._open_file() as previous:
            if self._successor is None or self.has_moved:
                displaced = self._path.with_suffix(".old")
                self._path.rename(displaced)
            else:
                self._path = self._successor
            self._file = self._new_file()
            previous.seek(SERIES_OFFSET)
            while piece := previous.read(piece_bytes):
                raw: NDArray[Any] = np.frombuffer(piece, dtype=old.dtype)
                values = old.decode(raw.reshape(-1, *self._row_shape))
                self._file.write(self._encode(values).data)
        if displaced is not None:
            displaced.unlink()

    def _new_file(self) -> BinaryIO:
        file = self._path.open("w+b")
        file.seek(SERIES_OFFSET)
        return file

    def _open_file(self) -> BinaryIO:
        if self._file.closed:
            raise StoreError("the store is finished: its series cannot be written any more")
        return self._file
