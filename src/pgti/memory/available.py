"""How much memory may still be taken: on the machine, in the control group, on a GPU."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from pgti.errors import ConfigError

__all__ = ["available_bytes", "parse_bytes"]

_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:i?B)?", re.IGNORECASE)
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**62  # more than any request; version 1 writes nearly 2**63 for "no limit"
_NO_LIMIT_FROM = 2**60


def parse_bytes(name: str, text: str | int) -> int:
    """A number of bytes from 2147483648, 2GiB or 1.5G; the units are powers of 1024.

    Raises:
        ConfigError: naming the option, if it is no such number or less than one byte.

    >>> parse_bytes("memory_budget", "1.5GiB")
    1610612736
    """
    match = _BYTES.fullmatch(str(text).strip())
    exponent = 0 if match is None or not match[2] else 1 + "KMGT".index(match[2].upper())
    num_bytes = 0 if match is None else int(float(match[1]) * 1024**exponent)
    if num_bytes < 1:
        raise ConfigError(f"{name} is {text!r}: it must be a number of bytes, such as 2GiB")
    return num_bytes


def available_bytes(device: torch.device | None = None) -> int:
    """Bytes that can be taken before the device, the system or the control group runs out.

    Args:
        device: a GPU whose own memory is meant; the host's otherwise.

    Returns:
        The bytes; where nothing tells (not Linux), a number that no request exceeds.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_machine_bytes(), _cgroup_bytes())


def _machine_bytes() -> int:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return _UNLIMITED
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _UNLIMITED


@dataclass(frozen=True, kw_only=True, slots=True)
class _Version:
    """What a version of control groups calls its files.

    Args:
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


_VERSION_1 = _Version(
    mount="memory",
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    cached=("total_inactive_file", "total_active_file"),
    unwritten=("total_dirty", "total_writeback"),
)
_VERSION_2 = _Version(
    mount="",
    limit="memory.max",
    usage="memory.current",
    cached=("inactive_file", "active_file"),
    unwritten=("file_dirty", "file_writeback"),
)


def _cgroup_bytes() -> int:
    """What the tightest of the process's control groups leaves, of either version."""
    try:
        lines = _CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return _UNLIMITED
    free = _UNLIMITED
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            free = min(free, _path_free_bytes(_VERSION_1, path))
        elif number == "0" and not controllers:
            free = min(free, _path_free_bytes(_VERSION_2, path))
    return free


def _path_free_bytes(version: _Version, path: str) -> int:
    """What a group and those above it leave."""
    mount = _CGROUP_MOUNT / version.mount
    inner = PurePosixPath(path.lstrip("/"))
    if ".." in inner.parts or not (mount / inner).is_dir():
        # In a container the path is often that of the host, and the mount is the group itself.
        inner = PurePosixPath()
    return min(_group_free_bytes(version, mount / group) for group in (inner, *inner.parents))


def _group_free_bytes(version: _Version, directory: Path) -> int:
    try:
        text = (directory / version.limit).read_text(encoding="ascii").strip()
        limit = _UNLIMITED if text == "max" else int(text)
        used = int((directory / version.usage).read_text(encoding="ascii"))
        stat = (directory / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return _UNLIMITED
    if limit >= _NO_LIMIT_FROM:
        return _UNLIMITED
    entries = dict(line.split(maxsplit=1) for line in stat)
    cached, unwritten = (
        sum(int(entries.get(name, 0)) for name in names)
        for names in (version.cached, version.unwritten)
    )
    # Clean file pages, also those that a process has mapped and uses, are given back on demand:
    # the pages of a series do not stand in the way of what trains on it.
    return max(0, limit - used + max(0, cached - unwritten))
