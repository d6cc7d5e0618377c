"""The series of a run: what its directory says of it, and where its rows are."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from pgti.errors import DataError, RunError, StoreError
from pgti.graph import SensorGraph
from pgti.store import SeriesStore, StoreMeta, TimeAxis, TimeRule, TypicalReadings, open_store
from pgti.store.meta import META_FILE, STATIC_FILE
from pgti.store.static_features import StaticFeatures
from pgti.training import RunDirectory
from pgti.training.compatibility import check_fingerprint

__all__ = ["FollowedStore", "RunData", "RunSeries", "find_series", "series_facts"]

_GRAPH_FILE = "graph.npz"
_TYPICAL_FILE = "typical.npz"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RunData:
    """What a run's directory holds of the series, so that it forecasts newer readings alone.

    Attributes:
        meta: the description of the rows that the run has seen.
        graph: the sensor graph.
        typical: what each sensor usually reads in the training rows.
        static: features of the sensors; None where there are none.
    """

    meta: StoreMeta
    graph: SensorGraph
    typical: TypicalReadings
    static: StaticFeatures | None = None

    def to_files(self) -> dict[str, bytes]:
        """Content of each file by name."""
        files = {
            META_FILE: self.meta.to_json().encode(),
            _GRAPH_FILE: self.graph.to_bytes(),
            _TYPICAL_FILE: self.typical.to_bytes(),
        }
        return files if self.static is None else files | {STATIC_FILE: self.static.to_bytes()}

    @classmethod
    def read(cls, directory: RunDirectory) -> Self | None:
        """What the directory holds; None for a run of an earlier version, which has none.

        Raises:
            RunError: if it is damaged.
        """
        path = directory.data_directory
        if not path.is_dir():
            return None
        try:
            meta, static = StoreMeta.read(path), path / STATIC_FILE
            features = None
            if STATIC_FILE in meta.parts:
                features = StaticFeatures.from_bytes(
                    static.read_bytes(), meta.num_nodes, str(static)
                )
            data = cls(
                meta=meta,
                static=features,
                graph=SensorGraph.load(path / _GRAPH_FILE),
                typical=TypicalReadings.load(path / _TYPICAL_FILE),
            )
        except (DataError, StoreError, OSError) as error:
            raise RunError(f"{path} is damaged: {error}; copy the run again") from None
        sizes = (data.meta.num_nodes, data.meta.num_channels)
        if data.graph.num_nodes != sizes[0] or data.typical.table.shape[1:] != sizes:
            raise RunError(
                f"{path} is damaged: its graph has {data.graph.num_nodes} sensors, its typical "
                f"readings {data.typical.table.shape[1:]} and its description {sizes}; copy the "
                "run again"
            )
        return data

    def stand_in(self, name: str) -> SeriesStore:
        """A store of the same sensors, channels and times, without any row."""
        meta = self.meta
        return SeriesStore.in_memory(
            np.empty((0, meta.num_nodes, meta.num_channels)),
            self.graph,
            TimeAxis(
                num_steps=0,
                start_seconds=None
                if meta.start is None
                else int(np.datetime64(meta.start, "s").astype(np.int64)),
                interval_seconds=meta.interval_seconds,
                time_zone=meta.time_zone,
                seconds=None if meta.is_regular else np.empty(0, dtype=np.int64),
                rule=None if meta.time_rule is None else TimeRule.from_plain(meta.time_rule),
            ),
            node_ids=meta.node_ids,
            channels=meta.channels,
            units=meta.units,
            read_options=meta.read_options,
            known_future=meta.known_future,
            static=self.static,
            name=name,
            exact=meta.is_exact,
        )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RunSeries:
    """The series of a run.

    Attributes:
        store: the rows that the run has seen, or none where its store is not found.
        latest: the whole store now, which may have grown; if it has other readings now than the
            run has seen, there is a problem as well.
        newer: the store that was given, if it is another.
        typical: what each sensor usually reads in the training rows, if the run knows it.
        problem: why there are no rows; None where there are.
    """

    store: SeriesStore
    latest: SeriesStore
    newer: SeriesStore | None = None
    typical: TypicalReadings | None = None
    problem: str | None = None


class FollowedStore:
    """The store of a run as it is now: opened again when it has changed on the disk.

    Args:
        store: the store, or the run's stand-in for one that is gone.
        seen: the rows that the run has seen.
        is_own: whether the store still has these rows.
    """

    def __init__(self, store: SeriesStore, seen: SeriesStore, *, is_own: bool) -> None:
        self._store, self._seen, self._is_own = store, seen, is_own
        self._stamp = self._read_stamp()

    def now(self) -> tuple[SeriesStore, bool]:
        """The store, and whether it still has the rows that the run has seen.

        Raises:
            StoreError: if it has changed and cannot be opened.
        """
        stamp = self._read_stamp()
        if stamp is not None and stamp != self._stamp:
            self._store = SeriesStore.open(self._store.path, verify_up_to_bytes=0)
            seen = self._seen.meta
            rows = _rows_of(self._store, seen) if seen.num_steps else None
            self._is_own = rows is not None and rows.fingerprint == self._seen.fingerprint
            self._stamp = stamp
        return self._store, self._is_own

    def _read_stamp(self) -> tuple[int, ...] | None:
        """What changes when the description is replaced; None for a store without one."""
        try:
            status = (self._store.path / META_FILE).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def series_facts(store: SeriesStore, directory: Path) -> dict[str, Any]:
    """Where the store of a run is, for `run.json`: as a path, and seen from the run."""
    path = store.path.absolute()
    return {
        "store": str(path),
        "store_from_run": os.path.relpath(path, directory.absolute()),
        "fingerprint": store.fingerprint,
    }


def find_series(
    directory: RunDirectory,
    recorded: Path,
    fingerprint: str,
    given: str | Path | SeriesStore | None = None,
) -> RunSeries:
    """Find the store of a run: the one given, where it was in training, or beside the run.

    Args:
        directory: of the run.
        recorded: where the store was.
        fingerprint: of the rows that the run has seen.
        given: a store or its path; any but the run's own is one of newer readings.

    Raises:
        RunError: if the store of a run of an earlier version is another one, or what the run holds
            of its series is damaged.
        StoreError: if a given store cannot be opened, or that of a run of an earlier version.
    """
    data = RunData.read(directory)
    opened = None if given is None else open_store(given)
    own, typical = None, None if data is None else data.typical
    if opened is not None:
        own = _own_rows(opened, data, fingerprint)
        if own is not None:
            return RunSeries(store=own, latest=opened, typical=typical)
    if data is None:
        if opened is None:
            opened = SeriesStore.open(recorded)
        check_fingerprint(fingerprint, opened.fingerprint)
        return RunSeries(store=opened, latest=opened)
    problem, changed = f"the store {recorded} is gone", None
    for path in _places(directory, recorded):
        if not path.exists():
            continue
        try:
            found = SeriesStore.open(path)
        except StoreError as error:
            problem = str(error)
            continue
        own = _own_rows(found, data, fingerprint)
        if own is not None:
            return RunSeries(store=own, latest=found, newer=opened, typical=typical)
        problem, changed = f"the store {path} has other readings now than in training", found
    stand_in = data.stand_in(str(recorded))
    return RunSeries(
        store=stand_in,
        latest=stand_in if changed is None else changed,
        newer=opened,
        typical=typical,
        problem=problem,
    )


def _places(directory: RunDirectory, recorded: Path) -> list[Path]:
    """Where the store of a run may be: beside a run that moved or was copied with it, or before."""
    relative = directory.read_info().get("store_from_run")
    places = [recorded]
    if isinstance(relative, str):
        places.insert(0, Path(os.path.normpath(directory.path / relative)))
    return list(dict.fromkeys(places))


def _own_rows(store: SeriesStore, data: RunData | None, fingerprint: str) -> SeriesStore | None:
    """The rows of a store that the run has seen; None if the store is another."""
    rows = store if data is None else _rows_of(store, data.meta)
    return rows if rows is not None and rows.fingerprint == fingerprint else None


def _rows_of(store: SeriesStore, seen: StoreMeta) -> SeriesStore | None:
    """As many rows of a store as a run has seen; None if it has fewer, or is of other sensors."""
    same = (store.meta.node_ids, store.meta.channels) == (seen.node_ids, seen.channels)
    return store.prefix(seen.num_steps) if same and store.meta.num_steps >= seen.num_steps else None
