"""Nested plain values as TOML that a person reads and `tomllib` reads back."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import PurePath
from typing import Any

from pgti.errors import ConfigError

__all__ = ["to_toml"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def to_toml(value: object) -> str:
    """TOML text of a mapping or a dataclass.

    Values may be strings, paths, booleans, whole numbers, floats, sequences of these, and nested
    mappings or dataclasses, which become tables. None is left out, for TOML has no such thing: an
    option that may be None should have it as its default.

    Raises:
        ConfigError: if a value has another type.

    >>> print(to_toml({"epochs": 3, "model": {"name": "dcrnn"}}), end="")
    epochs = 3
    <BLANKLINE>
    [model]
    name = "dcrnn"
    """
    return "\n".join(_tables(_plain(value), ())).lstrip("\n") + "\n"


def _plain(value: object) -> Mapping[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return value
    raise ConfigError(f"{value!r} cannot be written as TOML: a table is a mapping or a dataclass")


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type))


def _tables(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Lines of a table: its own values first, for those after a sub-table would belong to that."""
    values = {key: value for key, value in table.items() if value is not None}
    own = [
        f"{_key(key)} = {_value(value)}" for key, value in values.items() if not _is_table(value)
    ]
    header = ["", f"[{'.'.join(map(_key, path))}]"] if path else []
    lines = [*header, *own] if own or not values else []
    for key, value in values.items():
        if _is_table(value):
            lines += _tables(_plain(value), (*path, key))
    return lines


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, PurePath):
        return _string(str(value))
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    raise ConfigError(f"{value!r} cannot be written as TOML: it is a {type(value).__name__}")


def _float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # repr gives the shortest text that reads back as the same number: 0.001, 1e-08, 5.0
    return repr(float(value))


def _string(text: str) -> str:
    return f'"{"".join(map(_character, text))}"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\u{ord(character):04x}"
    return character
