"""Linux control groups with a memory controller, of versions 1 and 2: their files and limits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["CGROUP_V1", "CGROUP_V2", "CgroupVersion", "cgroup_available_bytes", "memory_cgroups"]

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # version 1 writes nearly 2**63 for "no limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class CgroupVersion:
    """The files of a version of control groups.

    Attributes:
        mount: where its memory controller is mounted, below the mount of control groups.
        limit: file of the limit.
        usage: file of what the group and all groups below it use.
        cached: entries of `memory.stat` with the bytes of file pages, those below included.
        unwritten: entries with the bytes of those that must be written before they can go.
    """

    mount: str
    limit: str
    usage: str
    cached: tuple[str, ...]
    unwritten: tuple[str, ...]

    def read_limit(self, group: Path) -> int | None:
        """The group's limit in bytes; None where it has none or it cannot be read."""
        try:
            limit = int((group / self.limit).read_text(encoding="ascii"))
        except (OSError, ValueError):  # version 2 writes "max" for "no limit"
            return None
        return limit if limit < _UNLIMITED else None


CGROUP_V1 = CgroupVersion(
    mount="memory",
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    cached=("total_inactive_file", "total_active_file"),
    unwritten=("total_dirty", "total_writeback"),
)
CGROUP_V2 = CgroupVersion(
    mount="",
    limit="memory.max",
    usage="memory.current",
    cached=("inactive_file", "active_file"),
    unwritten=("file_dirty", "file_writeback"),
)


def memory_cgroups(
    *, membership: Path | None = None, mount: Path | None = None
) -> Iterator[tuple[CgroupVersion, tuple[Path, ...]]]:
    """This process's group of each version, with the groups above it.

    Args:
        membership: file that names the groups of this process; the system's own if not given.
        mount: where control groups are mounted; the usual place if not given.

    Yields:
        A version, and directories of its groups, the innermost first.
    """
    mount = _MOUNT if mount is None else mount
    try:
        lines = (membership or _MEMBERSHIP).read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield CGROUP_V1, _with_parents(mount / CGROUP_V1.mount, path)
        elif number == "0" and not controllers:
            yield CGROUP_V2, _with_parents(mount / CGROUP_V2.mount, path)


def _with_parents(top: Path, path: str) -> tuple[Path, ...]:
    inner = PurePosixPath(path.lstrip("/"))
    if ".." in inner.parts or not (top / inner).is_dir():
        # In a container the path is often that of the host, and the mount is the group itself.
        inner = PurePosixPath()
    return tuple(top / group for group in (inner, *inner.parents))


def cgroup_available_bytes() -> int | None:
    """Bytes that the tightest of this process's groups leaves; None without a limit."""
    available = [
        _group_available_bytes(version, group)
        for version, groups in memory_cgroups()
        for group in groups
    ]
    return min((each for each in available if each is not None), default=None)


def _group_available_bytes(version: CgroupVersion, group: Path) -> int | None:
    limit = version.read_limit(group)
    if limit is None:
        return None
    try:
        used = int((group / version.usage).read_text(encoding="ascii"))
        stat = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        entries = dict(line.split(maxsplit=1) for line in stat)
        cached, unwritten = (
            sum(int(entries.get(name, 0)) for name in names)
            for names in (version.cached, version.unwritten)
        )
    except (OSError, ValueError):
        return None
    # The kernel takes clean file pages back on demand, also those that a process has mapped: the
    # pages of a series do not stand in the way of what trains on it.
    return max(0, limit - used + max(0, cached - unwritten))
