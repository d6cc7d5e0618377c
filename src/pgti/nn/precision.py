"""Where autocast has to step aside."""

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["without_autocast"]


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products on `device` keep the precision of their operands.

    For the last product of a model, of which bfloat16 would round off 3 digits. `torch.autocast`
    itself refuses devices that have no autocast, such as `meta`.
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
