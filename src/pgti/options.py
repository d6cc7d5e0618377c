"""Configuration classes: frozen dataclasses whose values are checked against their field types.

A configuration calls `convert_fields(self)` in `__post_init__`, so that Python, TOML files and the
command line pass through the same checks. A field with several variants is a union of dataclasses,
each with a `kind`: an instance, the name of a kind and a mapping all stand for a variant.
"""

import contextlib
import difflib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields, is_dataclass
from datetime import date, time
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from pgti.display import count_of
from pgti.errors import ConfigError, check_magnitude, option

__all__ = [
    "check_names",
    "check_options",
    "convert_fields",
    "parse_config",
    "parse_text",
    "parse_value",
    "require_number",
    "require_path",
    "require_type",
    "variants",
]

Config = TypeVar("Config")

_LARGEST = 1e30  # float32 holds it, and its products with what an optimizer divides by
_TYPE_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def convert_fields(config: object) -> None:
    """Replace each field of a configuration by a value of the type that the field declares.

    A whole number becomes a float, a list a tuple, and a mapping or the name of a kind the
    dataclass that it describes.

    Raises:
        ConfigError: if a value has another type; the message begins with the field's name.
    """
    values = {each.name: getattr(config, each.name) for each in _fields(config)}
    for name, value in _convert_values(type(config), values).items():
        object.__setattr__(config, name, value)


def parse_config(
    config: type[Config], options: Mapping[str, Any], name: str = "", *, owner: str = ""
) -> Config:
    """Build a configuration from plain values by name; the others have their defaults.

    Args:
        config: class of the configuration.
        options: its options.
        name: name of the table that holds the options, for messages: "training".
        owner: what the options belong to, for messages: the name of a model.

    Raises:
        ConfigError: if an option is unknown (with the nearest name), or its value cannot be used.
    """
    prefix = f"{name}." if name else ""
    check_options(options, config, prefix, owner)
    try:
        return config(**_convert_values(config, options))
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def check_options(options: Iterable[str], config: type, prefix: str = "", owner: str = "") -> None:
    """Refuse names that are no options of a configuration class.

    Raises:
        ConfigError: naming the option, after `prefix`, and the nearest known one or, for an option
            of a variant, where it belongs.
    """
    known = {each.name for each in _fields(config)}
    options = tuple(options)
    renamed = getattr(config, "renamed", {})
    for name in options:
        if name in known:
            continue
        if name in renamed:
            raise ConfigError(f"{prefix}{name} is {prefix}{renamed[name]} now: use that name")
        for field, hint in get_type_hints(config).items():
            for kind, variant in variants(hint).items():
                if name in {each.name for each in _fields(variant)}:
                    table = f"{{'kind': {kind!r}, {name!r}: ...}}"
                    raise ConfigError(f"{prefix}{name} belongs to {field}: pass {field}={table}")
    check_names(options, known, prefix, owner)


