"""Checksums of downloaded files: written down when a file is first used, checked from then on.

Most data sets are published without checksums. So the first download is trusted as it comes over
TLS; what this guards against is that a file changes afterwards, on the disk or at its source.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from pgti.datasets.dataset import Download
from pgti.errors import DataError

__all__ = ["CHECKSUMS_FILE", "Checksums", "digest_of"]

CHECKSUMS_FILE = "checksums.json"
_READ_BYTES = 1 << 20


class _Entry(TypedDict):
    sha256: str
    bytes: int
    url: str


def digest_of(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file by an algorithm of `hashlib`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class Checksums:
    """The checksums in one folder of downloads. Whoever writes holds the folder's lock.

    Args:
        folder: the folder; `checksums.json` in it need not exist.

    Raises:
        DataError: if the file is there and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CHECKSUMS_FILE
        self._entries = _entries_in(self._path)
        self._seen: dict[str, _Entry] = {}

    @property
    def has_new(self) -> bool:
        """Whether a file was checked of which nothing is written down yet."""
        return not self._seen.keys() <= self._entries.keys()

    def sha256(self, name: str) -> str | None:
        """What was written down for a file; None if it was never used."""
        entry = self._entries.get(name)
        return None if entry is None else entry["sha256"]

    def check(self, path: Path, download: Download) -> None:
        """Compare a downloaded file with what was written down, or else with its publisher's MD5.

        Raises:
            DataError: if it is another file. It stays where it is.
        """
        recorded = self.sha256(download.name)
        found = digest_of(path, "sha256")
        if recorded not in (None, found):
            raise DataError(
                f"{path} has SHA-256 {found[:12]}... and {recorded[:12] if recorded else ''}... "
                f"was written down when it was first used: it has changed since; remove it to "
                f"download it again, or its entry in {self._path} to trust it as it is"
            )
        if recorded is None and download.md5 not in (None, digest_of(path, "md5")):
            raise DataError(
                f"{path} has not the MD5 {download.md5} that its publisher states: it is another "
                "file or damaged; remove it to download it again"
            )
        self._seen[download.name] = _Entry(
            sha256=found, bytes=path.stat().st_size, url=download.url
        )

    def write(self) -> None:
        """Write down the files that were checked, once they have proved to be of use."""
        entries = self._entries | self._seen
        if entries == self._entries:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
            temporary.replace(self._path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._entries = entries


def _entries_in(path: Path) -> dict[str, _Entry]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): _Entry(
                sha256=str(entry["sha256"]), bytes=int(entry["bytes"]), url=str(entry["url"])
            )
            for name, entry in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise DataError(
            f"{path} cannot be read as checksums ({reason}): remove it to trust the files beside "
            "it anew"
        ) from error
