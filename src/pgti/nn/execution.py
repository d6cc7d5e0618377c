"""Where `torch.compile` has to step aside."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

__all__ = ["compiler_disabled"]

P = ParamSpec("P")
R = TypeVar("R")


def compiler_disabled(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, run as it is in the middle of a compiled model.

    For code around sparse tensors, which the compiler cannot trace, and code that is already
    fused by hand. `torch.compiler.disable` alone would do, but it imports the compiler, about a
    second, for everyone who imports this package.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            uncompiled: Callable[P, R] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
            return uncompiled(*args, **kwargs)
        return function(*args, **kwargs)

    return call