def check_names(
    options: Iterable[str], known: Iterable[str], prefix: str = "", owner: str = ""
) -> None:
    """Refuse unknown options.

    Raises:
        ConfigError: naming the option, after `prefix`, and the nearest known one.
    """
    known = set(known)
    of = f" of {owner}" if owner else ""
    for name in options:
        if name not in known:
            raise ConfigError(f"{prefix}{name} is not an option{of}{_suggestion(name, known)}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    names = sorted(known)
    name = str(name)
    if not names:
        return ", which has none"
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose one of {', '.join(names)}"


def require_type(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Refuse an argument of another type.

    Raises:
        ConfigError: naming the argument, its value and `what` it must be.
    """
    if not isinstance(value, kinds):
        raise ConfigError(f"{name} is {_shorten(value)}: it must be {what}")


def require_path(name: str, value: object) -> Path:
    """The absolute path that an argument names.

    Raises:
        ConfigError: if it is neither text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} is {_shorten(value)}: it must be a path")
    return Path(value).absolute()


def variants(hint: Any) -> dict[str, type]:
    """The variants of a field's type by kind; empty where the type is not a union of them."""
    if get_origin(hint) not in (Union, UnionType):
        return {}
    members = [member for member in get_args(hint) if is_dataclass(member)]
    return {
        str(field.default): member
        for member in members
        if isinstance(member, type)
        for field in _fields(member)
        if field.name == "kind"
    }


def parse_text(text: str, hint: Any) -> Any:
    """The value that text stands for where a value of type `hint` belongs.

    A list is separated by commas. Text that cannot be converted stays text, which the check of the
    option refuses.
    """
    if get_origin(hint) in (tuple, list):
        parts = [part.strip() for part in text.split(",")]
        members = _member_hints(hint, len(parts))
        return [parse_text(part, members[min(i, len(members) - 1)]) for i, part in enumerate(parts)]
    is_text = hint is str or get_origin(hint) is Literal or str in get_args(hint)
    return text if is_text else parse_value(text)


def parse_value(text: str) -> bool | int | float | str:
    """A truth value, a number or text, as text stands for it on the command line."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def require_number(name: str, value: float, *, above_zero: bool = False) -> None:
    """Refuse a number that is not finite, is negative, exceeds float32 or, with `above_zero`, is 0.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        rule = "above 0" if above_zero else "of 0 or more"
        raise ConfigError(f"{name} is {value!r}: it must be a finite number {rule}")
    if value > _LARGEST:
        raise ConfigError(f"{name} is {value!r}: it must be at most {_LARGEST:g}")


def _fields(config: Any) -> tuple[Field[Any], ...]:
    return fields(config)


def _convert_values(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields of a configuration class, each of its declared type."""
    hints = get_type_hints(config)
    defaults = {each.name: each.default for each in _fields(config)}
    return {
        name: _convert(name, value, hints[name], defaults[name]) for name, value in values.items()
    }


def _convert(name: str, value: Any, hint: Any, default: Any = None) -> Any:
    if kinds := variants(hint):
        return _convert_variant(name, value, kinds, getattr(default, "kind", ""))
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        if set(get_args(hint)) == {float, str}:
            return _convert_number_or_text(name, value)
        (hint,) = (member for member in get_args(hint) if member is not NoneType)
    if (kind := get_origin(hint)) in (tuple, list):
        return kind(_convert_list(name, value, hint))
    if get_origin(hint) is dict or is_dataclass(hint):
        return _convert_table(name, value, hint)
    return _convert_value(name, value, hint)


def _convert_value(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if hint is str and isinstance(value, date | time):  # as TOML reads them without quotes
        value = value.isoformat()
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise ConfigError(
            f"{name} is {_shorten(value)}: it must be one of {', '.join(get_args(hint))}"
        )
    if hint is Path and isinstance(value, str):
        return Path(value)
    is_bool = isinstance(value, bool)
    if isinstance(value, int):
        check_magnitude(name, value)
    if hint is float and isinstance(value, int) and not is_bool:
        return float(value)
    if hint in _TYPE_NAMES and (not isinstance(value, hint) or (is_bool and hint is not bool)):
        raise ConfigError(f"{name} is {_shorten(value)}: it must be {_TYPE_NAMES[hint]}")
    return value


def _convert_number_or_text(name: str, value: Any) -> float | str:
    """A number where the value is one or reads as one, else its text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(_convert_value(name, value, float))


def _convert_list(name: str, value: Any, hint: Any) -> list[Any]:
    if (
        isinstance(value, str | int | float)
        and _member_hints(hint, 2) == _member_hints(hint, 1) * 2
    ):
        value = [value]  # a list of any length
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name} is {_shorten(value)}: it must be a list")
    members = _member_hints(hint, len(value))
    if len(value) != len(members):
        raise ConfigError(
            f"{name} is {list(value)}: it must have {count_of(len(members), 'value')}"
        )
    if members[:1] == (str,) and len(set(members)) == 1 and set(map(type, value)) == {str}:
        return list(value)  # at once: a store has ten thousand ids
    pairs = zip(value, members, strict=True)
    return [_convert(f"{name}[{i}]", *pair) for i, pair in enumerate(pairs)]


def _member_hints(hint: Any, length: int) -> tuple[Any, ...]:
    """Types of the members of a `tuple` or `list` of this length."""
    members = get_args(hint)
    if get_origin(hint) is list or members[-1] is Ellipsis:
        return (members[0],) * length
    return members


def _convert_table(name: str, value: Any, hint: Any) -> Any:
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {_shorten(value)}: it must be options by name, in a mapping")
    if get_origin(hint) is dict:
        _, member = get_args(hint)
        return {key: _convert(f"{name}.{key}", each, member) for key, each in value.items()}
    return parse_config(hint, value, name)


def _convert_variant(name: str, value: Any, kinds: Mapping[str, type], default: str) -> Any:
    if isinstance(value, tuple(kinds.values())):
        return value
    options = dict(value) if isinstance(value, Mapping) else {"kind": value}
    kind = options.get("kind", default)
    if not isinstance(kind, str) or kind not in kinds:
        label = f"{name}.kind" if isinstance(value, Mapping) else name
        named = ", ".join(each for each in kinds if each != "custom")  # no name stands for that
        raise ConfigError(f"{label} is {_shorten(kind)}: it must be one of {named}")
    names = {each: [field.name for field in _fields(kinds[each])] for each in kinds}
    check_names(options, (each for known in names.values() for each in known), f"{name}.")
    for given in options:
        takers = [each for each, known in names.items() if given in known]
        if kind not in takers:
            raise ConfigError(
                f"{name}.{given} goes with kind {' or '.join(takers)}, and {name} is {kind}, "
                f"which takes {_own_options(names[kind])}: {_remedy(name, takers)}"
            )
    return parse_config(kinds[kind], options, name)


def _own_options(names: Iterable[str]) -> str:
    return ", ".join(each for each in names if each != "kind") or "no options"


def _remedy(name: str, takers: Iterable[str]) -> str:
    """What to do about an option of another kind; no name stands for "custom"."""
    kind = next((each for each in takers if each != "custom"), None)
    if kind is None:
        return "leave it out"
    return f"leave it out, or use {option(name.removeprefix('training.'), kind)}"


def _shorten(value: object) -> str:
    """A value in one line, and not more than fits into a message."""
    with contextlib.suppress(ValueError, RecursionError):  # thousands of digits, or of levels
        value = repr(value)
    text = " ".join(value.split()) if isinstance(value, str) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
