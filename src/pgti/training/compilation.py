"""A network compiled with torch.compile: once for batches of all sizes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError, option
from pgti.models import AbstractModel, TeacherForcing
from pgti.training.config import CompileMode

__all__ = ["compile_network", "compiler_errors"]


def compile_network(
    network: nn.Module,
    mode: CompileMode = "default",
    *,
    backend: str | Callable[..., Any] = "inductor",
    fullgraph: bool = False,
) -> None:
    """Compile the calls of a network, in place; generated code comes with its first batches.

    The number of windows is a variable of that code from the start, so that the last batch of an
    epoch does not compile it again, and a resumed run uses the same code.

    Args:
        network: on its device.
        mode: of `torch.compile`.
        backend: of `torch.compile`, which generates the code.
        fullgraph: whether code that is not compiled is an error.

    Raises:
        ConfigError: there is nothing on this machine that compiles its code. Calls raise it too,
            where the compiler fails.
    """
    parameter = next(network.parameters(), None)
    if backend == "inductor" and parameter is not None:
        _check_tools(parameter.device.type)
    if isinstance(network, AbstractModel):
        network.limits = network.limits  # of the device, which the compiler cannot ask for
    import torch._dynamo

    torch._dynamo.config.allow_rnn = True
    network.compile(mode=mode, backend=backend, fullgraph=fullgraph)
    compiled: Any = network._compiled_call_impl

    def call(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        _mark_batches(x, *args, *kwargs.values())
        with compiler_errors():
            return compiled(x, *args, **kwargs)

    network._compiled_call_impl = call


def _mark_batches(*arguments: Any) -> None:
    """Say that the first axis of these tensors, and of those of a teacher, has any length."""
    for each in arguments:
        if isinstance(each, TeacherForcing):
            _mark_batches(each.targets_BHNC, each.calendar_BHF)
        elif isinstance(each, Tensor) and each.ndim > 2:  # not edges
            torch._dynamo.maybe_mark_dynamic(each, 0)


def _check_tools(device: str) -> None:
    """Raise ConfigError unless code for the device can be built."""
    if device == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise ConfigError(
                f"{option('compile', value=True)} needs a C++ compiler on CPUs, and there is none: "
                "install g++, or name one in the environment variable CXX"
            ) from None
    elif device == "cuda" and find_spec("triton") is None:
        raise ConfigError(
            f"{option('compile', value=True)} needs Triton on GPUs, which is not installed: "
            "install triton, or train without it"
        )


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turn an error of the compiler, which has many lines, into one.

    The backward pass of batches of all sizes may be compiled as it begins, after the forward pass.

    Raises:
        ConfigError: in its place.
    """
    try:
        yield
    except Exception as error:
        compiler = sys.modules.get("torch._dynamo.exc")  # to import it takes a second
        if compiler is None or not isinstance(error, compiler.TorchDynamoException):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"torch.compile failed on this network: {' '.join(lines[:2])}; train without "
            f"{option('compile', value=True)}, or set TORCHDYNAMO_VERBOSE=1 for the details"
        ) from error
