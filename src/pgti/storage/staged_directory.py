"""A directory that is written under a temporary name and gets its own when it is complete."""

import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pgti.errors import StoreError

# Locks on directories, and renames made durable, are POSIX. Elsewhere there are none, and what a
# killed writer leaves stays.
if sys.platform != "win32":
    import fcntl

__all__ = ["StagedDirectory"]


class StagedDirectory:
    """The temporary directory beside its target, with the parents that had to be made for it.

    While it is written, an advisory lock is held on it. A process that is killed cannot remove its
    directory, but its lock goes with it: that is how the next writer knows what to remove.

    Args:
        target: the name it gets in the end; must not exist unless `overwrite`.
        overwrite: replace what has that name, if `is_replaceable` says so.
        is_replaceable: whether a path is a store; nothing else is ever replaced.

    Raises:
        StoreError: if something of that name is there that must not be replaced.
    """

    def __init__(
        self, target: Path, *, overwrite: bool, is_replaceable: Callable[[Path], bool]
    ) -> None:
        self._target = target.absolute()
        self._overwrite = overwrite
        self._is_replaceable = is_replaceable
        self._check_target()
        token = uuid.uuid4().hex
        self.path = self._target.with_name(f".{self._target.name}.tmp-{token}")
        self._displaced = self._target.with_name(f".{self._target.name}.old-{token}")
        self._made_parents: list[Path] = []
        self._lock: int | None = None

    def make(self) -> None:
        """Make the directory, after removing what writers of the same target left when they died.

        Raises:
            OSError: if it cannot be made; nothing is left then.
        """
        try:
            for parent in reversed(self._target.parents):
                if not parent.exists():
                    with suppress(FileExistsError):  # made by another process meanwhile
                        parent.mkdir()
                        self._made_parents.insert(0, parent)
            self._remove_dead_siblings()
            self.path.mkdir()
            self._lock = _locked(self.path)
        except BaseException:
            self.discard()
            raise

    def publish(self) -> None:
        """Give the complete directory its name, durably; a store of that name gives way.

        Raises:
            OSError: if it cannot be renamed; the former store is then where it was.
            StoreError: if what has the name now must not be replaced.
        """
        for part in self.path.iterdir():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        self._check_target()
        is_displaced = os.path.lexists(self._target)
        if is_displaced:
            self._target.rename(self._displaced)
        try:
            self.path.rename(self._target)
        except BaseException:
            if is_displaced:
                self._displaced.rename(self._target)
            raise
        self._made_parents.clear()
        _sync_directory(self._target.parent)
        if is_displaced:
            _remove(self._displaced)

    def discard(self) -> None:
        """Remove what has not been published, and end the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self._made_parents:
            with suppress(OSError):  # others have put something there
                parent.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check_target(self) -> None:
        if not os.path.lexists(self._target):
            return
        if not self._overwrite:
            raise StoreError(f"{self._target} exists already: choose another name or remove it")
        if not self._is_replaceable(self._target):
            raise StoreError(
                f"{self._target} is no store: choose another name, only a store is overwritten"
            )

    def _remove_dead_siblings(self) -> None:
        """Remove temporary directories of this target whose writer lives no more."""
        pattern = re.compile(rf"\.{re.escape(self._target.name)}\.(tmp|old)-[0-9a-f]{{32}}")
        try:
            siblings = list(self._target.parent.iterdir())
        except PermissionError:  # a directory that may be written and not listed
            return
        for sibling in siblings:
            match = pattern.fullmatch(sibling.name)
            if match is None:
                continue
            if match[1] == "tmp":
                _remove_if_dead(sibling)
            elif os.path.lexists(self._target):
                _remove(sibling)  # a former store, and its successor has the name


def _locked(directory: Path) -> int | None:
    """A descriptor of the directory that holds its lock; without one where there are none."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    with suppress(OSError):  # such a file system: its directories never pass for a dead writer's
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _remove_if_dead(directory: Path) -> None:
    if sys.platform == "win32":
        return
    with suppress(OSError):  # gone meanwhile, locked by a living writer, or no directory of ours
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A writer takes its lock before it writes anything: an empty one may be about to.
            if any(directory.iterdir()):
                shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)


def _remove(store: Path) -> None:
    if store.is_symlink():
        store.unlink(missing_ok=True)
    else:
        shutil.rmtree(store, ignore_errors=True)


def _sync_directory(directory: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
