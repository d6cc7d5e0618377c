"""What a store says of itself: `meta.json`, read and written strictly."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pgti.errors import StoreError

__all__ = ["FORMAT_VERSION", "META_FILE", "StoreMeta"]

FORMAT_VERSION = 1
META_FILE = "meta.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreMeta:
    """The description of a store.

    Args:
        format_version: version of the directory's layout.
        num_steps: rows of the series, T.
        num_nodes: sensors, N.
        num_channels: channels, C.
        num_edges: edges of the graph.
        dtype: "int16" or "float32".
        divisors: for int16, grid steps per unit of each channel (reading = code / divisor).
        missing_code: for int16, the code of a missing reading; NaN stands for it in float32.
        missing_count: missing readings in the whole series.
        channels: name of each channel.
        units: unit of each channel, "" where unknown.
        node_ids: identifier of each sensor.
        start: wall-clock (or, with a zone, UTC) time of row 0 as ISO 8601, or None.
        interval_seconds: seconds between rows, or None.
        is_regular: False if `time.npy` holds the time of every row.
        time_zone: IANA name, or None.
        block_rows: rows summarised by each row of `moments.npy`.
        parts: SHA-256 of every other file of the store.
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, N, C)."""
        return self.num_steps, self.num_nodes, self.num_channels

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything the store holds, through the hashes of its parts."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `meta.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, directory: Path) -> "StoreMeta":
        """Read and check `meta.json`.

        Raises:
            StoreError: if there is none, or it is damaged or from a newer version.
        """
        path = directory / META_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(
                f"{directory} is not a store: it has no {META_FILE}; make one with `pgti ingest`"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} cannot be read: {error}; ingest the source again") from None
        except json.JSONDecodeError as error:
            raise StoreError(
                f"{path} is damaged at line {error.lineno} ({error.msg}); ingest the source again"
            ) from None
        return cls._from_content(path, content)

    @classmethod
    def _from_content(cls, path: Path, content: Any) -> "StoreMeta":  # noqa: ANN401 - JSON is untyped until checked
        version = content.get("format_version") if isinstance(content, dict) else None
        if not isinstance(version, int):
            raise StoreError(f"{path} has no format version: it is not a store's description")
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{path} has format version {version} and this pgti reads up to {FORMAT_VERSION}; "
                "upgrade pgti or ingest the source again"
            )
        names = {field.name for field in fields(cls)}
        if set(content) != names:
            differing = ", ".join(sorted(set(content) ^ names))
            raise StoreError(f"{path} has missing or unknown entries: {differing}")
        problem = _wrong_type(content)
        if problem is not None:
            raise StoreError(f"{path} is damaged: {problem}; ingest the source again")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        meta = cls(**values)
        meta._check(path)
        return meta

    def _check(self, path: Path) -> None:
        sizes = (self.num_steps, self.num_nodes, self.num_channels)
        consistent = (
            all(size > 0 for size in sizes)
            and self.dtype in ("int16", "float32")
            and len(self.node_ids) == self.num_nodes
            and len(self.channels) == len(self.units) == self.num_channels
            and (self.dtype == "float32") == (self.divisors is None)
            and (self.divisors is None or len(self.divisors) == self.num_channels)
        )
        if not consistent:
            raise StoreError(
                f"{path} contradicts itself (shape {sizes}, dtype {self.dtype!r}); "
                "ingest the source again"
            )


# What JSON must hold for each entry: (types, types of the items of a list).
_JSON_TYPES: dict[str, tuple[tuple[type, ...], type | None]] = {
    **dict.fromkeys(
        ("format_version", "num_steps", "num_nodes", "num_channels", "num_edges"), ((int,), None)
    ),
    **dict.fromkeys(("missing_count", "block_rows"), ((int,), None)),
    **dict.fromkeys(("missing_code", "interval_seconds"), ((int, type(None)), None)),
    **dict.fromkeys(("start", "time_zone"), ((str, type(None)), None)),
    **dict.fromkeys(("channels", "units", "node_ids"), ((list,), str)),
    "divisors": ((list, type(None)), int),
    "dtype": ((str,), None),
    "is_regular": ((bool,), None),
    "parts": ((dict,), None),
}


def _wrong_type(content: dict[str, Any]) -> str | None:
    """What is wrong with the first entry that has not the type it must have, if any."""
    for name, (types, item_type) in _JSON_TYPES.items():
        value = content[name]
        if not isinstance(value, types):
            return f"{name} is {value!r}"
        if isinstance(value, list) and not all(
            isinstance(item, item_type or str) for item in value
        ):
            return f"{name} holds something other than {(item_type or str).__name__}"
    return None
