"""Adding rows to a store: all of them or none, while others read it.

Files only grow within a generation, and `meta.json`, which says how far they are valid, is replaced
in the end: a process killed at any moment leaves the old store or the new one. Where rows are
corrected, or appended readings need another dtype or grid, the series is written anew beside the
old one, as the next generation.
"""

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import StoreError
from pgti.storage import (
    file_lock,
    remove_partial_files,
    replace_atomically,
    reraise_os_errors,
    sync_directory,
)
from pgti.store.codec import Values
from pgti.store.covariates import as_future
from pgti.store.encoder import SeriesEncoder
from pgti.store.layout import extend_rows, write_rows
from pgti.store.meta import (
    DIGESTS_FILE,
    FUTURE_FILE,
    META_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    SERIES_OFFSET,
    TIME_FILE,
    StoreMeta,
    codec_of,
    is_constant_part,
)
from pgti.store.parts import committed_bytes, read_part, write_headers
from pgti.store.rounding import LostDigits
from pgti.store.row_writer import canonical_pieces
from pgti.store.statistics import (
    DIGEST_BYTES,
    BlockMoments,
    ReadingsDigest,
    RunningStatistics,
    digest_of,
)
from pgti.store.time_axis import TimeAxis

__all__ = ["StoreAppender"]

_LOCK_FILE = ".pgti.lock"
_GROWING_FILE = re.compile(
    r"(series|moments|digests|time)(-\d+)?\.(npy|old)|future-[0-9a-f]{16}\.npy"
)


