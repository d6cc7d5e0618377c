"""Hand-written autograd functions as operators of torch, so that the compiler traces whole models.

Eager code calls an `Operation` as the autograd function that it is. The compiler cannot look into
one that uses sparse matrices or memory of its own: for it the same two functions are a pair of
custom operators, `pgti::name` and `pgti::name_backward`, whose results' shapes are known without
computing them. A module, such as the operators of a graph, reaches them as a number, its handle.
"""

import inspect
import itertools
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

__all__ = ["Operation", "Operator", "new_handle", "object_of"]

_TENSORS = {Tensor: "Tensor", Tensor | None: "Tensor?"}
_OPTIONS = {
    bool: "bool",
    int: "SymInt",
    float: "float",
    torch.dtype: "ScalarType",
    torch.dtype | None: "ScalarType?",
}
_MODULE = "int"
_numbers = itertools.count(1)
_owners: WeakValueDictionary[int, object] = WeakValueDictionary()


def new_handle(owner: object) -> int:
    """A number for an object that operators use, never used again; a copy needs its own."""
    handle = next(_numbers)
    _owners[handle] = owner
    return handle


def object_of(handle: int) -> Any:
    """The object with this handle.

    Raises:
        RuntimeError: it has been deleted.
    """
    owner = _owners.get(handle)
    if owner is None:
        raise RuntimeError(
            "a compiled network uses the operators of a graph that were deleted: hold its Supports "
            "until the backward pass is done"
        )
    return owner


class Operation(torch.autograd.Function):
    """An autograd function that can be an `Operator`.

    `forward(ctx, ...)` takes tensors, numbers, types and modules with a `handle`, all annotated. It
    returns new tensors, saves some, and sets `ctx.options` to a tuple of all arguments that are not
    tensors. `backward(ctx, ...)` uses nothing else of the context but `needs_input_grad`. Neither
    changes its arguments, draws at random, nor can be differentiated by the compiler.
    """

    @staticmethod
    def like(*args: Any) -> tuple[Tensor, ...]:
        """Empty tensors like what `forward` returns, then like what else it has computed and saves.

        It gets the arguments of `forward`, but handles in place of modules.
        """
        raise NotImplementedError

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        """Empty tensors like the gradients of all tensors that `forward` takes, in their order.

        It gets the context of `backward`, but handles in place of modules.
        """
        raise NotImplementedError


