"""Atomic file writes: a process killed at any moment leaves the old file or the new one."""

import ctypes
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from pgti.errors import PgtiError, RunError

__all__ = [
    "exchange",
    "remove_partial_files",
    "replace_atomically",
    "reraise_os_errors",
    "sync_directory",
    "sync_file",
    "write_atomically",
]

_PARTIAL_SUFFIX = ".partial"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@contextmanager
def reraise_os_errors(problem: str, error_type: type[PgtiError] = RunError) -> Iterator[None]:
    """Turn an `OSError` of the block into one line: `problem`, then the system's reason.

    Raises:
        PgtiError: of the type `error_type`.
    """
    try:
        yield
    except OSError as error:
        raise error_type(f"{problem}: {error.strerror or error}") from error


@contextmanager
def replace_atomically(path: Path, error_type: type[PgtiError] = RunError) -> Iterator[Path]:
    """Yield a temporary name in the same directory; the file gets its own when the block succeeds.

    Raises:
        PgtiError: of the type `error_type`, if it cannot be written; the temporary file is then
            removed.
    """
    with reraise_os_errors(f"{path} cannot be written", error_type):
        _remove_dead_partials(path)
        with _new_partial(path) as partial:
            try:
                yield partial
                sync_file(partial)
                partial.replace(path)
            finally:
                with suppress(OSError):  # the reason of the failure is what the user has to know
                    partial.unlink(missing_ok=True)
        sync_directory(path.parent)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it.

    Raises:
        RunError: if it cannot be written; the temporary file is then removed.
    """
    with replace_atomically(path) as partial:
        partial.write_bytes(content)


def remove_partial_files(directory: Path) -> None:
    """Remove the temporary files that killed writers left in a directory."""
    for partial in directory.glob(f".*{_PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


@contextmanager
def _new_partial(path: Path) -> Iterator[Path]:
    """Create a temporary file beside `path`, and lock it: it is its writer's until the block ends.

    Who finds it without a lock removes it, also between these two steps.
    """
    while True:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL_SUFFIX}")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _lock(descriptor)
            if os.fstat(descriptor).st_nlink:
                yield partial
                return
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _remove_dead_partials(path: Path) -> None:
    """Remove temporary files of `path` whose writers were killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}{re.escape(_PARTIAL_SUFFIX)}")
    with suppress(OSError):  # a directory that may be written and not listed
        for partial in path.parent.iterdir():
            if not pattern.fullmatch(partial.name):
                continue
            with suppress(OSError):  # another process writes it, or nobody can know
                descriptor = os.open(partial, os.O_RDWR)
                try:
                    if _lock(descriptor):
                        partial.unlink()
                finally:
                    os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; False where files cannot be locked.

    Raises:
        BlockingIOError: if another process has locked it.
    """
    try:
        import fcntl  # noqa: PLC0415 - POSIX has it

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return False
    return True


def sync_file(path: Path) -> None:
    """Flush a file to the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable, where the system can open directories."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two directories at once; False where the system cannot."""
    renameat2 = _renameat2()
    return renameat2 is not None and not renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE
    )


@cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None).renameat2  # where glibc has it
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return None
