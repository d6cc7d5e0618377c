"""Whether lower precision is worth its name on this machine."""

import time

import torch

__all__ = ["bfloat16_speed"]

_SIZE = 512  # of the square matrices: large enough to keep every core busy
_TRIALS = 3


def bfloat16_speed() -> float:
    """How many times faster the CPU multiplies matrices in bfloat16 than in float32; measured.

    Processors with AVX-512 BF16 or AMX reach 2 and more; others imitate it, at a tenth or less.
    """
    seconds = {dtype: _product_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _product_seconds(dtype: torch.dtype) -> float:
    """The shortest of a few products, after one that is not counted."""
    matrix = torch.full((_SIZE, _SIZE), 0.5, dtype=dtype)
    seconds = []
    for _ in range(1 + _TRIALS):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
