"""Where readers put rows that they cannot keep in memory: on the disk of the store."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

__all__ = ["call_after_scratch", "scratch_beside", "scratch_directory"]

_DIRECTORY: ContextVar[Path | None] = ContextVar("scratch_directory", default=None)
_AFTER: ContextVar[contextlib.ExitStack | None] = ContextVar("after_scratch", default=None)


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[None]:
    """Put temporary files into the directory that `target` is in, which has room for the store.

    The system's directory for them may be a disk in memory.
    """
    with contextlib.ExitStack() as after:
        tokens = _DIRECTORY.set(target.absolute().parent), _AFTER.set(after)
        try:
            yield
        finally:
            _DIRECTORY.reset(tokens[0])
            _AFTER.reset(tokens[1])


def call_after_scratch(remove: Callable[[], object]) -> None:
    """Call `remove` when the innermost block of `scratch_beside` ends, if there is one."""
    after = _AFTER.get()
    if after is not None:
        after.callback(remove)


def scratch_directory() -> Path:
    """An existing directory for temporary files: beside the target, else the system's."""
    return _DIRECTORY.get() or Path(tempfile.gettempdir())
