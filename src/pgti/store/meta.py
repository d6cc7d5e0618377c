"""The description of a store, `meta.json`: its entries and the checks on them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from pgti.errors import ConfigError, StoreError
from pgti.options import parse_config
from pgti.store.codec import Codec, GridCodec, codec_of_dtype
from pgti.store.statistics import Sizes
from pgti.store.time_axis import is_zone

__all__ = [
    "DIGESTS_FILE",
    "FORMAT_VERSION",
    "GRAPH_FILE",
    "META_FILE",
    "MOMENTS_FILE",
    "SERIES_FILE",
    "SERIES_OFFSET",
    "TIME_FILE",
    "StoreMeta",
    "codec_of",
]

FORMAT_VERSION = 3
META_FILE = "meta.json"
SERIES_FILE = "series.npy"
TIME_FILE = "time.npy"
MOMENTS_FILE = "moments.npy"
DIGESTS_FILE = "digests.npy"
GRAPH_FILE = "graph.npz"
SERIES_OFFSET = 4096  # first byte of the readings: page-aligned for direct I/O and device mapping
_DTYPES = ("int16", "float32", "int32", "float64")
_EXACT = _DTYPES[2:]
_MAX_DIVISOR = 2**24  # whole numbers up to it are exact in float32
_MAX_INTERVAL_SECONDS = 2**31 - 1  # 68 years: far below where row times would overflow


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreMeta:
    """The description of a store.

    `meta.json` holds these entries and one more, `digest`: the SHA-256 of all the others, which
    detects a damaged description. It is the one file of a store that is replaced: the others grow,
    and what they hold beyond `num_steps` was left by a writer that did not finish.

    Attributes:
        format_version: version of the directory's layout.
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
            their numbers. In format 1: of every file.
        generation: how often the series was written anew, because readings were corrected or
            needed another dtype: `series.npy` is generation 0, `series-1.npy` the next.
        read_options: how the source was read: the options of `pgti.ingest` for readings that were
            given, and `source_channels`, the names of the channels in the source, () if it had
            none.
        time_rule: the calendar rule of the times, or None.
        max_codes: for whole numbers, the largest code of each channel, in absolute value.
        open_moments: count, mean and m2 of each channel over the whole pieces of the last block,
            which is not in `moments.npy` yet.
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

    def file_of(self, part: str) -> str:
        """Name of the file that holds a part, such as "series.npy", in this generation."""
        if self.generation == 0 or part == GRAPH_FILE:
            return part
        stem, suffix = part.split(".")
        return f"{stem}-{self.generation}.{suffix}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of sensors, channels, units, graph, times, readings; in format 1 of all files."""
        if self.format_version == 1:
            return _sha256(_indented(self._entries()))
        names = ("node_ids", "channels", "units", "start", "time_zone")
        said: dict[str, Any] = {name: getattr(self, name) for name in names}
        said["times"] = self.interval_seconds if self.is_regular else self.parts[TIME_FILE]
        said |= {"graph": self.parts[GRAPH_FILE], "readings": self.parts[SERIES_FILE]}
        return _sha256(json.dumps(said))

    def to_json(self) -> str:
        """The text of `meta.json`."""
        entries = self._entries()
        return _text(entries | {"digest": _sha256(_text(entries))})

    def _entries(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in _fields_of(self.format_version)}

    def contradictions(self) -> Iterator[str]:
        """Yield what is wrong with the entries, each of the right type, and between them."""
        sizes = self.shape
        if not all(size > 0 for size in sizes):
            yield f"the shape is {sizes}"
        if len(self.node_ids) != self.num_nodes or len(set(self.node_ids)) != self.num_nodes:
            yield f"there are {self.num_nodes} nodes and {len(set(self.node_ids))} different ids"
        names = set(self.channels)
        if not len(self.channels) == len(names) == len(self.units) == self.num_channels:
            yield f"there are {self.num_channels} channels and {len(names)} different names"
        yield from self._contradictions_of_codes()
        yield from self._contradictions_of_times()
        if not 0 <= self.missing_count < max(1, self.num_readings):
            yield f"{self.missing_count} of {self.num_readings} readings are missing"
        if self.block_rows < 1:
            yield f"block_rows is {self.block_rows}"
        yield from self._contradictions_of_growth()
        parts = {SERIES_FILE, MOMENTS_FILE, GRAPH_FILE}
        if not self.is_regular:
            parts.add(TIME_FILE)
        if self.format_version > 1:
            parts.add(DIGESTS_FILE)
        if set(self.parts) != parts:
            yield f"the parts are {_listed(self.parts)} and should be {_listed(parts)}"

    def _contradictions_of_codes(self) -> Iterator[str]:
        if self.dtype not in _DTYPES[: 2 if self.format_version < 3 else None]:
            yield f"the dtype is {self.dtype!r}"
        is_grid = self.dtype in ("int16", "int32")
        if is_grid != (self.divisors is not None) or (
            self.missing_code != codec_of(self).missing_code
        ):
            yield (
                f"the dtype is {self.dtype}, divisors are {self.divisors} and missing_code is "
                f"{self.missing_code}"
            )
        if self.divisors is not None and (
            len(self.divisors) != self.num_channels
            or not all(1 <= divisor <= _MAX_DIVISOR for divisor in self.divisors)
        ):
            yield f"the divisors of {self.num_channels} channels are {self.divisors}"

    def _contradictions_of_growth(self) -> Iterator[str]:
        if self.generation < 0:
            yield f"the generation is {self.generation}"
        if self.format_version == 1:
            return
        codes, codec = self.max_codes, codec_of(self)
        limit = codec.max_code if isinstance(codec, GridCodec) else 0
        if (codes is None) != (self.divisors is None) or (
            codes is not None
            and (len(codes) != self.num_channels or not 0 <= min(codes) <= max(codes) <= limit)
        ):
            yield f"the dtype is {self.dtype} and max_codes is {codes}"
        if len(self.open_moments) != self.num_channels:
            yield f"open_moments are those of {len(self.open_moments)} channels"

    def _contradictions_of_times(self) -> Iterator[str]:
        if self.start is not None and not _is_time(self.start):
            yield f"the start {self.start!r} is not a time"
        if self.interval_seconds is not None and not (
            1 <= self.interval_seconds <= _MAX_INTERVAL_SECONDS
        ):
            yield f"the interval is {self.interval_seconds} s"
        if self.start is not None and self.interval_seconds is None:
            yield "there is a start and no interval"
        if self.time_zone is not None and not is_zone(self.time_zone):
            yield f"there is no time zone {self.time_zone!r}"

    @classmethod
    def read(cls, directory: Path) -> "StoreMeta":
        """Read and check `meta.json`.

        Raises:
            StoreError: if it is missing, damaged or from another version.
        """
        path = directory / META_FILE
        try:
            if not directory.is_dir():
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
            raise StoreError(f"{path} cannot be read: {error}; ingest the source again") from None
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
                f"{path} has missing or unknown entries: {_listed(set(content) ^ names)}; "
                "ingest the source again"
            )
        digest = content.pop("digest")
        try:
            meta = parse_config(cls, content)
            problem = next(meta.contradictions(), None)
            if _sha256(_text(meta._entries())) != digest:
                problem = "its entries do not match its digest"
        except ConfigError as error:  # an entry of another type
            problem = str(error)
        if problem is not None:
            raise StoreError(f"{path} is damaged: {problem}; ingest the source again")
        return meta


def codec_of(meta: StoreMeta) -> Codec:
    """What decodes the stored numbers."""
    return codec_of_dtype(meta.dtype, meta.divisors)


def _fields_of(version: int) -> tuple[Field[Any], ...]:
    """The entries of a version of the format, in order."""
    return fields(StoreMeta)[: 18 if version == 1 else None]


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


def _listed(names: set[str] | dict[str, str]) -> str:
    return ", ".join(sorted(names))


def _is_time(text: str) -> bool:
    """Whether `text` is a date and time to the second, without an offset, in its usual form."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return False
    return time.tzinfo is None and time.isoformat(timespec="seconds") == text
