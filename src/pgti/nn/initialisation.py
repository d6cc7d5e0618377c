"""Initial values of parameters that are no part of a torch layer."""

import math

from torch import nn

__all__ = ["draw_as_linear"]


def draw_as_linear(fan_in: int, *parameters: nn.Parameter) -> None:
    """Draw weights and biases as torch's `Linear` and `Conv2d` do, from torch's generator.

    Args:
        fan_in: numbers that an output is made of.
        parameters: what is drawn, uniformly within 1 / sqrt(fan_in).
    """
    bound = 1 / math.sqrt(fan_in)
    for parameter in parameters:
        nn.init.uniform_(parameter, -bound, bound)
