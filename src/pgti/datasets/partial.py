"""Which version of which file a part on the disk belongs to, and whether an answer continues it."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from pgti.errors import ConfigError, FetchError
from pgti.options import parse_config, require_type
from pgti.storage import read_small_file

__all__ = ["FileVersion", "content_length", "content_range"]

_NOTE_BYTES = 1 << 16
_LENGTH = re.compile(r"[0-9]{1,15}")
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')

Headers = Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileVersion:
    """A file as a server described it when its first bytes arrived.

    Attributes:
        url: where it was asked for.
        etag: its entity tag.
        modified: when it was modified.
        date: when it was sent.
        total: its bytes.
    """

    url: str
    etag: str | None
    modified: str | None
    date: str | None
    total: int | None

    @classmethod
    def of(cls, url: str, headers: Headers) -> "FileVersion":
        """The version that the headers of an answer describe."""
        return cls(
            url=url,
            etag=headers.get("ETag"),
            modified=headers.get("Last-Modified"),
            date=headers.get("Date"),
            total=content_length(headers),
        )

    @classmethod
    def read(cls, path: Path) -> "FileVersion | None":
        """The version that a note describes; None where there is no note that can be trusted."""
        with suppress(FetchError, ConfigError, TypeError, ValueError, RecursionError):
            content = json.loads(read_small_file(path, path.name, _NOTE_BYTES, FetchError))
            require_type(path.name, content, Mapping, "a version")
            return parse_config(cls, content)
        return None

    def write(self, path: Path) -> None:
        """Write the note."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def validator(self) -> str | None:
        """Its strong entity tag, or else its date; None if neither tells versions apart."""
        if self.etag is not None and _STRONG_TAG.fullmatch(self.etag):
            return self.etag
        is_settled = self.modified is not None and _is_settled(self.modified, self.date or "")
        return self.modified if is_settled else None

    def is_of(self, headers: Headers) -> bool:
        """Whether an answer is of this version: its validator is there, and nothing differs."""
        tags = (self.etag, headers.get("ETag")), (self.modified, headers.get("Last-Modified"))
        return any(found == self.validator for _, found in tags) and all(
            found in (None, noted) for noted, found in tags
        )


def content_length(headers: Headers) -> int | None:
    """The bytes that an answer announces; None if it announces none.

    Raises:
        ValueError: if what it announces is no length.
    """
    text = headers.get("Content-Length")
    if text is None:
        return None
    if _LENGTH.fullmatch(text) is None:
        raise ValueError(f"its Content-Length is {text[:40]!r}, which is no length")
    return int(text)


def content_range(headers: Headers) -> tuple[int, int, int] | None:
    """The first byte of a part, the one behind its last, and the bytes of the whole file.

    None if the answer does not say it, or contradicts itself.
    """
    match = _RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        return None
    first, last, total = (int(number) for number in match.groups())
    fits = first <= last < total and content_length(headers) in (None, last + 1 - first)
    return (first, last + 1, total) if fits else None


def _is_settled(modified: str, date: str) -> bool:
    """Whether a file cannot have changed once more in the second that its date names."""
    try:
        age = parsedate_to_datetime(date) - parsedate_to_datetime(modified)
        return age.total_seconds() >= 1 and modified.isprintable()
    except (TypeError, ValueError, OverflowError):  # one is no date, or has no zone
        return False
