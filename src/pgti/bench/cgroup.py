"""Control groups with a memory limit, of versions 1 and 2: made, looked at, and always removed.

Everything counts that a group's processes are charged with: their memory, and the pages of files
that they are the first to read or write.
"""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from pgti.errors import BenchError

__all__ = ["MemoryGroup"]

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_PROC = Path("/proc")
_PREFIX = "pgti-"  # of a group's name; the process that made it follows
_PATIENCE_SECONDS = 10.0  # for killed processes to leave their group
_NO_LIMIT_FROM = 2**60  # version 1 writes nearly 2**63 for "no limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Version:
    """What a version of control groups calls its files.

    Args:
        limit: file of the limit.
        swap_limit: file that keeps swap from hiding what is used, where there is one.
        swap_counts_memory: whether that file limits memory and swap together.
        usage: file of what is used now.
        peak: file of the most that was used; young kernels alone have it in version 2.
        kills: file with a line `oom_kill N`.
    """

    limit: str
    swap_limit: str
    swap_counts_memory: bool
    usage: str
    peak: str
    kills: str


_VERSION_1 = _Version(
    limit="memory.limit_in_bytes",
    swap_limit="memory.memsw.limit_in_bytes",
    swap_counts_memory=True,
    usage="memory.usage_in_bytes",
    peak="memory.max_usage_in_bytes",
    kills="memory.oom_control",
)
_VERSION_2 = _Version(
    limit="memory.max",
    swap_limit="memory.swap.max",
    swap_counts_memory=False,
    usage="memory.current",
    peak="memory.peak",
    kills="memory.events",
)


class MemoryGroup:
    """A control group with a memory limit; it exists while the `with` block runs.

    Args:
        limit_bytes: the most that its processes may take together, page cache included.
        mount: where control groups are mounted.
        membership: file that tells the groups of this process.

    Raises:
        BenchError: on entering, if no such group can be made; the message says why.
    """

    def __init__(
        self, limit_bytes: int, *, mount: Path = _MOUNT, membership: Path = _MEMBERSHIP
    ) -> None:
        self._limit_bytes = limit_bytes
        self._mount = mount
        self._membership = membership
        self._directory: Path | None = None
        self._version = _VERSION_1
        self._seen_bytes = 0

    def __enter__(self) -> Self:
        refusal = f"no memory controller of control groups is mounted below {self._mount}"
        for version, parent in _parents(self._mount, self._membership):
            _remove_left_behind(parent)
            directory = parent / f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
            try:
                directory.mkdir()
            except OSError as error:
                refusal = f"no control group can be made in {parent}: {error.strerror}"
                continue
            self._directory, self._version = directory, version
            try:
                self._set_limit(directory)
            except OSError as error:
                self._remove()
                refusal = f"the control group {parent} takes no limit: {error.strerror}"
                continue
            return self
        raise BenchError(refusal)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def directory(self) -> Path:
        """The group's own directory.

        Raises:
            BenchError: the group was not entered, or is left.
        """
        if self._directory is None:
            raise BenchError("the control group is not there: use a `with` statement")
        return self._directory

    def add(self, process: int) -> None:
        """Put a process into the group; its children will be in it too.

        Raises:
            BenchError: it cannot be moved there.
        """
        try:
            (self.directory / "cgroup.procs").write_text(str(process), encoding="ascii")
        except OSError as error:
            raise BenchError(
                f"process {process} cannot be moved into {self.directory}: {error.strerror}"
            ) from error

    def peak_bytes(self) -> int | None:
        """The most that was charged so far; where the kernel keeps no peak, of the looks taken."""
        for name in (self._version.peak, self._version.usage):
            with suppress(OSError, ValueError):
                number = int((self.directory / name).read_text(encoding="ascii"))
                self._seen_bytes = max(self._seen_bytes, number)
                return self._seen_bytes
        return self._seen_bytes or None

    def has_killed(self) -> bool:
        """Whether the limit has cost a process its life."""
        try:
            lines = (self.directory / self._version.kills).read_text(encoding="ascii").splitlines()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and int(line.split()[1]) > 0 for line in lines)

    def _set_limit(self, directory: Path) -> None:
        version = self._version
        (directory / version.limit).write_text(str(self._limit_bytes), encoding="ascii")
        swap = directory / version.swap_limit
        if swap.exists():
            most = self._limit_bytes if version.swap_counts_memory else 0
            swap.write_text(str(most), encoding="ascii")

    def _remove(self) -> None:
        """Kill what is still in the group, and remove it."""
        directory, self._directory = self._directory, None
        if directory is None:
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            for process in _communicator(directory):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            try:
                directory.rmdir()
            except OSError as error:
                if not directory.exists():
                    return
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"the control group {directory} cannot be removed: {error.strerror}"
                    ) from error
                time.sleep(0.02)
            else:
                return


def _remove_left_behind(parent: Path) -> None:
    """Remove groups whose makers were killed and in which nothing runs any more."""
    for group in parent.glob(f"{_PREFIX}*"):
        maker = group.name.removeprefix(_PREFIX).partition("-")[0]
        if not (_PROC / maker).exists() and not _communicator(group):
            with suppress(OSError):  # another process is at it
                group.rmdir()


def _parents(mount: Path, membership: Path) -> Iterator[tuple[_Version, Path]]:
    """Groups in which one with a limit may be made, the best first, with their version."""
    paths = _memory_paths(membership)
    if (mount / "memory" / _VERSION_1.limit).exists():
        top = mount / "memory"
        own = _below(top, paths.get(1, ""))
        # A limit that holds already must go on holding; without one, the top is nobody's.
        is_limited = any(_has_limit(group) for group in _upwards(own, top))
        yield _VERSION_1, own if is_limited else top
    if (mount / "cgroup.controllers").exists():
        for group in _upwards(_below(mount, paths.get(2, "")), mount):
            if "memory" in _words(group / "cgroup.subtree_control"):
                yield _VERSION_2, group


def _memory_paths(membership: Path) -> dict[int, str]:
    """This process's groups that may limit memory, by version."""
    paths: dict[int, str] = {}
    with suppress(OSError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                paths[1] = path
            elif number == "0" and not controllers:
                paths[2] = path
    return paths


def _below(top: Path, path: str) -> Path:
    """A group's directory; the top, where a container shows paths of its host."""
    inner = PurePosixPath(path.lstrip("/"))
    group = top / inner
    return top if ".." in inner.parts or not group.is_dir() else group


def _upwards(group: Path, top: Path) -> Iterator[Path]:
    """A group and those above it, the innermost first."""
    yield group
    while group != top:
        group = group.parent
        yield group


def _has_limit(group: Path) -> bool:
    try:
        return int((group / _VERSION_1.limit).read_text(encoding="ascii")) < _NO_LIMIT_FROM
    except (OSError, ValueError):
        return False


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _communicator(group: Path) -> list[int]:
    return [int(word) for word in _words(group / "cgroup.procs")]
