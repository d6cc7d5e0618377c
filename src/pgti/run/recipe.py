"""Runs by a published recipe: their options, what they change, and published errors beside ours."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pgti.errors import ConfigError, option
from pgti.options import require_type
from pgti.run.build import resolve_model
from pgti.run.config import RunConfig
from pgti.run.protocol import format_option, note_windows, windows_of
from pgti.storage import write_atomically
from pgti.store.time_rule import format_interval
from pgti.training.compatibility import flat_settings, free_options

if TYPE_CHECKING:
    from pathlib import Path

    from pgti.datasets import Recipe
    from pgti.store import SeriesStore

__all__ = [
    "Comparison",
    "compare_published",
    "note_differences",
    "note_recipe",
    "open_recipe",
    "options_beside",
    "recipe_config",
    "require_recipe",
    "write_recipes",
]

_STOPS = {"training.epochs", "training.patience", "training.max_steps"}
"""Options that a run may change when it resumes, and that decide about its errors."""

_DRAWN = {"training.seed", "training.batch_size_per_rank"}
"""Options that a recipe leaves to the user."""


def recipe_config(recipe: "Recipe", store: "SeriesStore") -> RunConfig:
    """The options of a recipe for a store of its data set.

    Raises:
        ConfigError: if the store is not of that data set.
    """
    from pgti.datasets import find_dataset  # noqa: PLC0415 - pandas comes with it

    dataset = find_dataset(recipe.dataset)
    assert dataset.protocol is not None  # a test reads every recipe
    remembered = store.meta.read_options.get("dataset")
    is_other = remembered not in (None, dataset.name)
    seconds = store.meta.interval_seconds
    interval = "no times" if seconds is None else f"steps of {format_interval(seconds)}"
    if is_other:
        shown = f"is {remembered}"
    elif store.meta.num_nodes != dataset.num_nodes:
        shown = f"has {store.meta.num_nodes:,} sensors"
    else:
        shown = "" if interval == f"steps of {dataset.interval}" else f"has {interval}"
    if shown:
        raise ConfigError(
            f"the recipe {recipe.name} is for {dataset.name} ({dataset.num_nodes:,} sensors, steps "
            f"of {dataset.interval}), and the store {store.path} {shown}: fetch {dataset.name}, or "
            "see `pgti recipes`"
        )
    windows = windows_of(dataset, store) | recipe.windows
    return RunConfig(store=store.path.absolute(), recipe=recipe.name).override(
        {"windows": windows, "model": recipe.model, "training": recipe.training}
    )


def write_recipes(names: Iterable[str], store: "SeriesStore", directory: "Path") -> list["Path"]:
    """Write recipes as files for `pgti train --config`; returns their paths.

    Args:
        names: of recipes, or of data sets, all of whose recipes are written.
        store: of their data set.
        directory: to write to.
    """
    from pgti.datasets import recipes_of  # noqa: PLC0415

    paths = []
    found = {recipe.name: recipe for name in names for recipe in recipes_of(name)}
    for recipe in found.values():
        path = directory / f"{recipe.name}.toml"
        text = recipe_config(recipe, store).to_toml()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
        paths.append(path)
    return paths


def open_recipe(name: object, *, model: object, protocol: object, start: bool) -> "Recipe | None":
    """The recipe of a name, if there is one; what it decides by itself is refused beside it.

    Args:
        name: of the recipe, or None.
        model: name of a model, or the user's own, if one is given.
        protocol: of the windows, if one is given.
        start: whether the run starts from another.

    Raises:
        ConfigError: naming what to leave out.
    """
    if name is None:
        return None
    from pgti.datasets import find_recipe  # noqa: PLC0415

    require_type("recipe", name, str, "the name of a recipe")
    recipe = find_recipe(str(name))
    if model is not None and model != recipe.model_name:
        raise ConfigError(
            f"the recipe {recipe.name} trains the model {recipe.model_name}: leave "
            f"{option('model')} out, or the recipe"
        )
    if protocol is not None:
        raise ConfigError(
            f"the recipe {recipe.name} has a protocol of its own: leave {option('protocol')} out"
        )
    if start:
        raise ConfigError(
            f"the recipe {recipe.name} trains new weights: leave "
            f"{option('init_from', flag='from')} out, or the recipe"
        )
    return recipe


def require_recipe(recipe: "Recipe | None", config: RunConfig, run: "Path") -> None:
    """Refuse a recipe where a run resumes that another one, or none, has trained."""
    if recipe is not None and config.recipe != recipe.name:
        raise ConfigError(
            f"the run in {run} was not trained by the recipe {recipe.name}: leave "
            f"{option('recipe')} out"
        )


def note_recipe(store: "SeriesStore", config: RunConfig) -> tuple[str, ...]:
    """What a user should know about a run by a recipe, one line each; empty for other runs."""
    if config.recipe is None:
        return ()
    from pgti.datasets import find_recipe  # noqa: PLC0415

    recipe = find_recipe(config.recipe)
    return (
        f"recipe {recipe.name}: {recipe.title} ({recipe.source})",
        *recipe.differs,
        *note_differences(store, config),
    )


def note_differences(store: "SeriesStore", config: RunConfig) -> tuple[str, ...]:
    """Why errors of a run do not compare with those of its recipe, one line each."""
    if config.recipe is None:
        return ()
    from pgti.datasets import find_recipe  # noqa: PLC0415

    recipe = find_recipe(config.recipe)
    named = store.meta.read_options.get("dataset")
    unnamed = f"the store does not say that it is {recipe.dataset}: figures compare only if it is"
    return (
        *options_beside(recipe, store, config),
        *(() if named is not None else (unnamed,)),
        *note_windows(recipe.dataset, store, config),
    )


def options_beside(recipe: "Recipe", store: "SeriesStore", config: RunConfig) -> Iterator[str]:
    """A line for each option of a run that is not the recipe's."""
    own, given = (
        flat_settings(replace(each, model=resolve_model(each.model)).resolved().settings())
        for each in (recipe_config(recipe, store), config)
    )
    free = (free_options(config.training) - _STOPS) | _DRAWN
    for name in sorted(own | given):
        if name in free or own.get(name) == given.get(name):
            continue
        shown = option(name.removeprefix("training."), given.get(name))
        before = "none" if own.get(name) is None else format_option(own[name])
        yield f"{shown} in place of {before} in the recipe {recipe.name}: figures do not compare"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Published errors beside those of a run, where both have one by the same convention.

    Attributes:
        recipe: its name.
        source: where the published errors were read.
        notes: why figures do not compare, one line each.
        errors: published and own errors by metric and step.
    """

    recipe: str
    source: str
    notes: tuple[str, ...]
    errors: Mapping[str, Mapping[str, tuple[float, float]]]

    def to_dict(self) -> dict[str, Any]:
        """For a JSON object, with deviations in per cent of the published error."""
        return {
            "recipe": self.recipe,
            "source": self.source,
            "notes": list(self.notes),
            "errors": {
                metric: {
                    step: {
                        "published": published,
                        "ours": ours,
                        "deviation_percent": deviation(published, ours),
                    }
                    for step, (published, ours) in steps.items()
                }
                for metric, steps in self.errors.items()
            },
        }


def deviation(published: float, ours: float) -> float:
    """How much larger an error is than the published one, in per cent of that."""
    return 100 * (ours / published - 1)


def compare_published(
    name: str, errors: Mapping[str, Any], notes: tuple[str, ...] = ()
) -> Comparison | None:
    """The published errors of a recipe beside those of a run; None where none were read.

    Args:
        name: of the recipe.
        errors: of the test windows by metric and step, as `test.json` has those of the model.
        notes: why figures do not compare.
    """
    from pgti.datasets.recipe import METRICS, find_recipe  # noqa: PLC0415

    published = find_recipe(name).published
    if published is None:
        return None
    found = {
        metric: {
            step: (each, errors[metric][step])
            for step, each in getattr(published, metric).items()
            if errors.get(metric, {}).get(step) is not None
        }
        for metric in METRICS
    }
    return Comparison(recipe=name, source=published.source, notes=notes, errors=found)
