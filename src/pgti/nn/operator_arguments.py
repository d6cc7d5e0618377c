"""Arguments of operators: as a schema has them, and from it."""

import inspect
import itertools
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

__all__ = [
    "Parameter",
    "Structure",
    "by_parameter",
    "flat",
    "new_handle",
    "object_of",
    "parameters_of",
    "rebuilt",
    "schema_of",
]

_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    bool: "bool",
    int: "SymInt",
    float: "float",
    torch.dtype: "ScalarType",
    torch.dtype | None: "ScalarType?",
    tuple[bool, ...]: "bool[]",
}
_numbers = itertools.count(1)
_owners: WeakValueDictionary[int, object] = WeakValueDictionary()


def new_handle(owner: object) -> int:
    """A number for an object that operators use, never used again; a copy needs its own."""
    handle = next(_numbers)
    _owners[handle] = owner
    return handle


def object_of(handle: int | None) -> Any:
    """The object with this handle; None for None.

    Raises:
        RuntimeError: it has been deleted.
    """
    if handle is None:
        return None
    owner = _owners.get(handle)
    if owner is None:
        raise RuntimeError(
            "a compiled network uses the operators of a graph that were deleted: hold its Supports "
            "until the backward pass is done"
        )
    return owner


class Structure(Protocol):
    """An argument of operators that has several tensors or numbers.

    Attributes:
        part_types: of its parts, as a schema has them.
    """

    part_types: ClassVar[tuple[str, ...]]

    def parts(self) -> tuple[object, ...]:
        """What it is made of."""
        ...

    @classmethod
    def from_parts(cls, *parts: Any) -> Self:
        """The same again."""
        ...


class Parameter(NamedTuple):
    """A parameter of `forward`.

    Attributes:
        name: of the parameter.
        types: of what it is made of, as a schema has them.
        rebuild: makes it from that.
        is_variadic: whether it stands for any number of tensors.
    """

    name: str
    types: tuple[str, ...]
    rebuild: Callable[..., Any]
    is_variadic: bool = False

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor, which may have a gradient."""
        return self.types[0].startswith("Tensor") and len(self.types) == 1


def parameters_of(forward: Callable[..., Any]) -> list[Parameter]:
    """All parameters but the context."""
    hints = typing.get_type_hints(forward)
    parameters = []
    for name, each in list(inspect.signature(forward).parameters.items())[1:]:
        hint = hints[name]
        if each.kind is each.VAR_POSITIONAL:
            parameters.append(Parameter(name, ("Tensor[]",), _same, is_variadic=True))
        elif hint in _TYPES:
            parameters.append(Parameter(name, (_TYPES[hint],), _same))
        elif hasattr(hint, "part_types"):
            parameters.append(Parameter(name, hint.part_types, hint.from_parts))
        else:
            parameters.append(Parameter(name, ("int?",), object_of))
    return parameters


def schema_of(parameters: Iterable[Parameter]) -> list[str]:
    """The arguments of a schema."""
    return [
        f"{kind} {each.name}_{position}"
        for each in parameters
        for position, kind in enumerate(each.types)
    ]


def flat(argument: Any) -> tuple[Any, ...]:
    """What an argument is made of."""
    if isinstance(argument, nn.Module):
        return (argument.handle,)
    if hasattr(type(argument), "part_types"):
        return cast(Structure, argument).parts()
    return (argument,)


def by_parameter(parameters: Sequence[Parameter], flat: Sequence[Any]) -> dict[str, list[Any]]:
    """What belongs to each parameter, by its name."""
    rest = iter(flat)
    return {each.name: [next(rest) for _ in each.types] for each in parameters}


def rebuilt(parameters: Sequence[Parameter], flat: Sequence[Any]) -> list[Any]:
    """The arguments that were made flat; a variadic one as many."""
    args: list[Any] = []
    for each, parts in zip(parameters, by_parameter(parameters, flat).values(), strict=True):
        args += parts[0] if each.is_variadic else [each.rebuild(*parts)]
    return args


def _same(argument: Any) -> Any:
    return argument
