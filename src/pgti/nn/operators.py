"""Hand-written autograd functions as operators of torch, so that the compiler traces whole models.

Eager code calls an `Operation` as the autograd function that it is. The compiler cannot look into
one that uses sparse matrices or memory of its own: for it the same two functions are a pair of
custom operators, `pgti::name` and `pgti::name_backward`, whose results' shapes are known without
computing them. A module, such as the operators of a graph, reaches them as a number, its handle.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from pgti.nn.execution import is_exporting
from pgti.nn.operator_arguments import (
    by_parameter,
    flat,
    parameters_of,
    rebuilt,
    schema_of,
)

__all__ = ["Operation", "Operator"]


class Operation(torch.autograd.Function):
    """An autograd function that can be an `Operator`.

    `forward(ctx, ...)` takes tensors and options, all annotated: numbers, types, modules with a
    `handle`, `Structure`s. It returns new tensors, saves some, and sets `ctx.options` to a tuple of
    the options. `backward(ctx, ...)` uses nothing else of the context but `needs_input_grad`.
    Neither changes its arguments, draws at random, nor can be differentiated by the compiler.
    """

    @staticmethod
    def like(*args: Any) -> tuple[Tensor, ...]:
        """Empty tensors like what `forward` returns, then like what else it has computed and saves.

        It gets the arguments of `forward`, tensors without data.
        """
        raise NotImplementedError

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        """Empty tensors like the gradients of all tensors that `forward` takes, in their order.

        It gets the context of `backward`, tensors without data.
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
        plain: gives the same results in torch's own operators, for `torch.export`; see
            `pgti.nn.plain`. Without it what uses the operator cannot be exported.
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
        plain: Callable[..., Any] | None = None,
        takes_none: bool = False,
    ) -> None:
        self._function, self._returns, self._saves = function, returns, saves
        self._plain = plain
        self._takes_none = takes_none
        self._parameters = parameters_of(function.forward)
        self._tensors = [each for each in self._parameters if each.is_tensor]
        self._options = [each for each in self._parameters if not each.is_tensor]
        types = {each.name: each.types[0] for each in self._tensors}
        last = self._parameters[-1]
        self._variadic = last.name if last.is_variadic else None
        self._computed = [each for each in saves if each not in types and each not in returns]
        arguments = ", ".join(schema_of(self._parameters))
        results = ", ".join(["Tensor"] * (len(returns) + len(self._computed)))
        self._forward_operator = torch.library.custom_op(
            f"pgti::{name}",
            self._forward,
            mutates_args=(),
            schema=f"({arguments}) -> ({results})",
        )
        arguments = ", ".join(
            [
                *(f"Tensor? grad_{each}" for each in returns),
                *(f"{types.get(each, 'Tensor')} saved_{each}" for each in saves),
                *(f"bool needs_{each.name}" for each in self._tensors),
                *schema_of(self._options),
            ]
        )
        self._backward_operator = torch.library.custom_op(
            f"pgti::{name}_backward",
            self._backward,
            mutates_args=(),
            schema=f"({arguments}) -> Tensor[]",
        )
        self._forward_operator.register_fake(self._fake_forward)
        self._backward_operator.register_fake(self._fake_backward)
        self._forward_operator.register_autograd(
            self._differentiate, setup_context=self._set_up_context
        )

    def __call__(self, *args: Any) -> Any:
        """The results of `forward`, differentiable."""
        if not torch.compiler.is_compiling():
            return self._function.apply(*args)  # type: ignore[no-untyped-call]
        if self._plain is not None and is_exporting():
            return self._plain(*args)
        if self._variadic is not None:
            fixed = len(self._parameters) - 1
            args = (*args[:fixed], list(args[fixed:]))
        parts: list[Any] = []
        for each in args:
            parts += flat(each)
        results = self._forward_operator(*parts)
        if not isinstance(results, tuple):
            return results
        return results[: len(self._returns)] if len(self._returns) > 1 else results[0]

    def _forward(self, *parts: Any) -> Any:
        args = rebuilt(self._parameters, parts)
        context = _Context([True] * len(args))
        results = _as_tuple(self._function.forward(context, *args))
        saved = dict(zip(self._saves, context.saved_tensors, strict=False))  # the last may be many
        more = [_present(saved[each], results[0]) for each in self._computed]
        return _returned((*_separate(results, more), *more))

    def _fake_forward(self, *parts: Any) -> Any:
        return _returned(self._function.like(*rebuilt(self._parameters, parts)))

    def _backward(self, *args: Any) -> list[Tensor]:
        context, grads, needs = self._context(args)
        results = self._of_tensors(self._function.backward(context, *grads))
        if any(each is None for each in results):
            expected = self._function.gradients_like(context)
            results = [
                torch.zeros_like(like) if each is None else each
                for each, like in zip(results, expected, strict=True)
            ]
        given = [each for each in (*grads, *context.saved_tensors) if each is not None]
        return self._needed(_separate(cast(list[Tensor], results), given), needs)

    def _fake_backward(self, *args: Any) -> list[Tensor]:
        context, _, needs = self._context(args)
        return self._needed(self._function.gradients_like(context), needs)

    def _set_up_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results = _as_tuple(output)
        ctx.mark_non_differentiable(*results[len(self._returns) :])
        ctx.set_materialize_grads(not self._takes_none)
        given = by_parameter(self._parameters, inputs)
        values = dict(zip((*self._returns, *self._computed), results, strict=True))
        values |= {each.name: given[each.name][0] for each in self._tensors}
        ctx.save_for_backward(*_flattened(values[each] for each in self._saves))
        ctx.options = [part for each in self._options for part in given[each.name]]

    def _differentiate(self, ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        saved: list[Any] = list(ctx.saved_tensors)
        if self._saves[-1] == self._variadic:
            fixed = len(self._saves) - 1
            saved = [*saved[:fixed], saved[fixed:]]
        given = by_parameter(self._parameters, ctx.needs_input_grad)
        needs = [_any(given[each.name][0]) for each in self._tensors]
        results = list(
            self._backward_operator(*grads[: len(self._returns)], *saved, *needs, *ctx.options)
        )
        options = iter(ctx.options)
        of_arguments: list[Any] = []
        for each in self._parameters:
            if each.is_tensor:
                gradient = results if each.is_variadic else results.pop(0)
                of_arguments.append(gradient if needs.pop(0) else None)
            else:
                of_arguments += [_no_gradient(next(options)) for _ in each.types]
        return tuple(of_arguments)

    def _context(
        self, args: tuple[Any, ...]
    ) -> tuple["_Context", tuple[Tensor | None, ...], tuple[bool, ...]]:
        """The context, gradients and which are needed, from the backward operator's arguments."""
        sizes = (len(self._returns), len(self._saves), len(self._tensors))
        ends = list(itertools.accumulate(sizes, initial=0))
        grads, saved, needs = (args[start:stop] for start, stop in itertools.pairwise(ends))
        by_name = {each.name: need for each, need in zip(self._tensors, needs, strict=True)}
        needed = [by_name.get(each.name, False) for each in self._parameters]
        options = tuple(rebuilt(self._options, args[ends[-1] :]))
        return _Context(needed, tuple(_flattened(saved)), options), grads, needs

    def _of_tensors(self, results: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of parameters that are tensors, of all that a variadic one stands for."""
        last = len(self._parameters) - 1
        return [
            gradient
            for position, gradient in enumerate(results)
            if self._parameters[min(position, last)].is_tensor
        ]

    def _needed(self, gradients: Iterable[Tensor], needs: Sequence[bool]) -> list[Tensor]:
        """Those that are needed, others empty."""
        last = len(needs) - 1
        return [
            each if needs[min(position, last)] else each.new_empty(0)
            for position, each in enumerate(gradients)
        ]


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


def _flattened(values: Iterable[Any]) -> list[Any]:
    """With the items of lists in place of the lists."""
    return [
        item for each in values for item in (each if isinstance(each, list | tuple) else [each])
    ]


def _any(needed: Any) -> bool:
    return any(needed) if isinstance(needed, list | tuple) else bool(needed)


def _no_gradient(option: Any) -> Any:
    """The gradient of an option: a list of None for one of tensors."""
    is_list = isinstance(option, list) and all(isinstance(each, Tensor) for each in option)
    return [None] * len(option) if is_list else None


def _present(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Operators return tensors: nothing is one without numbers."""
    return like.new_empty(0) if tensor is None else tensor


def _separate(tensors: Iterable[Tensor], given: Iterable[Tensor]) -> list[Tensor]:
    """What operators return shares no memory, neither with what they were given: a copy else."""
    used = {each.untyped_storage().data_ptr() for each in given}
    separate = []
    for each in tensors:
        is_shared = each.untyped_storage().data_ptr() in used and each.numel() > 0
        separate.append(each.clone(memory_format=torch.contiguous_format) if is_shared else each)
        used.add(separate[-1].untyped_storage().data_ptr())
    return separate


def _as_tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _returned(tensors: tuple[Tensor, ...]) -> Any:
    """One tensor or a tuple of several."""
    return tensors[0] if len(tensors) == 1 else tensors
