"""Calls of layers' operators as the compiler makes them, without the compiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Call(NamedTuple):
    """An operator of pgti and its arguments."""

    operator: Any
    args: tuple[object, ...]


class OperatorCalls(TorchDispatchMode):
    """Runs operators one by one.

    Attributes:
        first: call of each operator of pgti, by its name.
        is_inside: whether an operator runs, which is never compiled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Call] = {}
        self.is_inside = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator."""
        if func.namespace == "pgti" and func.name() not in self.first:
            is_differentiable = not func.name().endswith("_backward")
            self.first[func.name()] = Call(func, _detached(args, is_differentiable))
        was_inside, self.is_inside = self.is_inside, True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.is_inside = was_inside


@contextmanager
def compiler_calls() -> Iterator[OperatorCalls]:
    """Layers compute here as where the compiler traces them: by operators of torch."""
    calls = OperatorCalls()
    with patch.object(torch.compiler, "is_compiling", lambda: not calls.is_inside), calls:
        yield calls


def _detached(argument: Any, is_differentiable: bool) -> Any:
    if isinstance(argument, list | tuple):
        return type(argument)(_detached(each, is_differentiable) for each in argument)
    if isinstance(argument, Tensor):
        return argument.detach().requires_grad_(is_differentiable and argument.requires_grad)
    return argument
