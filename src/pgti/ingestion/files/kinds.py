"""What each of several files holds: a stretch of time, a sensor or a channel."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgti.display import shorten
from pgti.errors import DataError, option
from pgti.ingestion.files.sets import SourceSet
from pgti.ingestion.files.streams import read_times
from pgti.ingestion.options import FilesKind, IngestOptions
from pgti.ingestion.readings import Readings

__all__ = ["OpenedFile", "choose_kind", "have_other_sensors", "stem_of"]

_READ_BYTES = 1 << 22
_QUANTITIES = frozenset(
    (
        "aqi", "cases", "co", "co2", "consumption", "count", "counts", "current", "deaths",
        "demand", "density", "dewp", "dewpoint", "discharge", "dropoffs", "energy", "flow",
        "flows", "generation", "humidity", "inflow", "irradiance", "level", "load", "measurement",
        "no2", "nox", "o3", "occ", "occupancy", "outflow", "ozone", "pickups", "pm10", "pm25",
        "power", "prcp", "precipitation", "pres", "pressure", "price", "radiation", "rain",
        "rainfall", "reading", "readings", "snow", "so2", "speed", "speeds", "stage", "supply",
        "target", "temp", "temperature", "traffic", "turbidity", "value", "values", "visibility",
        "voltage", "volume", "wind", "wspm", "y",
    )
)  # fmt: skip
"""Words in the names of what is measured, which sensors are seldom called."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class OpenedFile:
    """An opened file.

    Attributes:
        name: what the user calls it.
        readings: what it holds.
        first: its first time, in true seconds where they are known.
        is_timed: whether it has times.
    """

    name: str
    readings: Readings
    first: int
    is_timed: bool


def choose_kind(
    found: SourceSet[Any], files: Sequence[OpenedFile], options: IngestOptions
) -> FilesKind:
    """What each of the files holds, which the user may say.

    Files of other times, other sensors or channels with names are stretches of time: they are
    joined by what they have. Of others, those are sensors whose columns are called like quantities
    (speed, pm25), and those channels that are called so themselves.

    Args:
        found: the files.
        files: the same, opened.
        options: see `IngestOptions`.

    Raises:
        DataError: if it could be two things.
    """
    if options.files is not None:
        return options.files
    if len(files) == 1:
        return "times"
    columns = [set(each.readings.node_ids or ()) for each in files]
    by_name = _kind_by_name(found, columns)
    is_known = files[0].readings.channels is not None
    if not files[0].is_timed:
        if is_known or by_name is None:
            raise _untimed(found)
        return by_name
    if is_known or have_other_sensors(files):
        return "times"
    if len({each.first for each in files}) == len(files):
        return by_name if by_name is not None and _overlaps(files, options) else "times"
    if by_name is not None:
        return by_name
    twice = [each for each in files if [other.first for other in files].count(each.first) > 1][:2]
    one, two = (each.readings.name for each in twice)
    shared = columns[0] & columns[1] or columns[0]
    raise DataError(
        f"{one} and {two} have the same columns ({shorten(sorted(shared))}) at the same times: "
        f"pass {option('files', 'sensors')} if each file is a sensor and its columns are channels, "
        f"or {option('files', 'channels')} if each file is a channel and its columns are sensors"
    )


def have_other_sensors(files: Sequence[OpenedFile]) -> bool:
    """Whether no two files have a sensor of one id."""
    every = [each.readings.node_ids for each in files]
    known = [ids for ids in every if ids is not None]
    return len(known) == len(every) and len(set().union(*known)) == sum(map(len, known))


def _kind_by_name(found: SourceSet[Any], columns: "Sequence[set[str]]") -> FilesKind | None:
    """What files with equal columns are, if it shows in their names or in those of the columns."""
    if not found.are_named:
        return None
    every, names = set.union(*columns), [stem_of(name) for name in found.sources]
    if 2 * sum(map(_is_quantity, every)) > len(every) and not any(map(_is_quantity, names)):
        return "sensors"
    if all(map(_is_quantity, names)) and not any(map(_is_quantity, every)):
        return "channels"
    return None


def _overlaps(files: Sequence[OpenedFile], options: IngestOptions) -> bool:
    """Whether the file with the first time reaches the beginning of the next one."""
    first, second = sorted(files, key=lambda each: each.first)[:2]
    return any(
        chunk.seconds is not None and chunk.seconds[-1] >= second.first
        for chunk in read_times(first.readings, (), options.time_zone, _READ_BYTES)
    )


def _untimed(found: SourceSet[Any]) -> DataError:
    names = shorten(list(found.sources))
    return DataError(
        f"{found.name} ({names}) have no times, so that it is not certain what each holds: pass "
        f"{option('files', 'times')} if each continues the one before it, "
        f"{option('files', 'sensors')} or {option('files', 'channels')}"
    )


def _is_quantity(name: str) -> bool:
    words = re.findall(r"[a-z]+\d*(?:\.\d+)?", name.lower())
    return any(word.replace(".", "") in _QUANTITIES for word in words)


def stem_of(name: str) -> str:
    """The name of a file without its suffixes."""
    base = Path(name).name
    while re.fullmatch(r"\.[a-z]\w*", suffix := Path(base).suffix, re.IGNORECASE):
        base = base.removesuffix(suffix)
    return base
