"""Whether the entries of a store's description agree with one another."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from pgti.store.codec import GridCodec, codec_of_dtype
from pgti.store.layout import (
    DIGESTS_FILE,
    FUTURE_FILE,
    GRAPH_FILE,
    MOMENTS_FILE,
    SERIES_FILE,
    STATIC_FILE,
    TIME_FILE,
)
from pgti.store.time_axis import is_zone

if TYPE_CHECKING:
    from pgti.store.meta import StoreMeta

__all__ = ["contradictions", "listed"]

_DTYPES = ("int16", "float32", "int32", "float64")
_MAX_DIVISOR = 2**24  # whole numbers up to it are exact in float32
_MAX_INTERVAL_SECONDS = 2**31 - 1  # 68 years: far below where row times would overflow


def contradictions(meta: "StoreMeta") -> Iterator[str]:
    """Yield what is wrong with the entries, each of the right type, and between them."""
    sizes = meta.shape
    if not all(size > 0 for size in sizes):
        yield f"the shape is {sizes}"
    if len(meta.node_ids) != meta.num_nodes or len(set(meta.node_ids)) != meta.num_nodes:
        yield f"there are {meta.num_nodes} nodes and {len(set(meta.node_ids))} different ids"
    names = set(meta.channels)
    if not len(meta.channels) == len(names) == len(meta.units) == meta.num_channels:
        yield f"there are {meta.num_channels} channels and {len(names)} different names"
    yield from _contradictions_of_codes(meta)
    yield from _contradictions_of_times(meta)
    if not 0 <= meta.missing_count < max(1, meta.num_readings):
        yield f"{meta.missing_count} of {meta.num_readings} readings are missing"
    if meta.block_rows < 1:
        yield f"block_rows is {meta.block_rows}"
    yield from _contradictions_of_growth(meta)
    yield from _contradictions_of_covariates(meta)
    yield from _contradictions_of_parts(meta)


def _contradictions_of_codes(meta: "StoreMeta") -> Iterator[str]:
    if meta.dtype not in _DTYPES[: 2 if meta.format_version < 3 else None]:
        yield f"the dtype is {meta.dtype!r}"
    is_grid = meta.dtype in ("int16", "int32")
    codec = codec_of_dtype(meta.dtype, meta.divisors)
    if is_grid != (meta.divisors is not None) or meta.missing_code != codec.missing_code:
        yield (
            f"the dtype is {meta.dtype}, divisors are {meta.divisors} and missing_code is "
            f"{meta.missing_code}"
        )
    if meta.divisors is not None and (
        len(meta.divisors) != meta.num_channels
        or not all(1 <= divisor <= _MAX_DIVISOR for divisor in meta.divisors)
    ):
        yield f"the divisors of {meta.num_channels} channels are {meta.divisors}"


def _contradictions_of_parts(meta: "StoreMeta") -> Iterator[str]:
    parts = {SERIES_FILE, MOMENTS_FILE, GRAPH_FILE}
    if not meta.is_regular:
        parts.add(TIME_FILE)
    if meta.format_version > 1:
        parts.add(DIGESTS_FILE)
    if meta.future_steps:
        parts.add(FUTURE_FILE)
    if meta.format_version > 2 and STATIC_FILE in meta.parts:
        parts.add(STATIC_FILE)
    if set(meta.parts) != parts:
        yield f"the parts are {listed(meta.parts)} and should be {listed(parts)}"


def _contradictions_of_covariates(meta: "StoreMeta") -> Iterator[str]:
    known = meta.known_future
    if not set(known) <= set(meta.channels) or len(set(known)) != len(known):
        yield f"the channels are {listed(meta.channels)} and known_future is {listed(known)}"
    if 0 < meta.num_channels == len(known):
        yield "every channel is known in advance"
    if meta.future_steps < 0 or (meta.future_steps and not known):
        yield f"there are {meta.future_steps} rows of {len(known)} channels known in advance"


def _contradictions_of_growth(meta: "StoreMeta") -> Iterator[str]:
    if meta.generation < 0:
        yield f"the generation is {meta.generation}"
    if meta.format_version == 1:
        return
    codes, codec = meta.max_codes, codec_of_dtype(meta.dtype, meta.divisors)
    limit = codec.max_code if isinstance(codec, GridCodec) else 0
    if (codes is None) != (meta.divisors is None) or (
        codes is not None
        and (len(codes) != meta.num_channels or not 0 <= min(codes) <= max(codes) <= limit)
    ):
        yield f"the dtype is {meta.dtype} and max_codes is {codes}"
    if len(meta.open_moments) != meta.num_channels:
        yield f"open_moments are those of {len(meta.open_moments)} channels"


def _contradictions_of_times(meta: "StoreMeta") -> Iterator[str]:
    if meta.start is not None and not _is_time(meta.start):
        yield f"the start {meta.start!r} is not a time"
    if meta.interval_seconds is not None and not (
        1 <= meta.interval_seconds <= _MAX_INTERVAL_SECONDS
    ):
        yield f"the interval is {meta.interval_seconds} s"
    if meta.start is not None and meta.interval_seconds is None:
        yield "there is a start and no interval"
    if meta.time_zone is not None and not is_zone(meta.time_zone):
        yield f"there is no time zone {meta.time_zone!r}"


def listed(names: Iterable[str]) -> str:
    """Names in alphabetical order."""
    return ", ".join(sorted(names))


def _is_time(text: str) -> bool:
    """Whether `text` is a date and time to the second, without an offset, in its usual form."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return False
    return time.tzinfo is None and time.isoformat(timespec="seconds") == text
