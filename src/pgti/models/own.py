"""A network of the user's own: a class or function `module:Class`, with its parameters as options.

It is called as `Class(shape, **options)`: `shape` is a `ModelShape`, and every further parameter is
an option of the model, with its annotation or default as type.

Importing a module runs it, and calling anything that a file names would run anything. So a name
counts only where it names a class derived from `torch.nn.Module`, or a function, whose first
parameter is `shape`; and modules are looked for where Python looks for them, nowhere else.
"""

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, make_dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from torch import nn

from pgti.errors import ConfigError, PgtiError
from pgti.memory import is_allocation_failure
from pgti.models.base import ModelConfig, ModelShape

__all__ = [
    "CUSTOM_MODEL",
    "ModelFactory",
    "OwnModel",
    "explain_failures",
    "find_own_model",
    "name_of_own_model",
    "own_config",
    "source_of_own_model",
]

CUSTOM_MODEL = "custom"
"""Name, in a configuration, of a network whose class or function no module holds."""

ModelFactory = Callable[..., nn.Module]
"""Builds your own network from the sizes of the data, a `ModelShape`, and its options."""

_PLAIN_TYPES = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class OwnModel:
    """Builds a user's network as the registered models are built.

    Attributes:
        factory: class or function.
        name: of it, for messages.
        uses_time_of_day: True, and
        uses_day_of_week: False: its calendar is that of most models.
        can_checkpoint_activations: False: only its author could say so.
    """

    factory: ModelFactory
    name: str
    uses_time_of_day: bool = True
    uses_day_of_week: bool = False
    can_checkpoint_activations: bool = False

    @property
    def support_kind(self) -> str:
        """The operators of the graph that the class names; by default both random walks."""
        return str(getattr(self.factory, "support_kind", "dual_random_walk"))

    def __call__(self, config: ModelConfig, shape: ModelShape) -> nn.Module:
        """The network.

        Raises:
            ConfigError: if the factory raises an error, or returns anything but a module.
        """
        options = {each.name: getattr(config, each.name) for each in fields(config)}
        with explain_failures(f"{self.name} cannot be built"):
            network = self.factory(shape, **options)
        if not isinstance(network, nn.Module):
            raise ConfigError(
                f"{self.name}, given as the model, returned a {type(network).__name__}: it must "
                "return a torch.nn.Module"
            )
        return network


def own_config(factory: ModelFactory) -> type[ModelConfig]:
    """The class of a network's options: the parameters of its factory after the first.

    A parameter without a default is required. One whose default is not a plain value, such as a
    module, always has it, and is not an option.
    """
    known, hints = _parameters(factory)[1:], _hints(factory)
    declared = []
    for each in known:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) or each.name == "name":
            continue
        hint = _hint(hints.get(each.name), each.default)
        if each.default is each.empty:
            declared.append((each.name, hint, field()))
        elif isinstance(each.default, list):
            copied = list(each.default)
            declared.append((each.name, hint, field(default_factory=copied.copy)))
        elif _is_plain(each.default):
            declared.append((each.name, hint, field(default=each.default)))
    options = make_dataclass(
        "Options", declared, bases=(ModelConfig,), frozen=True, kw_only=True, slots=True
    )
    return cast(type[ModelConfig], options)


def find_own_model(name: str) -> ModelFactory:
    """Import the class or function that `module:Class` names.

    Raises:
        ConfigError: if there is no such module or name in it, importing it fails, or it is anything
            but a class derived from `torch.nn.Module` or a function, whose first parameter is
            `shape`.
    """
    module_name, _, path = name.partition(":")
    plain = module_name.removesuffix(".py").strip("./").replace("/", ".")
    are_names = all(each.isidentifier() for each in (*plain.split("."), *path.split(".")))
    if plain != module_name or not are_names:
        meant = f"{plain}:{path}" if are_names else "my_models:Network"
        raise ConfigError(f"model {name!r} is not MODULE:CLASS, such as {meant}")
    found: Any = _import(name, module_name)
    for part in path.split("."):
        owner, found = found, getattr(found, part, None)
        if found is None:
            close = difflib.get_close_matches(part, vars(owner), n=1)
            raise ConfigError(
                f"model {name!r}: {owner.__name__} has no {part!r}"
                + (f"; did you mean {close[0]!r}?" if close else "")
            )
    if not _is_network_or_function(found):
        raise ConfigError(
            f"model {name!r} is {repr(found)[:60]}: it must be a class derived from "
            "torch.nn.Module, or a function that returns one"
        )
    if not _takes_shape(found):
        raise ConfigError(
            f"model {name!r} takes ({', '.join(each.name for each in _parameters(found))}): its "
            "first parameter must be `shape`, the sizes of the data (pgti.ModelShape); the others "
            "are options"
        )
    factory: ModelFactory = found
    return factory


