"""Locks between processes; the kernel releases them when their process ends, however it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["file_lock"]


@contextmanager
def file_lock(path: Path, *, on_busy: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock file at `path` inside the block; it is removed afterwards.

    Args:
        path: the lock file, created where it is missing.
        on_busy: called once if another process (or thread) holds the lock, before waiting for it;
            may raise to give up.

    Yields:
        Whether the lock is held: it is not where the file system cannot lock, or the file can
        neither be created nor opened.
    """
    # Soft locks, which filelock falls back to where flock is missing, outlive a killed process.
    lock = FileLock(path, fallback_to_soft=False)
    is_held, is_new = True, False
    try:
        # Filelock waits for a file that cannot be created as for a busy one.
        is_new = not path.exists()
        path.touch()
        lock.acquire(timeout=0)
    except Timeout:
        on_busy()
        lock.acquire()
    except OSError:
        is_held = False
    try:
        yield is_held
    finally:
        if is_held:
            # Removed while it is held: a waiter that has opened this file notices, and reopens.
            with suppress(OSError):  # Windows removes it on release
                path.unlink(missing_ok=True)
            lock.release()
        elif is_new:
            with suppress(OSError):
                path.unlink(missing_ok=True)
