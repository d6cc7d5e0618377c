"""Temporary memory of layers that live as long as they do."""

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Scratch"]


class Scratch(threading.local):
    """Blocks of memory by name and dtype, of each thread its own."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, torch.dtype], Tensor] = {}

    def block(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """A tensor in the block of this name and dtype, which grows on demand.

        Args:
            name: of the block; asking again invalidates the previous tensor.
            shape: of the tensor, whose content is undefined.
            dtype: of the tensor.
            device: of all blocks.
        """
        size = math.prod(shape)
        block = self._blocks.get((name, dtype))
        if block is None or block.numel() < size:  # len(block) is Python
            # Outside inference mode, or training could not use it afterwards.
            with torch.inference_mode(mode=False):
                block = torch.empty(size, dtype=dtype, device=device)
            self._blocks[name, dtype] = block
        return block[:size].view(*shape)