class StoreAppender:
    """Appends rows to a store, or writes its last ones anew.

    Use it as a context manager: it waits until no other process writes to the store, removes what
    a killed one left, and leaves the store as it was unless `finish` is called.

    Args:
        path: the store's directory.
        on_busy: called once if it has to wait.

    Attributes:
        meta: the store as it is on disk, once entered.
        lost: which digits of the appended rows float32 has lost, likewise.

    Raises:
        StoreError: on entering, if there is no store, it is of format 1, or it cannot be written;
            later if writing fails.
    """

    meta: StoreMeta
    lost: LostDigits

    def __init__(self, path: Path, *, on_busy: Callable[[], None] = lambda: None) -> None:
        self._path, self._on_busy = path, on_busy
        self._held = contextlib.ExitStack()
        self._is_finished = False

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if not (self._path / META_FILE).is_file():
                StoreMeta.read(self._path)  # refuses, before a lock is made where no store is
            stack.enter_context(file_lock(self._path / _LOCK_FILE, on_busy=self._on_busy))
            self.meta = meta = StoreMeta.read(self._path)
            if meta.format_version == 1:
                raise StoreError(
                    f"{self._path} is a store of format 1, which cannot grow: ingest its source "
                    "again"
                )
            with self._writing():
                self._remove_leftovers(meta)
                self._links = read_part(self._path, meta, DIGESTS_FILE)
                self._blocks = read_part(self._path, meta, MOMENTS_FILE)
                self._encoder = SeriesEncoder(
                    self._path / meta.file_of(SERIES_FILE),
                    meta.num_nodes,
                    meta.num_channels,
                    resumed=meta,
                    successor=self._path / self._next().file_of(SERIES_FILE),
                )
                stack.callback(self._discard)
                link = self._links[-1].tobytes() if len(self._links) else bytes(DIGEST_BYTES)
                self._statistics = RunningStatistics.resume(
                    meta.sizes, meta.num_steps, meta.open_moments, link, self.read
                )
            self.lost = LostDigits(meta.node_ids, meta.channels)
            self._num_missing, self._is_rewritten = meta.missing_count, False
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    @property
    def num_steps(self) -> int:
        """Rows of the store and those that were appended so far."""
        return self._encoder.num_steps

    def read(self, start: int, stop: int) -> Values:
        """Readings of rows start..stop-1 that the store has, [rows, N, C]."""
        codec = codec_of(self.meta)
        row_bytes = self.meta.num_nodes * self.meta.num_channels * codec.dtype.itemsize
        with self._writing(), (self._path / self.meta.file_of(SERIES_FILE)).open("rb") as file:
            file.seek(SERIES_OFFSET + start * row_bytes)
            content = file.read((stop - start) * row_bytes)
        raw: NDArray[Any] = np.frombuffer(content, dtype=codec.dtype)
        return codec.decode(raw.reshape(-1, *self.meta.shape[1:]))

    def rewrite_from(self, row: int) -> None:
        """Write the series anew as the next generation, up to and without `row`.

        The rows from there on are to be appended again.
        """
        meta, sizes = self.meta, self.meta.sizes
        self._encoder.close()
        self._is_rewritten, self._num_missing = True, 0
        with self._writing():
            path = self._path / self._next().file_of(SERIES_FILE)
            self._encoder = SeriesEncoder(
                path, meta.num_nodes, meta.num_channels, exact=meta.is_exact
            )
        blocks, groups = row // sizes.block_rows, row // sizes.group_rows
        link = self._links[groups - 1].tobytes() if groups else bytes(DIGEST_BYTES)
        self._blocks, self._links = self._blocks[:blocks], self._links[:groups]
        self._statistics = RunningStatistics(
            BlockMoments(sizes, num_rows=blocks * sizes.block_rows),
            ReadingsDigest(sizes.group_rows, link, groups * sizes.group_rows),
        )
        rows = max(1, sizes.group_rows)
        for first in range(0, row, rows):
            self.append(self.read(first, min(row, first + rows)))

    def append(self, values: NDArray[np.floating]) -> None:
        """Append rows [rows, N, C] in original units; NaN means missing.

        Raises:
            DataError: if the shape is wrong or a reading is infinite.
            StoreError: if writing fails.
        """
        meta = self.meta
        for readings in canonical_pieces(
            values, meta.sizes, self.num_steps, self.lost, exact=meta.is_exact
        ):
            first = self._encoder.num_steps
            with self._writing():
                self._encoder.append(readings)
            self._statistics.update(readings, first)
            self._num_missing += int(np.isnan(readings).sum())

    def finish(self, time_axis: TimeAxis, future: NDArray[np.floating] | None = None) -> StoreMeta:
        """Make the rows part of the store.

        Args:
            time_axis: of all rows.
            future: values of the channels known in advance after the last of them [rows, N, F],
                in place of those that the store has; none if not given.

        Returns:
            The new description.

        Raises:
            StoreError: if it cannot be written; the store is then what it was.
        """
        later = as_future(
            future,
            self.meta.num_nodes,
            len(self.meta.known_future),
            codec_of(self.meta).reading_dtype,
        )
        meta = self._describe(time_axis, later)
        with self._writing():
            self._encoder.finish()
            if len(later) and not (self._path / meta.file_of(FUTURE_FILE)).exists():
                write_rows(self._path / meta.file_of(FUTURE_FILE), later)
            self._write_part(
                meta, MOMENTS_FILE, self._blocks, self._statistics.moments.blocks_array()
            )
            self._write_part(meta, DIGESTS_FILE, self._links, self._statistics.digest.links_array())
            if time_axis.seconds is not None:
                known = 0 if self.meta.is_regular else self.meta.num_steps
                seconds = time_axis.seconds.astype("<i8")
                self._write_part(meta, TIME_FILE, seconds[:known], seconds[known:])
            text = meta.to_json().encode()
            sync_directory(self._path)  # new files have their names before they are relied on
            with replace_atomically(self._path / META_FILE, StoreError) as partial:
                partial.write_bytes(text)
            self._is_finished = True
            self.meta = meta
            # The store is complete. What follows is for those that open its files themselves.
            with contextlib.suppress(OSError):
                write_headers(self._path, meta)
            with contextlib.suppress(OSError):
                self._remove_leftovers(meta)
        return meta

    def _describe(self, time_axis: TimeAxis, future: Values) -> StoreMeta:
        encoder, moments, digest = self._encoder, self._statistics.moments, self._statistics.digest
        constant = {part: each for part, each in self.meta.parts.items() if is_constant_part(part)}
        parts = constant | {
            DIGESTS_FILE: digest_of(np.concatenate([self._links, digest.links_array()])),
            MOMENTS_FILE: digest_of(np.concatenate([self._blocks, moments.blocks_array()])),
            SERIES_FILE: digest.hexdigest(),
        }
        if time_axis.seconds is not None:
            parts[TIME_FILE] = digest_of(time_axis.seconds)
        if len(future):
            parts[FUTURE_FILE] = digest_of(future)
        moved = self._is_rewritten or encoder.has_moved
        return replace(
            self._next() if moved else self.meta,
            num_steps=encoder.num_steps,
            dtype=encoder.codec.dtype.name,
            divisors=encoder.codec.divisors,
            missing_code=encoder.codec.missing_code,
            missing_count=self._num_missing,
            interval_seconds=time_axis.interval_seconds,
            is_regular=time_axis.seconds is None,
            time_rule=None if time_axis.rule is None else time_axis.rule.to_plain(),
            parts=dict(sorted(parts.items())),
            max_codes=encoder.max_codes,
            open_moments=moments.open_moments(),
            future_steps=len(future),
        )

    def _next(self) -> StoreMeta:
        return replace(self.meta, generation=self.meta.generation + 1)

    def _write_part(self, meta: StoreMeta, part: str, old: NDArray[Any], new: NDArray[Any]) -> None:
        """Write a small array: the rows that are new, or all of them where its file is."""
        path = self._path / meta.file_of(part)
        if meta.generation == self.meta.generation and part in self.meta.parts:
            if len(new):
                extend_rows(path, len(old), new)
            return
        write_rows(path, np.concatenate([old, new]))

    def _remove_leftovers(self, meta: StoreMeta) -> None:
        """Remove what killed writers left: other generations, temporary files, rows at the end."""
        remove_partial_files(self._path)
        files = {meta.file_of(part) for part in meta.parts}
        for path in self._path.iterdir():
            if _GROWING_FILE.fullmatch(path.name) and path.name not in files:
                path.unlink(missing_ok=True)
        for part in meta.parts:
            if is_constant_part(part):
                continue
            path, size = self._path / meta.file_of(part), committed_bytes(self._path, meta, part)
            if path.stat().st_size > size:
                os.truncate(path, size)

    def _discard(self) -> None:
        self._encoder.close()
        if not self._is_finished:
            with contextlib.suppress(OSError, StoreError):  # the next writer tries again
                self._remove_leftovers(StoreMeta.read(self._path))  # it may be the new one

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return reraise_os_errors(f"{self._path} cannot be written", StoreError)
