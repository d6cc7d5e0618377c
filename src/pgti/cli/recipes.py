"""`pgti recipes`: list and describe published recipes."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from pgti.cli.flags import JsonFlag
from pgti.cli.output import build_table, facts_table, print_results

if TYPE_CHECKING:
    from pgti.datasets import Recipe

__all__ = ["recipes_command"]

_STEPS = ("3", "6", "12", "mean", "average")


def recipes_command(name: str | None = None, /, *, json: JsonFlag = False) -> None:
    """List published recipes with their errors, or describe one.

    `pgti train STORE --recipe NAME` trains by a recipe. A "mean" error is over all steps of the
    horizon at once, an "average" one the mean of the steps' errors.

    Args:
        name: Recipe to describe, such as metr-la/dcrnn, or data set whose recipes to list; all are
            listed if not given.
    """
    from pgti.datasets import find_recipe, recipe_names, recipes_of

    recipes = [find_recipe(each) for each in recipe_names()] if name is None else recipes_of(name)
    content = {"recipes": {each.name: _describe(each) for each in recipes}}
    if name is not None and "/" in name:
        print_results(content, *_details(recipes[0]), as_json=json)
    else:
        print_results(content, _listing(recipes), as_json=json)


def _describe(recipe: "Recipe") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(recipe)


def _listing(recipes: "list[Recipe] | tuple[Recipe, ...]") -> Table:
    columns = ("recipe", "source", "parameters", *(f"MAE {step}" for step in _STEPS))
    rows = []
    for each in recipes:
        errors = {} if each.published is None else each.published.mae
        count = "-" if each.parameters is None else f"{each.parameters:,}"
        source = each.source.partition(",")[0].removeprefix("github.com/")
        rows.append((each.name, source, count, *(_shown(errors.get(step)) for step in _STEPS)))
    title = (
        "recipes for `pgti train STORE --recipe NAME`, with published errors of the test windows"
    )
    return build_table(title, columns, rows, num_texts=2)


def _shown(error: float | None) -> str:
    return "-" if error is None else f"{error:.2f}"


def _counts(recipe: "Recipe") -> str:
    if recipe.parameters is None:
        return "official ones were not read"
    own = recipe.own_parameters
    return f"{recipe.parameters:,}" + ("" if own is None else f" in the source, {own:,} here")


def _details(recipe: "Recipe") -> list[Table]:
    import tomli_w

    from pgti.datasets.recipe import METRICS

    options = {"windows": recipe.windows, "model": recipe.model, "training": recipe.training}
    facts = {
        "title": recipe.title,
        "data set": recipe.dataset,
        "paper": recipe.paper,
        "source": recipe.source,
        "parameters": _counts(recipe),
        "time": f"about {recipe.estimated_hours:g} hours on one NVIDIA A100 80 GB SXM for all "
        "epochs: an estimate by counting, the truth may be several times that (docs/recipes.md)",
        "notes": "\n".join(recipe.differs) or "none",
        "options": tomli_w.dumps(options).strip(),
    }
    tables = [facts_table(recipe.name, facts)]
    if recipe.published is not None:
        rows = [
            (
                metric.upper(),
                *(_shown(getattr(recipe.published, metric).get(step)) for step in _STEPS),
            )
            for metric in METRICS
        ]
        title = f"published: {recipe.published.source}"
        tables.append(build_table(title, ("error", *_STEPS), rows, num_texts=1))
    return tables
