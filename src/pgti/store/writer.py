"""Writing a store chunk by chunk, in bounded memory, all or nothing; or a series in memory."""

import contextlib
import hashlib
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pgti.display import size_text
from pgti.errors import DataError, StoreError
from pgti.storage import StagedDirectory, reraise_os_errors
from pgti.store.codec import Values
from pgti.store.consistency import contradictions
from pgti.store.encoder import SeriesEncoder
from pgti.store.layout import write_rows
from pgti.store.meta import (
    DIGESTS_FILE,
    FORMAT_VERSION,
    FUTURE_FILE,
    GRAPH_FILE,
    META_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    STATIC_FILE,
    TIME_FILE,
    StoreMeta,
)
from pgti.store.parts import sha256_of
from pgti.store.row_writer import RowWriter
from pgti.store.statistics import RunningStatistics, digest_of
from pgti.store.store import SeriesStore
from pgti.store.target import check_target
from pgti.store.time_axis import TimeAxis
from pgti.store.time_rule import TimeRule

__all__ = ["MemoryWriter", "StoreWriter"]

_LEAST_BYTES, _LEAST_EXACT_BYTES = 2, 4  # of a reading: int16, int32


class StoreWriter(RowWriter):
    """Writes a store under a temporary name and renames it when it is complete.

    Use it as a context manager: leaving it without `finish`, or by an exception, removes
    everything that was written. Readings are stored as int16 as long as all of them are on a grid
    that int16 can represent; the first that is not converts the whole series to float32. In an
    exact store they are int32 or float64 likewise.

    Args:
        target: directory to create; must not exist unless `overwrite`.
        overwrite: replace an existing store, even a damaged one, once the new one is complete.
        **described: see `RowWriter`.

    Raises:
        StoreError: if the target exists (with `overwrite`: unless it is a store) or cannot be
            written.
        DataError: if ids or channels repeat, or their numbers disagree.
    """

    def __init__(self, target: str | Path, *, overwrite: bool = False, **described: Any) -> None:
        super().__init__(str(target), **described)
        self._target = Path(target)
        self._staged = StagedDirectory(
            self._target,
            check_target=partial(check_target, overwrite=overwrite),
            overwrite=overwrite,
        )
        self._statistics = RunningStatistics.of_new_series(self._sizes)
        self._held = contextlib.ExitStack()
        self._encoder: SeriesEncoder | None = None

    def __enter__(self) -> Self:
        with self._writing(), contextlib.ExitStack() as stack:
            stack.enter_context(self._staged)
            path = self._staged.path / SERIES_FILE
            self._encoder = SeriesEncoder(
                path, len(self._node_ids), len(self._channels), exact=self._exact
            )
            stack.callback(self._encoder.close)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def check_room(self, num_rows: int) -> None:
        """Refuse a series that the disk cannot hold, before any of it is written.

        Raises:
            StoreError: giving the least bytes that it takes, and those that are free.
        """
        num_values = num_rows * len(self._node_ids) * len(self._channels)
        needed = num_values * (_LEAST_EXACT_BYTES if self._exact else _LEAST_BYTES)
        with self._writing():
            free = shutil.disk_usage(self._staged.path).free
        if needed > free:
            raise StoreError(
                f"{self._target} would take {size_text(needed)} at least ({num_rows:,} rows of "
                f"{len(self._node_ids):,} sensors), and {size_text(free)} are free on its disk: "
                "write it elsewhere, or less of it"
            )

    def _write(self, readings: Values) -> None:
        with self._writing():
            self._open_encoder().append(readings)
        self._statistics.update(readings, self.num_steps)

    def _complete(
        self,
        start: str | None,
        interval_seconds: int | None,
        seconds: NDArray[np.int64] | None,
        time_rule: dict[str, Any] | None,
        future: Values,
    ) -> StoreMeta:
        encoder, directory = self._open_encoder(), self._staged.path
        with self._writing():
            encoder.finish()
            write_rows(directory / MOMENTS_FILE, self._statistics.moments.blocks_array())
            write_rows(directory / DIGESTS_FILE, self._statistics.digest.links_array())
            if seconds is not None:
                write_rows(directory / TIME_FILE, seconds)
            self._graph.save(directory / GRAPH_FILE)
            graph_digest = sha256_of(directory / GRAPH_FILE)
            parts = {GRAPH_FILE: graph_digest}
            if self._static is not None:
                content = self._static.to_bytes()
                (directory / STATIC_FILE).write_bytes(content)
                parts[STATIC_FILE] = hashlib.sha256(content).hexdigest()
            if len(future):
                parts[FUTURE_FILE] = digest_of(future)
            meta = self._describe(parts, start, interval_seconds, seconds, time_rule)
            meta = replace(meta, future_steps=len(future)).in_lowest_format()
            if len(future):
                write_rows(directory / meta.file_of(FUTURE_FILE), future)
            for problem in contradictions(meta):
                raise DataError(f"{self._target} could not be opened as a store: {problem}")
            (directory / META_FILE).write_text(meta.to_json(), encoding="utf-8")
            self._staged.publish()
        return meta

    def _describe(
        self,
        constant: dict[str, str],
        start: str | None,
        interval_seconds: int | None,
        seconds: NDArray[np.int64] | None,
        time_rule: dict[str, Any] | None,
    ) -> StoreMeta:
        """The description of the rows written so far."""
        moments, digest = self._statistics.moments, self._statistics.digest
        parts = constant | {
            DIGESTS_FILE: digest_of(digest.links_array()),
            MOMENTS_FILE: digest_of(moments.blocks_array()),
            SERIES_FILE: digest.hexdigest(),
        }
        if seconds is not None:
            parts[TIME_FILE] = digest_of(seconds)
        parts = dict(sorted(parts.items()))
        encoder = self._open_encoder()
        codec = encoder.codec
        return StoreMeta(
            format_version=FORMAT_VERSION,
            num_steps=self.num_steps,
            num_nodes=len(self._node_ids),
            num_channels=len(self._channels),
            num_edges=self._graph.num_edges,
            dtype=codec.dtype.name,
            divisors=codec.divisors,
            missing_code=codec.missing_code,
            missing_count=self._num_missing,
            channels=self._channels,
            units=self._units,
            node_ids=self._node_ids,
            start=start,
            interval_seconds=interval_seconds,
            is_regular=seconds is None,
            time_zone=self._time_zone,
            block_rows=self._sizes.block_rows,
            parts=parts,
            read_options=self._read_options,
            time_rule=time_rule,
            max_codes=encoder.max_codes,
            open_moments=moments.open_moments(),
            known_future=self._known_future,
        )

    def _open_encoder(self) -> SeriesEncoder:
        if self._encoder is None:
            raise StoreError("the writer was not entered: use a `with` statement")
        return self._encoder

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return reraise_os_errors(f"{self._target} cannot be written", StoreError)


