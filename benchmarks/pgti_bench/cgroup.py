"""Control groups with a memory limit, of versions 1 and 2: created, read, and always removed.

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
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from pgti.memory.cgroup import CGROUP_V1, CGROUP_V2, CgroupVersion, memory_cgroups
from pgti_bench.errors import BenchError

__all__ = ["MemoryGroup"]

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_PREFIX = "pgti-"  # of a group's name, followed by the id of the process that created it
_PATIENCE_SECONDS = 10.0  # for killed processes to leave their group


@dataclass(frozen=True, kw_only=True, slots=True)
class _LimitFiles:
    """The files of a version that a group with a limit needs beside those of `CgroupVersion`.

    Attributes:
        swap_limit: file that keeps swap from hiding memory, where there is one.
        swap_counts_memory: whether that file limits memory and swap together.
        peak: file of the peak usage; only recent kernels have it in version 2.
        kills: file with a line `oom_kill N`.
    """

    swap_limit: str
    swap_counts_memory: bool
    peak: str
    kills: str


_FILES = {
    CGROUP_V1: _LimitFiles(
        swap_limit="memory.memsw.limit_in_bytes",
        swap_counts_memory=True,
        peak="memory.max_usage_in_bytes",
        kills="memory.oom_control",
    ),
    CGROUP_V2: _LimitFiles(
        swap_limit="memory.swap.max",
        swap_counts_memory=False,
        peak="memory.peak",
        kills="memory.events",
    ),
}


class MemoryGroup:
    """A control group with a memory limit, which exists for the duration of the `with` block.

    Args:
        limit_bytes: memory that its processes may use together, page cache included.
        mount: where control groups are mounted.
        membership: file that names the groups of this process.

    Raises:
        BenchError: on entering, if no such group can be created; the message says why.
    """

    def __init__(
        self, limit_bytes: int, *, mount: Path = _MOUNT, membership: Path = _MEMBERSHIP
    ) -> None:
        self._limit_bytes = limit_bytes
        self._mount = mount
        self._membership = membership
        self._directory: Path | None = None
        self._version = CGROUP_V1
        self._peak_bytes = 0

    def __enter__(self) -> Self:
        refusal = f"no memory controller of control groups is mounted below {self._mount}"
        for version, parent in _parents(self._mount, self._membership):
            _remove_abandoned(parent)
            directory = parent / f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
            try:
                directory.mkdir()
            except OSError as error:
                refusal = f"no control group can be created in {parent}: {error.strerror}"
                continue
            self._directory, self._version = directory, version
            try:
                self._set_limit(directory)
            except OSError as error:
                self._remove()
                refusal = f"the control group {parent} accepts no limit: {error.strerror}"
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
        """The group's directory.

        Raises:
            BenchError: the `with` block has not begun, or has ended.
        """
        if self._directory is None:
            raise BenchError("the control group does not exist: use a `with` statement")
        return self._directory

    def add(self, process: int) -> None:
        """Move a process into the group; its children will be in it too.

        Raises:
            BenchError: it cannot be moved.
        """
        try:
            (self.directory / "cgroup.procs").write_text(str(process), encoding="ascii")
        except OSError as error:
            raise BenchError(
                f"process {process} cannot be moved into {self.directory}: {error.strerror}"
            ) from error

    def peak_bytes(self) -> int | None:
        """Peak usage so far; if the kernel records none, the largest usage that was ever read."""
        for name in (_FILES[self._version].peak, self._version.usage):
            with suppress(OSError, ValueError):
                usage = int((self.directory / name).read_text(encoding="ascii"))
                self._peak_bytes = max(self._peak_bytes, usage)
                return self._peak_bytes
        return self._peak_bytes or None

    def has_killed(self) -> bool:
        """Whether the limit has killed a process."""
        try:
            kills = (self.directory / _FILES[self._version].kills).read_text(encoding="ascii")
        except OSError:
            return False
        lines = kills.splitlines()
        return any(line.startswith("oom_kill ") and int(line.split()[1]) > 0 for line in lines)

    def _set_limit(self, directory: Path) -> None:
        files = _FILES[self._version]
        (directory / self._version.limit).write_text(str(self._limit_bytes), encoding="ascii")
        swap = directory / files.swap_limit
        if swap.exists():
            limit = self._limit_bytes if files.swap_counts_memory else 0
            swap.write_text(str(limit), encoding="ascii")

    def _remove(self) -> None:
        """Kill what is still in the group, and remove it."""
        directory, self._directory = self._directory, None
        if directory is None:
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            for process in _processes(directory):
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


def _remove_abandoned(parent: Path) -> None:
    """Remove empty groups of processes that no longer exist."""
    for group in parent.glob(f"{_PREFIX}*"):
        creator = group.name.removeprefix(_PREFIX).partition("-")[0]
        if creator.isdigit() and not psutil.pid_exists(int(creator)) and not _processes(group):
            with suppress(OSError):  # another process is removing it
                group.rmdir()


def _parents(mount: Path, membership: Path) -> Iterator[tuple[CgroupVersion, Path]]:
    """Groups in which one with a limit can be created, the best first, with their version."""
    own = dict(memory_cgroups(membership=membership, mount=mount))
    top = mount / CGROUP_V1.mount
    if (top / CGROUP_V1.limit).exists():
        groups = own.get(CGROUP_V1, (top,))
        # An existing limit must stay in force; without one, the top is free to use.
        is_limited = any(CGROUP_V1.read_limit(group) is not None for group in groups)
        yield CGROUP_V1, groups[0] if is_limited else top
    if (mount / "cgroup.controllers").exists():
        for group in own.get(CGROUP_V2, (mount,)):
            if "memory" in _words(group / "cgroup.subtree_control"):
                yield CGROUP_V2, group


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _processes(group: Path) -> list[int]:
    return [int(word) for word in _words(group / "cgroup.procs")]
