"""Writing a store, chunk by chunk, in bounded memory and all or nothing."""

import contextlib
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError, StoreError
from pgti.graph import SensorGraph
from pgti.series.codec import MISSING_CODE, Codec, Float32Codec, GridCodec, Raw, grid_divisor
from pgti.series.meta import FORMAT_VERSION, META_FILE, StoreMeta
from pgti.series.moments import Moments, moments_of_raw
from pgti.series.store import (
    GRAPH_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    SERIES_OFFSET,
    TIME_FILE,
    sha256_of,
)

__all__ = ["StoreWriter"]

_BLOCK_READINGS = 1 << 22  # one row of moments.npy summarises about so many readings
_PIECE_READINGS = 1 << 16  # readings encoded or summarised at a time: 256 KiB of float32


class StoreWriter:
    """Writes a store under a temporary name and renames it when it is complete.

    Use it as a context manager: leaving it without `finish`, or by an exception, removes
    everything that was written. The readings are stored as int16 as long as every one of them
    lies on a grid that int16 can hold; the first that does not turns the whole series to float32.

    Args:
        target: directory to make; must not exist unless `overwrite`.
        node_ids: identifier of each sensor, all different.
        channels: name of each channel, all different.
        graph: the sensor graph, with as many nodes as there are ids.
        units: unit of each channel; empty strings if not given.
        time_zone: IANA name of the zone of the times, or None for plain wall-clock times.
        overwrite: replace an existing store once the new one is complete.

    Raises:
        StoreError: if the target exists or cannot be written.
        DataError: if ids or channels repeat, or their numbers disagree.
    """

    def __init__(
        self,
        target: str | Path,
        *,
        node_ids: tuple[str, ...],
        channels: tuple[str, ...],
        graph: SensorGraph,
        units: tuple[str, ...] | None = None,
        time_zone: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self._target = Path(target)
        self._node_ids = node_ids
        self._channels = channels
        self._graph = graph
        self._units = units if units is not None else ("",) * len(channels)
        self._time_zone = time_zone
        self._overwrite = overwrite
        self._check()
        self._temporary = self._target.with_name(f".{self._target.name}.tmp-{uuid.uuid4().hex}")
        self._made_parents: list[Path] = []
        self._codec: Codec | None = None
        self._max_code = np.zeros(len(channels))
        self._num_steps = 0
        self._file: BinaryIO | None = None

    def _check(self) -> None:
        for what, names in (("sensor id", self._node_ids), ("channel", self._channels)):
            if not names:
                raise DataError(f"there is no {what}: a store needs at least one")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"{what} {twice!r} is there twice: each must be unique")
        if self._graph.num_nodes != len(self._node_ids):
            raise DataError(
                f"the graph has {self._graph.num_nodes} nodes and the readings "
                f"{len(self._node_ids)} sensors: they must be the same"
            )
        if len(self._units) != len(self._channels):
            raise DataError(
                f"{len(self._units)} units were given for {len(self._channels)} channels"
            )
        if self._target.exists() and not self._overwrite:
            raise StoreError(f"{self._target} exists already: choose another name or remove it")

    def __enter__(self) -> Self:
        with self._writing():
            self._make_parents()
            self._temporary.mkdir()
            self._file = (self._temporary / SERIES_FILE).open("w+b")
            self._file.seek(SERIES_OFFSET)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            # Closing flushes, and on a full disk that fails again: the first error is the one.
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        if self._temporary.exists():
            shutil.rmtree(self._temporary, ignore_errors=True)
            for parent in self._made_parents:
                with contextlib.suppress(OSError):
                    parent.rmdir()

    @property
    def num_steps(self) -> int:
        """Rows written so far."""
        return self._num_steps

    def append(self, values: NDArray[np.floating]) -> None:
        """Append rows [rows, N, C] in original units; NaN means missing.

        Raises:
            DataError: if the shape is wrong or a reading is infinite.
            StoreError: if writing fails.
        """
        expected = (len(self._node_ids), len(self._channels))
        if values.ndim != 3 or values.shape[1:] != expected:
            raise DataError(
                f"readings of shape {values.shape} were given: the rule is [rows, "
                f"{expected[0]} sensors, {expected[1]} channels]"
            )
        # Pieces that fit the processor's cache: encoding goes over its readings ten times.
        rows = max(1, _PIECE_READINGS // (expected[0] * expected[1]))
        for first in range(0, len(values), rows):
            self._append_piece(values[first : first + rows])

    def _append_piece(self, values: NDArray[np.floating]) -> None:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, refused below
            readings = np.ascontiguousarray(values, dtype=np.float32)
        infinite = np.isinf(readings)
        if infinite.any():
            row, node, channel = np.argwhere(infinite)[0]
            raise DataError(
                f"the reading in row {self._num_steps + int(row)} of sensor "
                f"{self._node_ids[node]!r}, channel {self._channels[channel]!r}, is infinite: "
                "declare the value as missing or repair the source"
            )
        raw = self._encode(readings)
        with self._writing():
            self._opened().write(raw.data)
        self._num_steps += len(readings)

    def finish(
        self,
        *,
        start: np.datetime64 | None = None,
        interval_seconds: int | None = None,
        seconds: NDArray[np.int64] | None = None,
    ) -> StoreMeta:
        """Complete the store and give it its name.

        Args:
            start: time of row 0, or None where times are unknown.
            interval_seconds: seconds between rows, or None.
            seconds: epoch seconds of every row, where the interval is not constant.

        Returns:
            The description of the finished store.

        Raises:
            DataError: if there is no row or no observed reading.
            StoreError: if writing fails.
        """
        if self._num_steps == 0:
            raise DataError("the source has no rows: a series needs at least one")
        if seconds is not None and len(seconds) != self._num_steps:
            raise DataError(f"{len(seconds)} times were given for {self._num_steps} rows")
        codec = self._codec if self._codec is not None else Float32Codec()
        with self._writing():
            self._write_header(codec)
            block_rows, missing = self._write_moments(codec)
            if missing == self._num_steps * len(self._node_ids) * len(self._channels):
                raise DataError("every reading of the source is missing: there is nothing to learn")
            self._graph.save(self._temporary / GRAPH_FILE)
            if seconds is not None:
                np.save(self._temporary / TIME_FILE, seconds.astype("<i8"))
            parts = {part.name: sha256_of(part) for part in sorted(self._temporary.iterdir())}
            meta = StoreMeta(
                format_version=FORMAT_VERSION,
                num_steps=self._num_steps,
                num_nodes=len(self._node_ids),
                num_channels=len(self._channels),
                num_edges=self._graph.num_edges,
                dtype="int16" if isinstance(codec, GridCodec) else "float32",
                divisors=codec.divisors,
                missing_code=MISSING_CODE if isinstance(codec, GridCodec) else None,
                missing_count=missing,
                channels=self._channels,
                units=self._units,
                node_ids=self._node_ids,
                start=None if start is None else str(start.astype("datetime64[s]")),
                interval_seconds=interval_seconds,
                is_regular=seconds is None,
                time_zone=self._time_zone,
                block_rows=block_rows,
                parts=parts,
            )
            (self._temporary / META_FILE).write_text(meta.to_json(), encoding="utf-8")
            self._publish()
        return meta

    # -- encoding ---------------------------------------------------------------------------------

    def _encode(self, values: NDArray[np.float32]) -> Raw:
        if self._codec is None:
            self._codec = _first_codec(values)
        if isinstance(self._codec, GridCodec):
            codes = self._codec.encode(values)
            if codes is None:
                self._recode(self._finer_codec(self._codec, values))
                return self._encode(values)
            largest = np.abs(np.where(codes == MISSING_CODE, 0, codes)).max(axis=(0, 1))
            self._max_code = np.maximum(self._max_code, largest)
            return codes
        return self._codec.encode(values)

    def _finer_codec(self, codec: GridCodec, values: NDArray[np.float32]) -> Codec:
        """A grid that holds both what is written and `values`, or float32."""
        divisors = []
        for channel, old in enumerate(codec.divisors):
            new = grid_divisor(values[..., channel], multiple_of=old)
            if new is None or self._max_code[channel] * (new // old) > -MISSING_CODE - 1:
                return Float32Codec()
            divisors.append(new)
        return GridCodec(tuple(divisors))

    def _recode(self, codec: Codec) -> None:
        """Write what is there already again, in another code."""
        old = self._codec
        self._codec = codec
        self._max_code = np.zeros(len(self._channels))
        if old is None or self._num_steps == 0:
            return
        with self._writing():
            previous = self._opened()
            path = self._temporary / SERIES_FILE
            path.rename(path.with_suffix(".old"))
            self._file = path.open("w+b")
            self._file.seek(SERIES_OFFSET)
            row_items = len(self._node_ids) * len(self._channels)
            rows = max(1, _BLOCK_READINGS // row_items)
            previous.seek(SERIES_OFFSET)
            while piece := previous.read(rows * row_items * old.dtype.itemsize):
                raw: NDArray[Any] = np.frombuffer(piece, dtype=old.dtype)
                values = old.decode(raw.reshape(-1, len(self._node_ids), len(self._channels)))
                self._file.write(self._encode(values).data)
            previous.close()
            path.with_suffix(".old").unlink()

    # -- files ------------------------------------------------------------------------------------

    def _write_header(self, codec: Codec) -> None:
        file = self._opened()
        header = io.BytesIO()
        shape = (self._num_steps, len(self._node_ids), len(self._channels))
        text = repr({"descr": codec.dtype.str, "fortran_order": False, "shape": shape})
        header.write(b"\x93NUMPY\x01\x00")
        header.write((SERIES_OFFSET - 10).to_bytes(2, "little"))
        header.write(text.encode("latin1").ljust(SERIES_OFFSET - 11) + b"\n")
        file.seek(0)
        file.write(header.getvalue())
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._file = None

    def _write_moments(self, codec: Codec) -> tuple[int, int]:
        """Summarise the series in blocks of rows; returns (rows in a block, missing readings).

        The file is read and not mapped: mapped pages would count as this process's memory.
        """
        row_items = len(self._node_ids) * len(self._channels)
        block_rows = max(1, _BLOCK_READINGS // row_items)
        piece_rows = min(block_rows, max(1, _PIECE_READINGS // row_items))
        blocks = []
        with (self._temporary / SERIES_FILE).open("rb") as file:
            file.seek(SERIES_OFFSET)
            while block := file.read(block_rows * row_items * codec.dtype.itemsize):
                raw: NDArray[Any] = np.frombuffer(block, dtype=codec.dtype)
                raw = raw.reshape(-1, len(self._node_ids), len(self._channels))
                pieces = [
                    moments_of_raw(raw[first : first + piece_rows], codec)
                    for first in range(0, len(raw), piece_rows)
                ]
                moments = Moments.merge_all(pieces, len(self._channels))
                blocks.append(np.stack([moments.count, moments.mean, moments.m2], axis=-1))
        table = np.stack(blocks)
        np.save(self._temporary / MOMENTS_FILE, table)
        return block_rows, self._num_steps * row_items - int(table[..., 0].sum())

    def _publish(self) -> None:
        for part in self._temporary.iterdir():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        if self._target.exists():
            displaced = self._temporary.with_name(f"{self._temporary.name}-old")
            self._target.rename(displaced)
            self._temporary.rename(self._target)
            shutil.rmtree(displaced)
        else:
            self._temporary.rename(self._target)

    def _make_parents(self) -> None:
        missing = [parent for parent in self._target.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            self._made_parents.insert(0, parent)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise StoreError("the store is finished or was never entered: use a `with` statement")
        return self._file

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an operating system's refusal into one line that names the target."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"{self._target} cannot be written: {reason}") from error


def _first_codec(values: NDArray[np.float32]) -> Codec:
    divisors = []
    for channel in range(values.shape[-1]):
        divisor = grid_divisor(values[..., channel])
        if divisor is None:
            return Float32Codec()
        divisors.append(divisor)
    return GridCodec(tuple(divisors))
