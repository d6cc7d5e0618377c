"""What the fields of a checkpoint may hold, whatever the network is."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from pgti.errors import RunError
from pgti.store import Scaler
from pgti.training.progress import Progress

__all__ = ["check_fields", "kind_of"]

_FINGERPRINT_LENGTH = 128
_MOST_LEVELS = 16
_LARGEST = 3.4e38
_SCALER = tuple(each.name for each in fields(Scaler))
_TABLES = ("windows", "model", "training")


def check_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a checkpoint, each of its own kind and without hidden attributes.

    Args:
        content: what a file holds, without its format.

    Raises:
        RunError: naming the first field that is missing, unknown or holds something else.
    """
    for name in _FIELDS:
        if name not in content:
            raise RunError(f"it has no {name}")
    for name in content:
        if name not in _FIELDS:
            raise RunError(f"it has a field {name!r:.80}, which no checkpoint has")
    return {name: check(name, content[name]) for name, check in _FIELDS.items()}


def _weights(name: str, value: object) -> dict[str, Tensor]:
    """Tensors by name, and the versions of modules that torch keeps beside them."""
    weights: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in _items(name, value):
        if not isinstance(tensor, Tensor):
            raise RunError(
                f"{name} has {key!r:.80}, which is {kind_of(tensor)}: it must be a tensor"
            )
        weights[key] = tensor.detach()
    versions = vars(value).get("_metadata") if isinstance(value, OrderedDict) else None
    if versions is not None:
        modules = {key: dict(_items(name, known)) for key, known in _items(name, versions)}
        for key, known in modules.items():
            if not isinstance(known.get("version"), int | None):
                raise RunError(f"{name} has a version of {key!r:.80} that is no whole number")
        weights._metadata = modules  # type: ignore[attr-defined] # as nn.Module.state_dict does
    return weights


def _weights_or_none(name: str, value: object) -> dict[str, Tensor] | None:
    return None if value is None else _weights(name, value)


def _optimizer(name: str, value: object) -> dict[str, Any]:
    """Its parts; `load_optimizer` compares them with the optimizer."""
    state = dict(_items(name, value))
    if set(state) != {"state", "param_groups"}:
        raise RunError(f"{name} has {_names(state)}: it must have state and param_groups")
    return state


def _position(name: str, value: object) -> dict[str, Any]:
    plain = dict(_items(name, value))
    Progress.from_plain(plain)
    return plain


def _scaler(name: str, value: object) -> dict[str, list[float]]:
    """Numbers of each channel, sensor or feature, as `Scaler.to_plain` writes them."""
    plain = dict(_items(name, value))
    for key, numbers in plain.items():
        if key not in _SCALER:
            raise RunError(f"{name} has {key!r:.80}: it may have {', '.join(_SCALER)}")
        if not isinstance(numbers, list) or not numbers or not all(map(_is_finite, numbers)):
            raise RunError(f"{name}.{key} must be a list of finite numbers")
        if key in ("std", "static_std") and min(numbers) <= 0:
            raise RunError(f"{name}.{key} has {min(numbers)}: each must be more than 0")
    lengths = {key: len(numbers) for key, numbers in plain.items()}
    if not lengths.get("mean") == lengths.get("std") is not None:
        raise RunError(f"{name} must have a mean and a std of each channel")
    if lengths.get("static_mean") != lengths.get("static_std"):
        raise RunError(f"{name} must have a static_mean and a static_std of each feature")
    if lengths.get("offsets", 0) % lengths["mean"]:
        raise RunError(f"{name}.offsets must have {lengths['mean']} numbers of each sensor")
    return plain


def _is_finite(value: object) -> bool:
    """Whether it is a number that float32 can hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -_LARGEST < value < _LARGEST  # type: ignore[operator] # a number


def _fingerprint(name: str, value: object) -> str:
    is_text = isinstance(value, str) and 0 < len(value) <= _FINGERPRINT_LENGTH
    if not isinstance(value, str) or not is_text or not value.isascii() or not value.isalnum():
        raise RunError(f"{name} is {kind_of(value)}: it must be letters and digits")
    return value


def _settings(name: str, value: object) -> dict[str, Any]:
    tables = dict(_items(name, value))
    for key in tables:
        if key not in _TABLES:
            raise RunError(f"{name} has {key!r:.80}: it may have {', '.join(_TABLES)}")
    settings = {key: _plain(f"{name}.{key}", table) for key, table in tables.items()}
    for key in _TABLES[1:]:
        if not isinstance(settings.get(key), dict):
            raise RunError(f"{name} has no table {key}")
    if not isinstance(settings.get("windows", {}), dict):
        raise RunError(f"{name}.windows is {kind_of(tables['windows'])}: it must be a mapping")
    if not isinstance(settings["model"].get("name"), str):
        raise RunError(f"{name}.model names no model")
    return settings


def _plain(name: str, value: object, level: int = 0) -> Any:
    """What JSON can hold."""
    if level > _MOST_LEVELS:
        raise RunError(f"{name:.80} is nested more than {_MOST_LEVELS} levels deep")
    if isinstance(value, dict):
        return {key: _plain(f"{name}.{key}", each, level + 1) for key, each in _items(name, value)}
    if isinstance(value, list):
        return [_plain(name, each, level + 1) for each in value]
    is_number = isinstance(value, float) and math.isfinite(value)
    is_whole = isinstance(value, int) and -(1 << 63) <= value < 1 << 63
    if value is None or isinstance(value, str) or is_number or is_whole:
        return value
    raise RunError(f"{name:.80} is {kind_of(value)}: it must be text, a finite number or a list")


def _items(name: str, value: object) -> list[tuple[str, Any]]:
    """The items of a mapping by text, read past what may hide them."""
    if not isinstance(value, dict):
        raise RunError(f"{name:.80} is {kind_of(value)}: it must be a mapping")
    items = list(dict.items(value))
    for key, _ in items:
        if not isinstance(key, str) or not key.isprintable():
            raise RunError(f"{name:.80} has the name {key!r:.80}: it must be printable text")
    return items


def kind_of(value: object) -> str:
    """A value in a message: itself where it is short, else its type."""
    is_short = value is None or isinstance(value, int | float | str)
    return f"{value!r:.60}" if is_short else f"of type {type(value).__name__}"


def _names(mapping: Mapping[str, Any]) -> str:
    return f"{', '.join(mapping) or 'nothing':.80}"


_FIELDS: dict[str, Callable[[str, object], Any]] = {
    "network": _weights,
    "optimizer": _optimizer,
    "position": _position,
    "scaler": _scaler,
    "fingerprint": _fingerprint,
    "settings": _settings,
    "trained": _weights_or_none,
}
