"""Where readers put rows that they cannot keep in memory: on the disk of the store."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from pgti.errors import StoreError
from pgti.storage import StagedDirectory, reraise_os_errors

__all__ = ["call_after_scratch", "scratch_beside", "scratch_directory"]


class _Scratch:
    """A directory beside a target, which is created when it is needed."""

    def __init__(self, target: Path) -> None:
        self._target = target.absolute()
        self._path: Path | None = None
        self.stack = contextlib.ExitStack()

    def directory(self) -> Path:
        """The directory; what killed processes left of those of this target is removed."""
        if self._path is None:
            name = self._target.with_name(f"{self._target.name}.scratch")
            with reraise_os_errors(f"{name.parent} cannot hold temporary files", StoreError):
                staged = StagedDirectory(name, check_target=lambda _: None)
                self._path = self.stack.enter_context(staged).path
        return self._path


_CURRENT: ContextVar[_Scratch | None] = ContextVar("scratch", default=None)


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[None]:
    """Put temporary files into a directory beside `target`, where there is room for the store.

    The system's directory for them may be a disk in memory.
    """
    scratch = _Scratch(target)
    with scratch.stack:
        token = _CURRENT.set(scratch)
        try:
            yield
        finally:
            _CURRENT.reset(token)


def call_after_scratch(remove: Callable[[], object]) -> None:
    """Call `remove` when the innermost block of `scratch_beside` ends, if there is one."""
    scratch = _CURRENT.get()
    if scratch is not None:
        scratch.stack.callback(remove)


def scratch_directory() -> Path:
    """An existing directory for temporary files: beside the target, else the system's."""
    scratch = _CURRENT.get()
    return Path(tempfile.gettempdir()) if scratch is None else scratch.directory()
