"""Locks that the kernel takes back when their process ends, however it ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgti.errors import RunError
from pgti.storage.atomic import reraise_os_errors

if sys.platform != "win32":
    import fcntl

__all__ = ["directory_lock", "exclusive"]


@contextmanager
def exclusive(path: Path, refusal: str) -> Iterator[None]:
    """Hold the file at `path`, made if need be, for this process alone.

    The file stays: removing it would let two processes hold two files of one name.

    Raises:
        RunError: with `refusal`, if another process holds it; if it cannot be made.
    """
    with reraise_os_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _taken(descriptor):
            raise RunError(refusal)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def directory_lock(directory: Path) -> Iterator[bool]:
    """Wait until no other process is inside this block for the same directory.

    Yields:
        Whether that is so: not every file system can lock a directory.
    """
    if sys.platform == "win32":
        yield False
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            is_alone = False
        else:
            is_alone = True
        yield is_alone
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take the lock of a file, unless another process has it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
