"""The description of a store, `meta.json`: its entries and the checks on them."""

import hashlib
import json
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, StoreError, machine_fault
from pgti.options import parse_config
from pgti.storage import recover_displaced
from pgti.store.codec import Codec, codec_of_dtype
from pgti.store.consistency import contradictions, listed
from pgti.store.layout import (
    DIGESTS_FILE,
    FUTURE_FILE,
    GRAPH_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    STATIC_FILE,
    TIME_FILE,
)
from pgti.store.statistics import Sizes
from pgti.store.time_axis import TimeAxis
from pgti.store.time_rule import TimeRule

__all__ = [
    "DIGESTS_FILE",
    "FORMAT_VERSION",
    "FUTURE_FILE",
    "GRAPH_FILE",
    "META_FILE",
    "MOMENTS_FILE",
    "SERIES_FILE",
    "SERIES_OFFSET",
    "STATIC_FILE",
    "TIME_FILE",
    "StoreMeta",
    "codec_of",
    "is_constant_part",
    "time_axis_of",
]

FORMAT_VERSION = 3
META_FILE = "meta.json"
SERIES_OFFSET = 4096  # first byte of the readings: page-aligned for direct I/O and device mapping
_EXACT = ("int32", "float64")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreMeta:
    """The description of a store.

    `meta.json` holds these entries and one more, `digest`: the SHA-256 of all the others, which
    detects a damaged description. It is the one file of a store that is replaced: the others grow,
    and what they hold beyond `num_steps` was left by a writer that did not finish.

    Attributes:
        format_version: version of the directory's layout: the first that has what the store has.
        num_steps: rows of the series, T.
        num_nodes: sensors, N.
        num_channels: channels, C.
        num_edges: edges of the graph.
        dtype: "int16" or "float32"; of an exact store, from format 3 on, "int32" or "float64".
        divisors: for whole numbers, grid steps per unit of each channel (reading = code / divisor).
        missing_code: for whole numbers, the code of a missing reading; in floats NaN stands for it.
        missing_count: missing readings in the whole series.
        channels: name of each channel.
        units: unit of each channel, "" where unknown.
        node_ids: identifier of each sensor.
        start: wall-clock time (with a zone: UTC) of row 0 as ISO 8601, or None.
        interval_seconds: seconds between rows, or None.
        is_regular: False if `time.npy` holds the time of every row.
        time_zone: IANA name, or None.
        block_rows: rows that each row of `moments.npy` summarizes.
        parts: SHA-256 of what the store has of every other file: of `graph.npz` all bytes, of
            `series.npy` the last link of the chain of digests (see `ReadingsDigest`), of the others
            their numbers; of `static.npz` all bytes. In format 1: of every file.
        generation: how often the series was written anew, because readings were corrected or
            needed another dtype: `series.npy` is generation 0, `series-1.npy` the next.
        read_options: how the source was read: the options of `pgti.ingest` for readings that were
            given, and `source_channels`, the names of the channels in the source, () if it had
            none.
        time_rule: the calendar rule of the times, or None.
        max_codes: for whole numbers, the largest code of each channel, in absolute value.
        open_moments: count, mean and m2 of each channel over the whole pieces of the last block,
            which is not in `moments.npy` yet.
        known_future: channels whose values are known in advance. Since format 3, as what follows.
        future_steps: rows of `future.npy`: values of these channels after the last row.
    """

    format_version: int
    num_steps: int
    num_nodes: int
    num_channels: int
    num_edges: int
    dtype: str
    divisors: tuple[int, ...] | None
    missing_code: int | None
    missing_count: int
    channels: tuple[str, ...]
    units: tuple[str, ...]
    node_ids: tuple[str, ...]
    start: str | None
    interval_seconds: int | None
    is_regular: bool
    time_zone: str | None
    block_rows: int
    parts: dict[str, str]
    generation: int = 0
    read_options: dict[str, Any] = field(default_factory=dict)
    time_rule: dict[str, Any] | None = None
    max_codes: tuple[int, ...] | None = None
    open_moments: tuple[tuple[float, float, float], ...] = ()
    known_future: tuple[str, ...] = ()
    future_steps: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, N, C)."""
        return self.num_steps, self.num_nodes, self.num_channels

    @property
    def num_readings(self) -> int:
        """T * N * C, missing ones included."""
        return self.num_steps * self.num_nodes * self.num_channels

    @property
    def missing_fraction(self) -> float:
        """Share of the readings that are missing; 0 where there is none."""
        return self.missing_count / max(1, self.num_readings)

    @property
    def is_exact(self) -> bool:
        """Whether readings are float64, as they stand in the source; else they are float32."""
        return self.dtype in _EXACT

    @property
    def num_blocks(self) -> int:
        """Whole blocks of rows, which `moments.npy` summarizes (format 1: and the last one)."""
        begun = self.format_version == 1 and self.num_steps % self.block_rows > 0
        return self.num_steps // self.block_rows + begun

    @property
    def sizes(self) -> Sizes:
        """What pieces of the series are summarized together."""
        return Sizes(
            num_nodes=self.num_nodes, num_channels=self.num_channels, block_rows=self.block_rows
        )

    @property
    def known_indices(self) -> tuple[int, ...]:
        """Positions of the channels that are known in advance."""
        return tuple(self.channels.index(name) for name in self.known_future)

    @property
    def is_extended(self) -> bool:
        """Whether the store has what format 2 lacks."""
        return self.is_exact or bool(self.known_future) or STATIC_FILE in self.parts

    def in_lowest_format(self) -> "StoreMeta":
        """The same description in the first format that can hold it and grow."""
        return replace(self, format_version=3 if self.is_extended else 2)

    def file_of(self, part: str) -> str:
        """Name of the file that holds a part, such as "series.npy", in this generation.

        `future.npy` is written anew when it changes, and is called after its content.
        """
        stem, suffix = part.split(".")
        if part == FUTURE_FILE:
            return f"{stem}-{self.parts[part][:16]}.{suffix}"
        if self.generation == 0 or is_constant_part(part):
            return part
        return f"{stem}-{self.generation}.{suffix}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of sensors, channels, units, graph, times, readings; in format 1 of all files.

        Of static features too; not of values after the last row, which forecasts revise.
        """
        if self.format_version == 1:
            return _sha256(_indented(self._entries()))
        names = ("node_ids", "channels", "units", "start", "time_zone")
        said: dict[str, Any] = {name: getattr(self, name) for name in names}
        said["times"] = self.interval_seconds if self.is_regular else self.parts[TIME_FILE]
        said |= {"graph": self.parts[GRAPH_FILE], "readings": self.parts[SERIES_FILE]}
        if self.known_future:
            said["known_future"] = self.known_future
        if STATIC_FILE in self.parts:
            said["static"] = self.parts[STATIC_FILE]
        return _sha256(json.dumps(said))

    def to_json(self) -> str:
        """The text of `meta.json`."""
        entries = self._entries()
        return _text(entries | {"digest": _sha256(_text(entries))})

    def _entries(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in _fields_of(self.format_version)}

    @classmethod
    def read(cls, directory: Path) -> "StoreMeta":
        """Read and check `meta.json`.

        Raises:
            StoreError: if it is missing, damaged or from another version.
        """
        path = directory / META_FILE
        try:
            if not directory.is_dir() and not recover_displaced(directory):
                raise StoreError(
                    f"{directory} is not a store: there is no such directory; "
                    "ingest readings to make one"
                )
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(
                f"{directory} is not a store: it has no {META_FILE}; ingest readings to make one"
            ) from None
        except json.JSONDecodeError as error:
            raise StoreError(
                f"{path} is damaged at line {error.lineno} ({error.msg}); ingest the source again"
            ) from None
        # ValueError: no UTF-8, or a number of thousands of digits; RecursionError: deep nesting.
        except (OSError, ValueError, RecursionError) as error:
            reason = machine_fault(error) or f"{error}; ingest the source again"
            raise StoreError(f"{path} cannot be read: {reason}") from None
        return cls._from_content(path, content)

    @classmethod
    def _from_content(cls, path: Path, content: Any) -> "StoreMeta":
        version = content.get("format_version") if isinstance(content, dict) else None
        if type(version) is not int:
            raise StoreError(f"{path} has no format version: it is not a store's description")
        if not 1 <= version <= FORMAT_VERSION:
            raise StoreError(
                f"{path} has format version {version} and this pgti reads 1 to {FORMAT_VERSION}; "
                "upgrade pgti or ingest the source again"
            )
        names = {"digest", *(each.name for each in _fields_of(version))}
        if set(content) != names:
            raise StoreError(
                f"{path} has missing or unknown entries: {listed(set(content) ^ names)}; "
                "ingest the source again"
            )
        digest = content.pop("digest")
        try:
            meta = parse_config(cls, content)
            problem = next(contradictions(meta), None)
            if _sha256(_text(meta._entries())) != digest:
                problem = "its entries do not match its digest"
        except ConfigError as error:  # an entry of another type
            problem = str(error)
        if problem is not None:
            raise StoreError(f"{path} is damaged: {problem}; ingest the source again")
        return meta


