"""Where autocast has to step aside, and sums that are more precise than their terms."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["add_product", "without_autocast"]


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products on `device` keep the precision of their operands.

    For the last product of a model, of which bfloat16 would round off 3 digits. `torch.autocast`
    itself refuses devices that have no autocast, such as `meta`.
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def add_product(into_IK: Tensor, left_IJ: Tensor, right_JK: Tensor) -> None:
    """Add left @ right to a sum, whose precision may be higher than theirs."""
    if into_IK.dtype == left_IJ.dtype:
        into_IK.addmm_(left_IJ, right_JK)
    else:
        into_IK.add_(left_IJ @ right_JK)