def name_of_own_model(factory: ModelFactory) -> str:
    """The `module:Class` that finds this very class or function again, else `CUSTOM_MODEL`."""
    module, path = (getattr(factory, name, None) for name in ("__module__", "__qualname__"))
    if not module or not path or module == "__main__":
        return CUSTOM_MODEL
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    is_found = found is factory and _is_network_or_function(found) and _takes_shape(found)
    return f"{module}:{path}" if is_found else CUSTOM_MODEL


def source_of_own_model(name: str) -> Path | None:
    """The file of the module that a name names, which is not imported; None if none is found."""
    path: Sequence[str] | None = [str(Path.cwd()), *sys.path]
    origin = None
    for part in name.partition(":")[0].split("."):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return None
        origin, path = spec.origin, spec.submodule_search_locations
    return None if origin is None else Path(origin)


@contextmanager
def explain_failures(what: str) -> Iterator[None]:
    """Turn an error of the user's own code into one line that says where it was raised.

    Raises:
        ConfigError: `what`, the error and its place.
    """
    try:
        yield
    except PgtiError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and is_allocation_failure(error):
            raise
        lines = str(error).splitlines()
        text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise ConfigError(f"{what}: {text}{_place(error)}") from error


# -- finding it -----------------------------------------------------------------------------------


def _import(name: str, module_name: str) -> Any:
    try:
        with explain_failures(f"model {name!r}: {module_name} cannot be imported"):
            return importlib.import_module(module_name)
    except ConfigError as error:
        cause = error.__cause__
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if missing is None or not f"{module_name}.".startswith(f"{missing}."):
            raise
    raise ConfigError(
        f"model {name!r}: Python finds no module {module_name}. On the command line --model {name} "
        "looks in the current directory, too; otherwise add the module's directory to PYTHONPATH"
    )


def _is_network_or_function(found: object) -> bool:
    if inspect.isclass(found):
        return issubclass(found, nn.Module)
    return inspect.isfunction(found)


def _takes_shape(factory: ModelFactory) -> bool:
    parameters = _parameters(factory)
    return bool(parameters) and parameters[0].name == "shape"


def _place(error: Exception) -> str:
    """File and line of an error: the last of the user's own code, as far as that can be seen."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    ours = tuple(vars(sys.modules[each])["__path__"][0] for each in ("pgti", "torch"))
    frames = [
        each
        for each in traceback.extract_tb(error.__traceback__)
        if not each.filename.startswith((*ours, "<frozen"))
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


# -- its parameters -------------------------------------------------------------------------------


def _parameters(factory: ModelFactory) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # compiled code has none
        return []


def _hints(factory: ModelFactory) -> Mapping[str, Any]:
    """Annotations of the parameters; none where one of them cannot be evaluated."""
    function = factory.__init__ if inspect.isclass(factory) else factory
    try:
        return get_type_hints(function)
    except Exception:  # noqa: BLE001 - annotations may be any expression
        return {}


def _hint(annotation: Any, default: Any) -> Any:
    """The type of an option; Any where neither annotation nor default says it.

    A whole number as a default stands for any number, as in `dropout=0`.
    """
    if annotation is not None:
        return annotation if _is_checked(annotation) else Any
    if isinstance(default, tuple | list) and default:
        members = {type(each) for each in default}
        (member,) = members if len(members) == 1 else (Any,)
        if member in _PLAIN_TYPES:
            return tuple[member, ...] if isinstance(default, tuple) else list[member]  # type: ignore[valid-type]
    return type(default) if type(default) in (bool, float, str) else Any


def _is_checked(annotation: Any) -> bool:
    """Whether `pgti.options` can check values against an annotation."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return all(isinstance(each, str) for each in members)
    if origin in (Union, UnionType):
        others = [each for each in members if each is not NoneType]
        return len(others) == 1 and _is_checked(others[0])
    if origin in (tuple, list):
        return all(each is Ellipsis or each in _PLAIN_TYPES for each in members)
    return annotation in _PLAIN_TYPES


def _is_plain(value: object) -> bool:
    """Whether a configuration file can hold a value."""
    if isinstance(value, tuple | list):
        return all(_is_plain(each) and each is not None for each in value)
    return value is None or isinstance(value, _PLAIN_TYPES)
