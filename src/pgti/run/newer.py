"""Newer readings of a run's sensors, as a store that its network can read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import ConfigError
from pgti.ingestion import IngestOptions
from pgti.ingestion.labelled.labelled import XarrayObject
from pgti.ingestion.newer.newer import NewerSeries, open_newer_series
from pgti.ingestion.newer.recall import given_options
from pgti.ingestion.tables.frame_tables import ArrowFrame, LazyFrame
from pgti.run.earlier_rows import with_earlier_rows
from pgti.run.loaded import LoadedRun
from pgti.run.ranges import compare_ranges
from pgti.store import SeriesStore

__all__ = ["NEWER_TYPES", "NewerOptions", "NewerReadings", "open_newer"]

NewerReadings: TypeAlias = (
    SeriesStore
    | str
    | Path
    | pd.DataFrame
    | ArrowFrame
    | LazyFrame
    | XarrayObject
    | NDArray[Any]
    | Sequence[Any]
    | Mapping[str, Any]
)
"""A store or its path, or what `pgti.ingest` reads: a file, a DataFrame or an array, or several."""

NEWER_TYPES = (
    *(SeriesStore, Path, pd.DataFrame, ArrowFrame, LazyFrame, XarrayObject, np.ndarray, Mapping),
)
"""Types of newer readings other than texts and lists."""

NewerOptions: TypeAlias = IngestOptions | Mapping[str, Any] | None
"""How to read newer readings where that is not as in training: options of `IngestOptions`, or those
that are given by name; a mapping may also give an option its default."""


def _is_store(path: Path) -> bool:
    """Whether a path is that of a store, or of a directory without files to take for readings."""
    return path.is_dir() and (
        (path / "meta.json").exists() or not any(map(Path.is_file, path.iterdir()))
    )


@contextmanager
def open_newer(
    run: LoadedRun,
    readings: NewerReadings,
    options: NewerOptions = None,
    *,
    num_rows: int | None = None,
) -> Iterator[NewerSeries]:
    """Newer readings as a store of the run's sensors in its order, its channels and its clock.

    A file, a table and an array are read as the run's own source was, unless the user says
    otherwise; a store is taken as it is. See `pgti.ingestion.newer.newer.open_newer_series`.

    Args:
        run: the run.
        readings: the newer readings.
        options: how to read those that are no store.
        num_rows: newest rows that are needed at least, history included, where not all are.

    Raises:
        ConfigError: if options cannot be used.
        DataError: if the readings are not of the run's sensors and channels, at other times than
            those of its clock or interval, or break a rule.
        StoreError: if their store cannot be opened.
    """
    given = given_options(options)
    if isinstance(readings, list | tuple) and len(readings) == 1:
        (readings,) = readings
    if isinstance(readings, str | Path) and _is_store(Path(readings)):
        readings = SeriesStore.open(readings)
    if isinstance(readings, SeriesStore) and given:
        raise ConfigError(
            "options of ingest describe a file or a table, and the readings are a store: leave "
            "them out"
        )
    with ExitStack() as held:
        newer = held.enter_context(open_newer_series(readings, run.store, given, num_rows=num_rows))
        is_store, remembered = isinstance(readings, SeriesStore), run.store.meta.read_options
        notes = compare_ranges(
            newer.store,
            run.typical,
            num_rows,
            is_scaled=not is_store and "scale" not in given and bool(remembered.get("scale")),
            missing=None
            if is_store
            else tuple(given.get("missing", remembered.get("missing", ()))),
        )
        yield with_earlier_rows(run, replace(newer, notes=(*newer.notes, *notes)), num_rows)
