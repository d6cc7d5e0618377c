"""Where is measured: on the processor or on a GPU."""

from typing import Literal, get_args

import torch

from pgti.bench.serving import peak_resident_bytes
from pgti.errors import ConfigError

__all__ = ["Device", "check_device", "most_memory", "synchronise"]

Device = Literal["cpu", "cuda"]


def check_device(name: str) -> None:
    """Refuse a device that is not known, or not here.

    Raises:
        ConfigError: naming it and the rule.
    """
    if name not in get_args(Device):
        raise ConfigError(f"device is {name!r}: it is one of {', '.join(get_args(Device))}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda' and this machine has no usable GPU: use cpu")


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def most_memory(device: torch.device) -> int | None:
    """The most bytes so far: of this process, or on a GPU of its tensors there.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()
