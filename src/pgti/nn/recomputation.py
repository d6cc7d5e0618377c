"""Activations that are made again in the backward pass instead of being kept."""

import math
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, cast

from torch.utils.checkpoint import checkpoint

from pgti.nn.execution import compiler_disabled

__all__ = ["checkpointed", "steps_per_checkpoint"]

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

_STEP_TO_STATE = 7
"""What a gated layer holds of a time step while it is differentiated (r, u, c, h and the gradients
of r, u, c), in states: what it holds of a chunk of steps otherwise is one."""


@compiler_disabled
def checkpointed(
    part: Callable[[*Arguments], Result], *args: *Arguments, draws: bool = False
) -> Result:
    """`part(*args)`, of which only the arguments and the results are kept.

    The backward pass runs `part` once more (Chen et al., Training Deep Nets with Sublinear Memory
    Cost, arXiv 1604.06174), so `part` must do the same when it is called again. Gradients are
    those of `part`, added up in another order.

    Args:
        part: what to run; it must not change anything, running statistics included.
        args: its arguments.
        draws: whether `part` draws from torch's generator (dropout), whose state is then kept.
    """
    made = checkpoint(part, *args, use_reentrant=False, preserve_rng_state=draws)
    return cast(Result, made)


def steps_per_checkpoint(num_steps: int) -> int:
    """How many time steps of a recurrence to recompute at a time, for the least memory in all.

    Chunks of c steps keep a state for each of T / c chunks, and hold the activations of c steps
    while one of them is differentiated: c = sqrt(T / 7) makes the sum smallest.

    Args:
        num_steps: T of the whole sequence, at least 1.
    """
    return max(1, round(math.sqrt(num_steps / _STEP_TO_STATE)))
