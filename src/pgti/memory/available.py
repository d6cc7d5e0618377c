"""How much memory can still be allocated: on the machine, in the control group, on a GPU."""

import re
from typing import TYPE_CHECKING

import psutil

from pgti.errors import ConfigError
from pgti.memory.cgroup import cgroup_available_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["GPU_FRACTION", "available_bytes", "device_peak_bytes", "parse_bytes"]

GPU_FRACTION = 0.9
"""The fraction of a GPU's free memory that an estimate may come to: libraries need some for
themselves, and torch's pieces do not always fit."""

_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:i?B)?", re.IGNORECASE)


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


def available_bytes(device: "torch.device | None" = None) -> int:
    """Bytes that can be allocated before the device, the system or the control group runs out.

    Args:
        device: a GPU, for its own memory; any other device or None for the host's.
    """
    if device is not None and device.type == "cuda":
        import torch  # noqa: PLC0415 - options are read without it

        # What torch has reserved and given to no tensor is as good as free.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    available: int = psutil.virtual_memory().available
    in_group = cgroup_available_bytes()
    return available if in_group is None else min(available, in_group)


def device_peak_bytes(device: "torch.device", *, reset: bool = False) -> int | None:
    """The most bytes of tensors that were on a GPU at once; None on any other device.

    Args:
        device: where this process computes.
        reset: begin to measure anew.
    """
    if device.type != "cuda":
        return None
    import torch  # noqa: PLC0415 - options are read without it

    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.max_memory_allocated(device)
