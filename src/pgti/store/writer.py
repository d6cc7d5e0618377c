"""Writing a store chunk by chunk, in bounded memory, all or nothing."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, StoreError
from pgti.graph import SensorGraph
from pgti.storage import StagedDirectory, reraise_os_errors
from pgti.store.codec import MISSING_CODE, Codec, GridCodec
from pgti.store.encoder import SeriesEncoder
from pgti.store.meta import (
    FORMAT_VERSION,
    GRAPH_FILE,
    META_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    SERIES_OFFSET,
    TIME_FILE,
    StoreMeta,
    check_target,
)
from pgti.store.moments import Moments, moments_of_raw
from pgti.store.store import sha256_of

__all__ = ["StoreWriter"]

_PIECE_READINGS = 1 << 16  # readings to encode or summarize at a time: 256 KiB of float32


class StoreWriter:
    """Writes a store under a temporary name and renames it when it is complete.

    Use it as a context manager: leaving it without `finish`, or by an exception, removes
    everything that was written. Readings are stored as int16 as long as all of them are on a grid
    that int16 can represent; the first that is not converts the whole series to float32.

    Args:
        target: directory to create; must not exist unless `overwrite`.
        node_ids: identifier of each sensor, all different.
        channels: name of each channel, all different.
        graph: the sensor graph, with as many nodes as there are ids.
        units: unit of each channel; empty strings if not given.
        time_zone: IANA name of the zone of the times, or None for plain wall-clock times.
        overwrite: replace an existing store, even a damaged one, once the new one is complete.
        block_readings: readings that each row of `moments.npy` summarizes, about.

    Raises:
        StoreError: if the target exists (with `overwrite`: unless it is a store) or cannot be
            written.
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
        block_readings: int = 1 << 22,
    ) -> None:
        self._target = Path(target)
        self._node_ids = node_ids
        self._channels = channels
        self._graph = graph
        self._units = units if units is not None else ("",) * len(channels)
        self._time_zone = time_zone
        self._block_readings = block_readings
        self._check()
        self._staged = StagedDirectory(
            self._target,
            check_target=partial(check_target, overwrite=overwrite),
            overwrite=overwrite,
        )
        self._held = contextlib.ExitStack()
        self._encoder: SeriesEncoder | None = None

    def _check(self) -> None:
        for what, names in (("sensor id", self._node_ids), ("channel", self._channels)):
            if not names:
                raise DataError(f"there is no {what}: a store needs at least one")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"{what} {twice!r} occurs twice: each must be unique")
        if self._graph.num_nodes != len(self._node_ids):
            raise DataError(
                f"the graph has {count_of(self._graph.num_nodes, 'node')} and the readings "
                f"{count_of(len(self._node_ids), 'sensor')}: they must be the same"
            )
        if len(self._units) != len(self._channels):
            raise DataError(
                f"{count_of(len(self._units), 'unit')} for "
                f"{count_of(len(self._channels), 'channel')}: give one for each"
            )

    def __enter__(self) -> Self:
        with self._writing(), contextlib.ExitStack() as stack:
            stack.enter_context(self._staged)
            path = self._staged.path / SERIES_FILE
            self._encoder = SeriesEncoder(path, len(self._node_ids), len(self._channels))
            stack.callback(self._encoder.close)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @property
    def num_steps(self) -> int:
        """Rows written so far."""
        return 0 if self._encoder is None else self._encoder.num_steps

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
                f"{count_of(expected[0], 'sensor')}, {count_of(expected[1], 'channel')}]"
            )
        # Pieces that fit the processor's cache: encoding passes over its readings ten times.
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
                f"the reading in row {self.num_steps + int(row)} of sensor "
                f"{self._node_ids[node]!r}, channel {self._channels[channel]!r}, is infinite: "
                "declare the value as missing or repair the source"
            )
        with self._writing():
            self._open_encoder().append(readings)

    def finish(
        self,
        *,
        start: np.datetime64 | None = None,
        interval_seconds: int | None = None,
        seconds: NDArray[np.int64] | None = None,
        time_rule: dict[str, Any] | None = None,
    ) -> StoreMeta:
        """Complete the store and give it its name.

        Args:
            start: time of row 0, or None where times are unknown.
            interval_seconds: seconds between rows, or None.
            seconds: epoch seconds of every row, where the interval is not constant.
            time_rule: that the times follow, if they follow one.

        Returns:
            The description of the finished store.

        Raises:
            DataError: if there is no row or no observed reading, or the times contradict one
                another.
            StoreError: if writing fails.
        """
        num_steps = self.num_steps
        if num_steps == 0:
            raise DataError("the source has no rows: a series needs at least one")
        if seconds is not None and len(seconds) != num_steps:
            raise DataError(
                f"{count_of(len(seconds), 'time')} for {count_of(num_steps, 'row')}: give one for "
                "each"
            )
        if seconds is not None and not (seconds[1:] > seconds[:-1]).all():
            raise DataError("the times of the rows do not increase: sort the rows by time")
        encoder = self._open_encoder()
        directory = self._staged.path
        with self._writing():
            encoder.finish()
            codec = encoder.codec
            block_rows, missing = self._write_moments(codec)
            if missing == num_steps * len(self._node_ids) * len(self._channels):
                raise DataError("every reading of the source is missing: there is nothing to learn")
            self._graph.save(directory / GRAPH_FILE)
            if seconds is not None:
                np.save(directory / TIME_FILE, seconds.astype("<i8"))
            meta = StoreMeta(
                format_version=FORMAT_VERSION,
                num_steps=num_steps,
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
                time_rule=time_rule,
                parts={part.name: sha256_of(part) for part in sorted(directory.iterdir())},
            )
            for problem in meta.contradictions():
                raise DataError(f"{self._target} could not be opened as a store: {problem}")
            (directory / META_FILE).write_text(meta.to_json(), encoding="utf-8")
            self._staged.publish()
        return meta

    def _write_moments(self, codec: Codec) -> tuple[int, int]:
        """Summarize the series in blocks of rows; returns (rows in a block, missing readings).

        It reads the file rather than map it: mapped pages count as this process's memory.
        """
        row_items = len(self._node_ids) * len(self._channels)
        block_rows = max(1, self._block_readings // row_items)
        piece_rows = min(block_rows, max(1, _PIECE_READINGS // row_items))
        blocks = []
        with (self._staged.path / SERIES_FILE).open("rb") as file:
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
        np.save(self._staged.path / MOMENTS_FILE, table)
        return block_rows, self.num_steps * row_items - int(table[..., 0].sum())

    def _open_encoder(self) -> SeriesEncoder:
        if self._encoder is None:
            raise StoreError("the writer was not entered: use a `with` statement")
        return self._encoder

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return reraise_os_errors(f"{self._target} cannot be written", StoreError)
