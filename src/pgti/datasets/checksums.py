"""Checksums of downloaded files: recorded when a file is first used, checked from then on.

Most data sets are published without checksums, so the first download over TLS is trusted; the
checksums show when a file changes afterwards, on the disk or at its source.
"""

import hashlib
import json
from pathlib import Path
from typing import TypedDict

from pgti.datasets.dataset import Download
from pgti.errors import DataError
from pgti.storage import write_atomically

__all__ = ["CHECKSUMS_FILE", "Checksums"]

CHECKSUMS_FILE = "checksums.json"


class _Entry(TypedDict):
    sha256: str
    bytes: int
    url: str


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
        return None if entry is None else entry["sha256"]

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
        write_atomically(self._path, (json.dumps(entries, indent=2) + "\n").encode())
        self._entries = entries


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _read_entries(path: Path) -> dict[str, _Entry]:
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
            f"{path} cannot be read as checksums ({reason}): remove it to accept the files "
            "beside it as they are"
        ) from error