def is_constant_part(part: str) -> bool:
    """Whether a file is written once, with the store, and checked against all of its bytes."""
    return part in (GRAPH_FILE, STATIC_FILE)


def codec_of(meta: StoreMeta) -> Codec:
    """What decodes the stored numbers."""
    return codec_of_dtype(meta.dtype, meta.divisors)


def time_axis_of(meta: StoreMeta, seconds: NDArray[np.int64] | None) -> TimeAxis:
    """The times of the rows of a store.

    Args:
        meta: its description.
        seconds: epoch seconds of every row, where the interval is not constant.

    Raises:
        DataError: if they contradict one another.
        ConfigError: if the rule of the times is damaged.
    """
    start = None if meta.start is None else np.datetime64(meta.start, "s").astype(np.int64)
    return TimeAxis(
        num_steps=meta.num_steps,
        start_seconds=None if start is None else int(start),
        interval_seconds=meta.interval_seconds,
        time_zone=meta.time_zone,
        seconds=seconds,
        rule=None if meta.time_rule is None else TimeRule.from_plain(meta.time_rule),
    )


def _fields_of(version: int) -> tuple[Field[Any], ...]:
    """The entries of a version of the format, in order."""
    names = {1: "parts", 2: "open_moments"}
    every = fields(StoreMeta)
    last = names.get(version, every[-1].name)
    return every[: 1 + [each.name for each in every].index(last)]


def _text(entries: dict[str, Any]) -> str:
    """The entries as text to write and to hash: one a line, in the order of the fields."""
    if entries["format_version"] == 1:
        return _indented(entries)
    # Without an indent, json encodes in C: ten thousand sensor ids take a millisecond.
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in entries.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _indented(entries: dict[str, Any]) -> str:
    return json.dumps(entries, indent=1) + "\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
