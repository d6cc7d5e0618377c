"""Models by name, and models built from options that a user typed."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import NamedTuple

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape
from pgti.models.dcrnn import DCRNN, DCRNNConfig

__all__ = ["BASELINES", "MODELS", "ModelEntry", "build_config", "build_model"]


_TYPE_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}


class ModelEntry(NamedTuple):
    """A model, the class of its options, and where it was published."""

    config: type[ModelConfig]
    model: type[AbstractModel]
    paper: str


MODELS: dict[str, ModelEntry] = {
    "dcrnn": ModelEntry(DCRNNConfig, DCRNN, "Li et al., ICLR 2018, arXiv 1707.01926"),
}

BASELINES = ("persistence", "historical-average")
"""What every evaluation is compared with; there is nothing to train."""


def build_config(name: str, options: Mapping[str, object]) -> ModelConfig:
    """The options of model `name`, defaults where `options` says nothing.

    Raises:
        ConfigError: an unknown model or option (with the nearest name), or a value of the wrong
            type or out of range.
    """
    if name in BASELINES:
        raise ConfigError(
            f"model {name!r} learns nothing and is not trained: evaluation reports it beside "
            "every model"
        )
    if name not in MODELS:
        raise ConfigError(f"model {name!r} does not exist{_nearest(name, MODELS)}")
    config = MODELS[name].config
    types = {field.name: field.type for field in fields(config)}
    values = {}
    for option, value in options.items():
        if option not in types:
            raise ConfigError(f"model {name!r} has no option {option!r}{_nearest(option, types)}")
        values[option] = _checked(option, value, types[option])
    return config(**values)


def build_model(name: str, options: Mapping[str, object], shape: ModelShape) -> AbstractModel:
    """Model `name` for data of `shape`, with fresh weights.

    Weights are drawn from torch's generator: seed it first.

    Raises:
        ConfigError: as `build_config`.
    """
    config = build_config(name, options)
    return MODELS[name].model(config, shape)


def _checked(option: str, value: object, expected: object) -> object:
    """`value`, if it is of the type of the option; a whole number passes for a float."""
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise ConfigError(f"option {option} is {value!r}: it must be {_TYPE_NAMES[expected]}")
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose one of {', '.join(names)}"
