"""How much memory may still be taken: on the machine, in the control group, on a GPU."""

from pathlib import Path

import torch

__all__ = ["available_bytes"]

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")


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
        return 2**62
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**62


def _cgroup_bytes() -> int:
    """The tightest limit of the process's control groups (version 2), less what is in use."""
    try:
        paths = [
            line.split("::", 1)[1] for line in _CGROUP.read_text().splitlines() if "::" in line
        ]
    except OSError:
        return 2**62
    free = 2**62
    for path in paths:
        group = _CGROUP_ROOT / path.strip("/")
        for directory in (group, *group.parents):
            if not directory.is_relative_to(_CGROUP_ROOT):
                break
            free = min(free, _group_free_bytes(directory))
    return free


def _group_free_bytes(directory: Path) -> int:
    try:
        limit = (directory / "memory.max").read_text().strip()
        used = int((directory / "memory.current").read_text())
        stat = (directory / "memory.stat").read_text().split()
    except (OSError, ValueError):
        return 2**62
    if limit == "max":
        return 2**62
    # Clean file pages are given back on demand: they do not stand in the way.
    reclaimable = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
    return max(0, int(limit) - used + reclaimable)
