"""One process at a time in a folder of downloads."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["folder_lock"]


@contextmanager
def folder_lock(folder: Path, when_busy: Callable[[], None]) -> Iterator[bool]:
    """Wait until no other process is inside this block for the same folder.

    The kernel takes the lock back when the process ends, however it ends.

    Args:
        folder: an existing folder.
        when_busy: called once if another process is inside, before waiting for it.

    Yields:
        Whether that is so: not every system or file system can lock a folder.
    """
    if sys.platform == "win32":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _taken(descriptor, when_busy)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, when_busy: Callable[[], None]) -> bool:
    if sys.platform == "win32":
        return False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_busy()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
