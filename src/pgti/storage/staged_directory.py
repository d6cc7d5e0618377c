"""A directory that is written under a temporary name and renamed when it is complete."""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from pgti.storage.atomic import exchange, sync_directory, sync_file
from pgti.storage.locks import file_lock

__all__ = ["StagedDirectory", "recover_displaced"]


class StagedDirectory:
    """A temporary directory beside its target, which exists while the `with` block runs.

    Entering creates it, with the parents that the target lacks, and removes what writers of the
    same target left when they were killed: each writer holds the lock of a file beside its
    directory, and a lock ends with its process. Leaving removes what was not published.

    Args:
        target: the name it gets in the end.
        check_target: raises if something that must stay has that name; called at once and again
            before the directory gets its name.
        overwrite: replace what has the name, if `check_target` lets it pass.

    Attributes:
        path: the temporary directory.

    Raises:
        OSError: on entering, if it cannot be created; nothing is left then.
    """

    def __init__(
        self, target: Path, *, check_target: Callable[[Path], None], overwrite: bool = False
    ) -> None:
        self._target = target.absolute()
        self._check_target = check_target
        self._overwrite = overwrite
        recover_displaced(self._target)
        check_target(self._target)
        token = uuid.uuid4().hex
        self.path = self._target.with_name(f".{self._target.name}.tmp-{token}")
        self._displaced = self._target.with_name(f".{self._target.name}.old-{token}")
        self._new_parents: list[Path] = []
        self._lock, self._spare = ExitStack(), ExitStack()

    def __enter__(self) -> Self:
        # Where files run out, there is one with which to remove what was written.
        self._spare.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        try:
            for parent in reversed(self._target.parents):
                if not parent.exists():
                    with suppress(FileExistsError):  # created by another process meanwhile
                        parent.mkdir()
                        self._new_parents.insert(0, parent)
            self._remove_dead_siblings()
            self._lock.enter_context(file_lock(_lock_file(self.path), on_busy=lambda: None))
            self.path.mkdir()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._discard()

    def publish(self) -> None:
        """Flush the complete directory to the disk and give it its name.

        Raises:
            OSError: if it cannot be renamed; what had the name before has it again.
            PgtiError: from `check_target`, if what has the name now must stay.
        """
        for part in self.path.rglob("*"):
            if part.is_dir():
                sync_directory(part)
            else:
                sync_file(part)
        sync_directory(self.path)
        self._check_target(self._target)
        if self._overwrite and os.path.lexists(self._target):
            self._replace()
        else:
            try:
                self.path.rename(self._target)
            except BaseException:
                self._check_target(self._target)  # it may have appeared since
                raise
        new_parents, self._new_parents = self._new_parents, []
        for parent in (self._target, *new_parents):  # each is an entry of the one above
            sync_directory(parent.parent)
        _remove(self._displaced)

    def _replace(self) -> None:
        """Give the directory the name of another one: at once, where the system can."""
        if exchange(self.path, self._target):
            return  # what was there has the temporary name
        self._target.rename(self._displaced)
        try:
            self.path.rename(self._target)
        except BaseException:
            self._displaced.rename(self._target)
            raise

    def _discard(self) -> None:
        self._spare.close()
        _remove(self.path)
        self._lock.close()
        for parent in self._new_parents:
            with suppress(OSError):  # others have put something there
                parent.rmdir()

    def _remove_dead_siblings(self) -> None:
        """Remove temporary directories of this target whose writers are dead."""
        for sibling, kind in _siblings(self._target):
            if kind == "tmp" and sibling.suffix == _LOCK_SUFFIX:
                _remove_if_dead(sibling)
            elif kind == "old" and os.path.lexists(self._target):
                _remove(sibling)  # displaced, and its successor has the name


def recover_displaced(target: Path) -> bool:
    """Give a directory its name back that a killed writer displaced and did not replace.

    Returns:
        Whether there was one.
    """
    target = target.absolute()
    for sibling, kind in _siblings(target):
        if kind != "old" or os.path.lexists(target):
            continue
        staged = sibling.with_name(sibling.name.replace(".old-", ".tmp-"))
        with suppress(OSError), file_lock(_lock_file(staged), on_busy=_spare) as is_held:
            if is_held:
                sibling.rename(target)
                _remove(staged)
                return True
    return False


def _siblings(target: Path) -> Iterator[tuple[Path, str]]:
    """Temporary directories of a target and their locks, each with its kind: tmp or old."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(tmp|old)-[0-9a-f]{{32}}")
    try:
        siblings = list(target.parent.iterdir())
    except OSError:  # none is there, or it may be written and not listed
        return
    for sibling in siblings:
        match = pattern.fullmatch(sibling.name.removesuffix(_LOCK_SUFFIX))
        if match is not None:
            yield sibling, match[1]


_LOCK_SUFFIX = ".lock"


def _lock_file(directory: Path) -> Path:
    return directory.with_name(directory.name + _LOCK_SUFFIX)


def _remove_if_dead(lock_file: Path) -> None:
    """Remove the temporary directory of a lock that no process holds."""
    with suppress(BlockingIOError), file_lock(lock_file, on_busy=_spare) as is_held:
        if is_held:
            _remove(lock_file.with_suffix(""))


def _spare() -> None:
    raise BlockingIOError


def _remove(path: Path) -> None:
    """Remove a directory or a link, as far as possible, with one open file at a time."""
    if os.path.islink(path):  # noqa: PTH114 - pathlib raises on a name that is too long
        with suppress(OSError):
            path.unlink()
        return
    for directory, folders, files in os.walk(path, topdown=False):
        for part in (Path(directory, name) for name in (*files, *folders)):
            with suppress(OSError):
                part.rmdir() if part.is_dir() and not part.is_symlink() else part.unlink()
    with suppress(OSError):
        path.rmdir()
