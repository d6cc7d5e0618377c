"""Checksums of downloaded files: recorded when a file is first used, checked from then on.

Most data sets are published without checksums, so the first download over TLS is trusted; the
checksums show when a file changes afterwards, on the disk or at its source.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pgti.datasets.dataset import Download
from pgti.errors import ConfigError, DataError, require_whole_number
from pgti.options import convert_fields, parse_config, require_type
from pgti.storage import read_small_file, write_atomically

__all__ = ["CHECKSUMS_FILE", "Checksums"]

CHECKSUMS_FILE = "checksums.json"

_MAX_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    sha256: str
    bytes: int
    url: str

    def __post_init__(self) -> None:
        convert_fields(self)
        require_whole_number("bytes", self.bytes, 0)
        if _SHA256.fullmatch(self.sha256) is None:
            raise ConfigError(f"sha256 is {self.sha256[:70]!r}: it must be 64 hexadecimal digits")


class Checksums:
    """The checksums in one folder of downloads. A writer must hold the folder's lock.

    Args:
        folder: the folder; `checksums.json` in it need not exist.

    Raises:
        DataError: if the file exists and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CHECKSUMS_FILE
        self._entries = _read_entries(self._path)
        self._seen: dict[str, _Entry] = {}

    @property
    def has_new(self) -> bool:
        """Whether a file without a recorded checksum was checked."""
        return not self._seen.keys() <= self._entries.keys()

    def sha256(self, name: str) -> str | None:
        """The recorded checksum of a file; None if it was never used."""
        entry = self._entries.get(name)
        return None if entry is None else entry.sha256

    def check(self, path: Path, download: Download) -> None:
        """Compare a downloaded file with its recorded checksum, or else its publisher's MD5.

        Raises:
            DataError: if they differ; the file stays where it is.
        """
        recorded = self.sha256(download.name)
        found = _digest(path, "sha256")
        if recorded is not None and recorded != found:
            raise DataError(
                f"{path} has SHA-256 {found[:12]}... and {recorded[:12]}... was recorded when it "
                "was first used: it has changed since; remove it to download it again, or its "
                f"entry in {self._path} to trust it as it is"
            )
        if recorded is None and download.md5 not in (None, _digest(path, "md5")):
            raise DataError(
                f"{path} does not have the MD5 {download.md5} that its publisher states: it is "
                "another file or damaged; remove it to download it again"
            )
        self._seen[download.name] = _Entry(
            sha256=found, bytes=path.stat().st_size, url=download.url
        )

    def write(self) -> None:
        """Record the files that were checked, once they have proved to be of use.

        Raises:
            RunError: if the file cannot be written.
        """
        entries = self._entries | self._seen
        if entries == self._entries:
            return
        content = {name: asdict(entry) for name, entry in entries.items()}
        write_atomically(self._path, (json.dumps(content, indent=2) + "\n").encode())
        self._entries = entries


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _read_entries(path: Path) -> dict[str, _Entry]:
    if not path.exists():
        return {}
    try:
        content = json.loads(read_small_file(path, f"{path}", _MAX_BYTES, DataError))
        require_type("the whole", content, Mapping, "entries by name")
        for name, entry in content.items():
            require_type(name, entry, Mapping, "the checksum of a file")
        return {name: parse_config(_Entry, entry, name) for name, entry in content.items()}
    # TypeError: an entry is missing; ValueError: no JSON; RecursionError: deep nesting.
    except (DataError, ConfigError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise DataError(
            f"{path} cannot be read as checksums ({reason}): remove it to accept the files "
            "beside it as they are"
        ) from error
