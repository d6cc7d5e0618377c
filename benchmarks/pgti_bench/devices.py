"""The device that is measured: the CPU or a GPU."""

from typing import Literal, get_args

import torch

from pgti.errors import ConfigError
from pgti_bench.worker_loop import peak_resident_bytes

__all__ = ["Device", "check_device", "peak_memory_bytes", "synchronize"]

Device = Literal["cpu", "cuda"]


def check_device(name: str) -> None:
    """Refuse a device that is unknown or not available.

    Raises:
        ConfigError: naming it and the rule.
    """
    if name not in get_args(Device):
        raise ConfigError(f"device is {name!r}: it is one of {', '.join(get_args(Device))}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda' and this machine has no usable GPU: use cpu")


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Peak memory so far: of this process, or on a GPU of its tensors there.

    None where the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()