class MemoryWriter(RowWriter):
    """Collects a series in memory; `finish` makes it the store `store`.

    Args:
        name: what messages call the series.
        **described: see `RowWriter`.

    Raises:
        DataError: if ids or channels repeat, or their numbers disagree.
    """

    def __init__(self, name: str, **described: Any) -> None:
        super().__init__(name, **described)
        self._pieces: list[Values] = []
        self._store: SeriesStore | None = None

    @property
    def store(self) -> SeriesStore:
        """The finished series.

        Raises:
            StoreError: if it is not finished.
        """
        if self._store is None:
            raise StoreError(f"{self._name} is not finished: call finish")
        return self._store

    def _write(self, readings: Values) -> None:
        self._pieces.append(readings)

    def _complete(
        self,
        start: str | None,
        interval_seconds: int | None,
        seconds: NDArray[np.int64] | None,
        time_rule: dict[str, Any] | None,
        future: Values,
    ) -> StoreMeta:
        begin = None if start is None else int(np.datetime64(start, "s").astype(np.int64))
        self._store = SeriesStore.in_memory(
            np.concatenate(self._pieces),
            self._graph,
            TimeAxis(
                num_steps=self.num_steps,
                start_seconds=begin,
                interval_seconds=interval_seconds,
                time_zone=self._time_zone,
                seconds=seconds,
                rule=None if time_rule is None else TimeRule.from_plain(time_rule),
            ),
            node_ids=self._node_ids,
            channels=self._channels,
            units=self._units,
            read_options=self._read_options,
            known_future=self._known_future,
            future=future,
            static=self._static,
            name=self._name,
            exact=self._exact,
        )
        return self._store.meta