class Operator:
    """The function that an `Operation` computes; the compiler sees it as `pgti::name`.

    Args:
        function: the operation.
        name: of the operator.
        returns: names of the tensors that its `forward` returns.
        saves: names of those that it saves for the backward pass, in order: its parameters, what it
            returns, and others that it has computed, which may be None where nothing is saved.
        takes_none: its `backward` takes None for the gradient of a result that had no effect; by
            default it gets zeros.
    """

    def __init__(
        self,
        function: type[Operation],
        name: str,
        *,
        returns: Sequence[str],
        saves: Sequence[str],
        takes_none: bool = False,
    ) -> None:
        self._function, self._returns, self._saves = function, returns, saves
        self._takes_none = takes_none
        kinds = _parameters(function.forward)
        self._parameters = list(kinds)
        self._computed = [each for each in saves if each not in kinds and each not in returns]
        self._tensors = [name for name, kind in kinds.items() if kind in _TENSORS.values()]
        self._options = [name for name in kinds if name not in self._tensors]
        self._modules = [name for name, kind in kinds.items() if kind == _MODULE]
        self._forward_operator = torch.library.custom_op(
            f"pgti::{name}",
            self._forward,
            mutates_args=(),
            schema=f"({', '.join(f'{kind} {each}' for each, kind in kinds.items())}) -> "
            + _result_type(len(returns) + len(self._computed)),
        )
        arguments = [
            *(f"Tensor? grad_{each}" for each in returns),
            *(f"Tensor? saved_{each}" for each in saves),
            *(f"bool needs_{each}" for each in self._tensors),
            *(f"{kinds[each]} {each}" for each in self._options),
        ]
        self._backward_operator = torch.library.custom_op(
            f"pgti::{name}_backward",
            self._backward,
            mutates_args=(),
            schema=f"({', '.join(arguments)}) -> {_result_type(len(self._tensors))}",
        )
        self._forward_operator.register_fake(lambda *args: _returned(function.like(*args)))
        self._backward_operator.register_fake(self._fake_backward)
        self._forward_operator.register_autograd(
            self._differentiate, setup_context=self._set_up_context
        )

    def __call__(self, *args: Any) -> Any:
        """The results of `forward`, differentiable."""
        if not torch.compiler.is_compiling():
            return self._function.apply(*args)  # type: ignore[no-untyped-call]
        handles = [each.handle if isinstance(each, nn.Module) else each for each in args]
        results = self._forward_operator(*handles)
        return _returned(_as_tuple(results)[: len(self._returns)])

    def _forward(self, *args: Any) -> Any:
        context = _Context([True] * len(args))
        results = _as_tuple(self._function.forward(context, *self._resolve(self._parameters, args)))
        saved = dict(zip(self._saves, context.saved_tensors, strict=True))
        more = [_present(saved[each], results[0]) for each in self._computed]
        return _returned((*results, *more))

    def _backward(self, *args: Any) -> Any:
        context, grads = self._context(args)
        context.options = self._resolve(self._options, context.options)
        gradients = dict(
            zip(self._parameters, self._function.backward(context, *grads), strict=True)
        )
        given = [each for each in (*grads, *context.saved_tensors) if each is not None]
        return _returned(
            tuple(_new(_present(gradients[each], given[0]), given) for each in self._tensors)
        )

    def _fake_backward(self, *args: Any) -> Any:
        context, _ = self._context(args)
        needs = dict(zip(self._parameters, context.needs_input_grad, strict=True))
        gradients = zip(self._tensors, self._function.gradients_like(context), strict=True)
        return _returned(
            tuple(each if needs[name] else each.new_empty(0) for name, each in gradients)
        )

    def _set_up_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results = _as_tuple(output)
        ctx.mark_non_differentiable(*results[len(self._returns) :])
        ctx.set_materialize_grads(not self._takes_none)
        names = (*self._parameters, *self._returns, *self._computed)
        values = dict(zip(names, (*inputs, *results), strict=True))
        ctx.save_for_backward(*(values[each] for each in self._saves))
        ctx.options = tuple(values[each] for each in self._options)

    def _differentiate(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        needs = dict(zip(self._parameters, ctx.needs_input_grad, strict=True))
        results = self._backward_operator(
            *grads[: len(self._returns)],
            *ctx.saved_tensors,
            *(bool(needs[each]) for each in self._tensors),
            *ctx.options,
        )
        gradients = dict(zip(self._tensors, _as_tuple(results), strict=True))
        return tuple(gradients[each] if needs[each] else None for each in self._parameters)

    def _context(self, args: tuple[Any, ...]) -> tuple["_Context", tuple[Tensor | None, ...]]:
        """The context and the gradients, from the arguments of the backward operator."""
        sizes = (len(self._returns), len(self._saves), len(self._tensors))
        ends = list(itertools.accumulate(sizes, initial=0))
        grads, saved, needs = (args[start:stop] for start, stop in itertools.pairwise(ends))
        by_name = dict(zip(self._tensors, needs, strict=True))
        needed = [by_name.get(each, False) for each in self._parameters]
        return _Context(needed, saved, args[ends[-1] :]), grads

    def _resolve(self, names: Sequence[str], args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments with modules in place of handles."""
        pairs = zip(names, args, strict=True)
        return tuple(object_of(each) if name in self._modules else each for name, each in pairs)


class _Context:
    """What an `Operation` gets as its context from an `Operator`."""

    def __init__(
        self,
        needs_input_grad: Sequence[bool],
        saved_tensors: tuple[Tensor | None, ...] = (),
        options: tuple[Any, ...] = (),
    ) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors = saved_tensors
        self.options = options

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """`Operator` does it."""


def _parameters(forward: Callable[..., Any]) -> dict[str, str]:
    """The types of all parameters but the context, as a schema has them."""
    hints = typing.get_type_hints(forward)
    names = list(inspect.signature(forward).parameters)[1:]
    return {name: _TENSORS.get(hints[name]) or _OPTIONS.get(hints[name], _MODULE) for name in names}


def _present(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Operators return tensors: nothing is one without numbers."""
    return like.new_empty(0) if tensor is None else tensor


def _new(tensor: Tensor, given: Iterable[Tensor]) -> Tensor:
    """Operators return new tensors: a copy of one that was given."""
    return tensor.clone() if any(tensor is each for each in given) else tensor


def _as_tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _returned(tensors: tuple[Tensor, ...]) -> Any:
    """One tensor or a tuple of several."""
    return tensors[0] if len(tensors) == 1 else tensors


def _result_type(number: int) -> str:
    return "Tensor" if number == 1 else f"({', '.join(['Tensor'] * number)})"
