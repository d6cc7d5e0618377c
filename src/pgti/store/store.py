"""Reading a store: one read-only memory map, shared by all processes of a machine."""

import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import Display, count_of
from pgti.errors import PARSER_ERRORS, ConfigError, DataError, StoreError, machine_fault
from pgti.graph import SensorGraph
from pgti.options import require_type
from pgti.store.codec import Codec, Raw, Values
from pgti.store.covariates import as_future
from pgti.store.facts import describe_store
from pgti.store.labelled import to_dataset
from pgti.store.meta import StoreMeta, codec_of, time_axis_of
from pgti.store.moments import Moments, moments_of_rows
from pgti.store.parts import (
    check_constant_parts,
    check_files,
    check_future,
    check_sample,
    check_series,
    open_parts,
    release,
)
from pgti.store.prefix import cut_meta, describe_memory, open_prefix
from pgti.store.static_features import StaticFeatures
from pgti.store.statistics import canonical
from pgti.store.time_axis import TimeAxis

if TYPE_CHECKING:
    import pandas as pd

    from pgti.store.plots import StorePlots

__all__ = ["SeriesStore", "open_store"]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class SeriesStore(Display):
    """An open store; `SeriesStore.open` opens one.

    Attributes:
        path: the store's directory.
        meta: its description.
        raw: the stored series [T, N, C], a read-only memory map of codes or floats.
        graph: the sensor graph.
        time_axis: the time of each row.
        codec: decodes the stored numbers.
        block_moments: count, mean and m2 (see `Moments`) of each `meta.block_rows` rows, float64
            [whole blocks, C, 3].
        notes: what writing the store found worth knowing, one line each; empty for a store that
            was opened.
        links: of the chain of digests, uint8 [groups, 32]; None in format 1 and in memory.
        mapping: the memory map that `raw` is a view of; None for a store in memory.
        future: values of the channels known in advance (`meta.known_future`) after the last row,
            [rows, N, F], NaN for missing.
        static_features: what is known of each sensor; None where nothing is.
    """

    path: Path
    meta: StoreMeta
    raw: Raw
    graph: SensorGraph
    time_axis: TimeAxis
    codec: Codec
    block_moments: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    links: NDArray[np.uint8] | None = None
    mapping: mmap.mmap | None = None
    future: Values = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    static_features: StaticFeatures | None = None

    @classmethod
    def open(cls, path: str | Path, *, verify_up_to_bytes: int = 1 << 28) -> "SeriesStore":
        """Open the store at `path`, mapping its series without reading it.

        Args:
            path: the store's directory.
            verify_up_to_bytes: check a series of up to this size whole, and of a larger one some
                groups of rows, other ones each time; 0 checks lengths alone.

        Raises:
            StoreError: if the directory is not a store, is damaged, or has a newer format.
        """
        require_type("path", path, (str, os.PathLike), "the path of a store")
        path = Path(path)
        while True:
            meta = StoreMeta.read(path)
            try:
                return cls._open(path, meta, verify_up_to_bytes)
            except StoreError:
                if StoreMeta.read(path) == meta:  # nobody has written to it meanwhile
                    raise

    @classmethod
    def _open(cls, path: Path, meta: StoreMeta, verify_up_to_bytes: int) -> "SeriesStore":
        codec = codec_of(meta)
        try:
            parts = open_parts(path, meta, codec, verify_up_to_bytes)
            time_axis = time_axis_of(meta, parts.seconds)
        except PARSER_ERRORS as error:
            if fault := machine_fault(error):
                raise StoreError(f"the store {path} cannot be read: {fault}") from None
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"the store {path} is damaged: {reason}; ingest it again") from None
        described = path, meta, parts.raw, parts.graph, time_axis, codec, parts.block_moments
        store = cls(*described, (), parts.links, parts.mapping, parts.future, parts.static)
        if parts.links is not None and verify_up_to_bytes:
            check = check_series if parts.raw.nbytes <= verify_up_to_bytes else check_sample
            check(path, meta, parts.links, store.read, parts.mapping)
        return store

    @classmethod
    def in_memory(  # noqa: PLR0913 - what a directory's description says
        cls,
        values: NDArray[np.floating],
        graph: SensorGraph,
        time_axis: TimeAxis,
        *,
        node_ids: tuple[str, ...],
        channels: tuple[str, ...],
        units: tuple[str, ...] | None = None,
        read_options: Mapping[str, Any] = MappingProxyType({}),
        known_future: tuple[str, ...] = (),
        future: NDArray[np.floating] | None = None,
        static: StaticFeatures | None = None,
        name: str = "memory",
        exact: bool = False,
    ) -> "SeriesStore":
        """A store without a directory; its readings are floats in memory.

        Args:
            values: readings in original units [T, N, C], NaN for missing; T may be 0.
            graph: of the N sensors.
            time_axis: of the rows.
            node_ids: identifier of each sensor.
            channels: name of each channel.
            units: of each channel; "" if not given.
            read_options: see `StoreMeta`.
            known_future: channels known in advance.
            future: their values after the last row [rows, N, F]; none if not given.
            static: features of the sensors.
            name: what messages call it, and its `path`.
            exact: whether readings are float64; else they are float32.

        Raises:
            DataError: if the numbers of rows, sensors or channels disagree.
        """
        sizes = (time_axis.num_steps, len(node_ids), len(channels))
        if values.shape != sizes or graph.num_nodes != len(node_ids):
            raise DataError(
                f"{name} has readings of shape {values.shape} and a graph of "
                f"{count_of(graph.num_nodes, 'node')} for {sizes} rows, sensors and channels: they "
                "must agree"
            )
        dtype = np.dtype(np.float64 if exact else np.float32)
        readings = canonical(values, dtype)
        later = as_future(future, len(node_ids), len(known_future), dtype)
        meta = describe_memory(
            readings,
            graph,
            time_axis,
            future=later,
            static=static,
            known_future=known_future,
            node_ids=node_ids,
            channels=channels,
            units=units if units is not None else ("",) * len(channels),
            read_options=dict(read_options),
        )
        return cls(
            path=Path(name),
            meta=meta,
            raw=readings,
            graph=graph,
            time_axis=time_axis,
            codec=codec_of(meta),
            block_moments=np.empty((0, len(channels), 3)),
            future=later,
            static_features=static,
        )

    @property
    def is_in_memory(self) -> bool:
        """Whether the store has no directory."""
        return self.mapping is None

    def __reduce__(self) -> tuple[Callable[..., "SeriesStore"], tuple[Any, ...]]:
        """Pickle the path and the number of rows for another process; in memory, the readings."""
        if self.is_in_memory:
            fields = self.path, self.meta, self.raw, self.graph, self.time_axis, self.codec
            rest = self.block_moments, self.notes, None, None, self.future, self.static_features
            return SeriesStore, (*fields, *rest)
        place = self.path.resolve(), self.meta.num_steps, self.fingerprint
        return open_prefix, (SeriesStore.open, *place)

    def describe(self) -> tuple[str, dict[str, str]]:
        """A title, and facts by name; each is one line."""
        return describe_store(self)

    @property
    def plot(self) -> "StorePlots":
        """Figures of the store: called, all of them; `plot.coverage`, `plot.week` and others alone.

        They need plotly (the extra `report`). See `pgti.store.plots.StorePlots`.
        """
        from pgti.store.plots import StorePlots  # noqa: PLC0415 - it reads stores

        return StorePlots(self)

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` that reads only what is indexed; see `pgti.store.labelled`.

        Raises:
            MissingExtraError: if xarray is not installed.
        """
        return to_dataset(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the store's content, whatever the dtype on disk."""
        return self.meta.fingerprint

    def fingerprint_at(self, num_steps: int) -> str:
        """The fingerprint that the store had, or would have had, with its first `num_steps` rows.

        Raises:
            ConfigError: if it has fewer rows.
        """
        return self.prefix(num_steps).fingerprint

    def prefix(self, num_steps: int) -> "SeriesStore":
        """A view of the first `num_steps` rows: the store as it was when it had no more.

        Raises:
            ConfigError: if it has fewer rows.
        """
        if not 0 <= num_steps <= self.meta.num_steps:
            has = f"and it has {self.meta.num_steps}"
            raise ConfigError(f"the first {num_steps} rows of {self.path} were asked for, {has}")
        if num_steps == self.meta.num_steps:
            return self
        meta, time_axis = cut_meta(self, num_steps)
        return replace(
            self,
            meta=meta,
            time_axis=time_axis,
            raw=self.raw[:num_steps],
            block_moments=self.block_moments[: meta.num_blocks],
            links=None if self.links is None else self.links[: num_steps // meta.sizes.group_rows],
            notes=(),
            future=self.future[:0],
        )

    @property
    def static(self) -> "pd.DataFrame | None":
        """The features of the sensors that do not change, a table [N, S]; None if there are none.

        Its index is the sensors' ids; a feature with categories is a `Categorical`.
        """
        features = self.static_features
        return None if features is None else features.to_frame(self.meta.node_ids)

    @property
    def num_bytes(self) -> int:
        """Bytes of the series on disk."""
        return int(self.raw.nbytes)

    def read(self, start: int, stop: int) -> Values:
        """Readings of rows start..stop-1, float32 (exact: float64) [rows, N, C], NaN = missing."""
        return self.codec.decode(self.raw[start:stop])

    def release(self) -> None:
        """Unmap rows that were read, which counts as memory of the process; the system has them."""
        release(self.mapping)

    def moments(self, rows: range) -> Moments:
        """Statistics of the observed readings in `rows` (consecutive).

        Whole blocks come from the store's summary; only the rows at the two ends are read.
        """
        return moments_of_rows(self.raw, self.codec, rows, self.block_moments, self.meta.block_rows)

    def verify(self) -> None:
        """Check every part against its SHA-256, whatever its size; of a prefix its rows.

        Raises:
            StoreError: naming the first part that differs.
        """
        if self.is_in_memory:
            return
        if self.links is None:
            check_files(self.path, self.meta, verify_up_to_bytes=None)
            return
        check_constant_parts(self.path, self.meta)
        check_future(self.path, self.meta, self.future)
        check_series(self.path, self.meta, self.links, self.read, self.mapping)

    def append(self, source: Any, options: Any = None, **more: Any) -> "SeriesStore":
        """Append the rows of a source that come after the last row: see `pgti.ingestion.append`.

        Args:
            source: a file of readings, a DataFrame, or an array [rows, N] or [rows, N, C].
            options: `IngestOptions` of readings; the others are those of the store's source.
            **more: options of `IngestOptions`, and `correct=True` to write known rows anew.

        Returns:
            The grown store; this object still has the rows that it had.

        Raises:
            PgtiError: if the rows cannot be appended; the store is then what it was.
        """
        grow: Any = import_module("pgti.ingestion.appending")  # by name: a layer above
        grown: SeriesStore = grow.append(self, source, options, **more)
        return grown

    def channel_indices(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Positions of the named channels.

        Raises:
            DataError: if there is no such channel, or one is named twice.
        """
        known = self.meta.channels
        for name in names:
            if name not in known:
                raise DataError(f"there is no channel {name!r}: the store has {', '.join(known)}")
        if len(set(names)) != len(names):
            raise DataError(f"a channel is named twice in {', '.join(names)}")
        return tuple(known.index(name) for name in names)


def open_store(store: str | Path | SeriesStore) -> SeriesStore:
    """The store itself, or the one at a path.

    Raises:
        ConfigError: if it is neither.
        StoreError: if it cannot be opened.
    """
    if isinstance(store, SeriesStore):
        return store
    if not isinstance(store, str | os.PathLike):
        raise ConfigError(
            f"store is a {type(store).__name__}: it must be a store or the path of one; "
            "pgti.ingest writes one from a table, an array or a file"
        )
    return SeriesStore.open(store)
