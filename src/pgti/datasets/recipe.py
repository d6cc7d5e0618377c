"""Recipes: how published results on a data set were trained, in files of the package.

A recipe is a TOML file, `recipes/DATA/NAME.toml`. `[windows]` changes what the data set's published
protocol says (`Protocol`), and `[model]` and `[training]` are options of a run. The file says where
its options and its errors were read; an error that was not read at its source is not there.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from pgti.errors import ConfigError
from pgti.options import convert_fields, parse_config

__all__ = ["METRICS", "Published", "Recipe", "find_recipe", "recipe_names", "recipes_of"]

METRICS = ("mae", "rmse", "mape")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """Published test errors, over observed targets.

    Keys are steps of the horizon ("3"), "mean" for an error over all steps at once, or "average"
    for the mean of the steps' errors; `ForecastMetrics` has the same.

    Attributes:
        source: where they were read.
        mae: mean absolute errors, in the unit of the target.
        rmse: root mean squared errors, likewise.
        mape: mean absolute percentage errors, in per cent.
    """

    source: str
    mae: dict[str, float] = field(default_factory=dict)
    rmse: dict[str, float] = field(default_factory=dict)
    mape: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        convert_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A published way of training a model on a data set.

    Attributes:
        name: data set and recipe, such as metr-la/dcrnn.
        title: what it is, in one line.
        dataset: name of the data set, whose protocol it implies.
        paper: that describes the model.
        source: of the options: repository, file and commit.
        parameters: of the official network, as its log or code says; None where that was not read.
        own_parameters: of the network here, where it has others, which `differs` explains.
        estimated_hours: of all epochs on one NVIDIA A100 80 GB SXM: counted by `pgti-bench
            recipes`, never measured; docs/recipes.md says how.
        differs: what pgti does otherwise than the source, one line each.
        windows: options of the windows, in place of those of the protocol.
        model: name and options of the model.
        training: options of the training loop.
        published: errors to compare with; None where none were read.
    """

    name: str = ""
    title: str
    dataset: str
    paper: str
    source: str
    parameters: int | None = None
    own_parameters: int | None = None
    estimated_hours: float
    differs: tuple[str, ...] = ()
    windows: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any]
    training: dict[str, Any]
    published: Published | None = None

    def __post_init__(self) -> None:
        convert_fields(self)

    @property
    def model_name(self) -> str:
        """Name of its model."""
        return str(self.model["name"])


@cache
def recipe_names() -> tuple[str, ...]:
    """Names of all recipes, in order."""
    folders = files("pgti.datasets").joinpath("recipes").iterdir()
    return tuple(
        sorted(
            f"{folder.name}/{file.name.removesuffix('.toml')}"
            for folder in folders
            if folder.is_dir()
            for file in folder.iterdir()
            if file.name.endswith(".toml")
        )
    )


def find_recipe(name: str) -> Recipe:
    """The recipe of a name, in upper or lower case.

    Raises:
        ConfigError: if there is none, naming similar ones.
    """
    lower = name.lower()
    if first := next((each for each in recipe_names() if each.startswith(f"{lower}/")), None):
        raise ConfigError(
            f"recipe {name!r} is a data set: name one of its recipes, such as {first}; `pgti "
            f"recipes {lower}` lists them"
        )
    if lower not in recipe_names():
        close = get_close_matches(lower, recipe_names(), n=3)
        alike = f"similar names are {', '.join(close)}; " if close else ""
        raise ConfigError(f"recipe {name!r} is unknown: {alike}`pgti recipes` lists them")
    return _read(lower)


def recipes_of(prefix: str) -> tuple[Recipe, ...]:
    """The recipe of a name, or all of a data set.

    Raises:
        ConfigError: if there is none, naming similar ones.
    """
    lower = prefix.lower().rstrip("/")
    names = [name for name in recipe_names() if name.partition("/")[0] == lower]
    return tuple(map(_read, names)) if names else (find_recipe(prefix),)


@cache
def _read(name: str) -> Recipe:
    file = files("pgti.datasets").joinpath("recipes", f"{name}.toml")
    content: Mapping[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    return replace(parse_config(Recipe, content), name=name)
