"""Writing files so that a process killed at any moment leaves the old one or the new one."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgti.errors import RunError

__all__ = [
    "PARTIAL_SUFFIX",
    "partial_path",
    "remove_partial_files",
    "reraise_os_errors",
    "sync_directory",
    "write_atomically",
]

PARTIAL_SUFFIX = ".partial"


def partial_path(path: Path) -> Path:
    """A temporary name, in the same directory, that no other process writes to."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")


@contextmanager
def reraise_os_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one line that names the file.

    Raises:
        RunError: with the path and the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to the disk and give it its name.

    Raises:
        RunError: if it cannot be written; the temporary file is then removed.
    """
    partial = partial_path(path)
    with reraise_os_errors(path):
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable, where the system can open directories."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(directory: Path) -> None:
    """Remove what a killed process left under temporary names."""
    for partial in directory.glob(f".*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)
