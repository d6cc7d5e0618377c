"""Readings, and ways to write them down with what must come out, for `test_layouts`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Short decimals that differ everywhere, so that no transposed or shifted cell can hide.
NUM_STEPS, NUM_NODES = 12, 3
TIMES = pd.date_range("2024-03-13T08:00", periods=NUM_STEPS, freq="h")
IDS = ("north", "south", "west")
SPEED = np.round(50 + np.arange(NUM_STEPS)[:, None] * 1.5 + np.arange(NUM_NODES) * 0.25, 2)
SPEED[4, 1] = np.nan
FLOW = np.arange(NUM_STEPS * NUM_NODES, dtype=np.float64).reshape(NUM_STEPS, NUM_NODES) + 300
BOTH = np.stack([SPEED, FLOW], axis=-1)


def frame(values: np.ndarray = SPEED, **columns: Any) -> pd.DataFrame:
    """A wide table: the index is the times."""
    return pd.DataFrame(values, index=TIMES, columns=list(IDS), **columns)


def long_frame(time: str = "time", sensor: str = "sensor", **values: np.ndarray) -> pd.DataFrame:
    """A long table in order of time, then sensor."""
    values = values or {"value": SPEED}
    return pd.DataFrame(
        {
            time: np.repeat(TIMES, NUM_NODES),
            sensor: np.tile(IDS, NUM_STEPS),
            **{name: array.ravel() for name, array in values.items()},
        }
    )


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a store must hold.

    Attributes:
        values: readings [T, N, C].
        ids: sensor ids; None where the source has none.
        channels: names of the channels; None leaves them open.
        start: time of the first row.
        interval: seconds between rows.
        zone: time zone.
        note: words that one of the notes must hold.
    """

    values: np.ndarray = field(default_factory=lambda: SPEED[..., None])
    ids: tuple[str, ...] | None = IDS
    channels: tuple[str, ...] | None = None
    start: str | None = "2024-03-13T08:00:00"
    interval: int | None = 3600
    zone: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Refused:
    """A refusal in one line, which must hold all these words."""

    words: tuple[str, ...]


Source = Any  # a path, several paths, or an object


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way to write readings down.

    Attributes:
        make: writes the readings below a directory; returns what `ingest` takes.
        options: options of `ingest`.
        expected: what comes out.
        peer: another library's reading of the same source: values [T, N].
    """

    make: Callable[[Path], Source]
    options: Mapping[str, Any] = field(default_factory=dict)
    expected: Stored | Refused = field(default_factory=Stored)
    peer: Callable[[Any], np.ndarray] | None = None


def refused(*words: str) -> Refused:
    """A refusal that holds the words."""
    return Refused(words)


def text(name: str, content: str, encoding: str = "utf-8") -> Callable[[Path], Path]:
    """Writes a file of text."""

    def make(directory: Path) -> Path:
        path = directory / name
        path.write_bytes(content.encode(encoding))
        return path

    return make


def csv(table: pd.DataFrame, name: str = "a.csv", **options: Any) -> Callable[[Path], Path]:
    """Writes a table as text, as pandas does."""

    def make(directory: Path) -> Path:
        table.to_csv(directory / name, **options)
        return directory / name

    return make
