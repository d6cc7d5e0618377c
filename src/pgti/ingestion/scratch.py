"""Where readers put rows that they cannot keep in memory: on the disk of the store."""

import contextlib
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

__all__ = ["scratch_beside", "scratch_directory"]

_DIRECTORY: ContextVar[Path | None] = ContextVar("scratch_directory", default=None)


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[None]:
    """Put temporary files into the directory that `target` is in, which has room for the store.

    The system's directory for them may be a disk in memory.
    """
    token = _DIRECTORY.set(target.absolute().parent)
    try:
        yield
    finally:
        _DIRECTORY.reset(token)


def scratch_directory() -> Path:
    """An existing directory for temporary files: beside the target, else the system's."""
    return _DIRECTORY.get() or Path(tempfile.gettempdir())
