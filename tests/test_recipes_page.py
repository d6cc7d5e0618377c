"""docs/recipes.md has every recipe, with the parameters, errors and hours of its file."""

from pathlib import Path

from pgti.datasets import Recipe, find_recipe, recipe_names
from pgti.datasets.recipe import METRICS

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
STEPS = ("3", "6", "12")


def errors(recipe: Recipe, metric: str) -> str:
    """Published errors at three steps, and over all of them."""
    if recipe.published is None:
        return "-"
    found = getattr(recipe.published, metric)
    shown = " / ".join(f"{found[step]:.2f}" if step in found else "-" for step in STEPS)
    total = found.get("mean", found.get("average"))
    return shown if total is None else f"{shown} ({total:.2f})"


def row(recipe: Recipe) -> str:
    """A line of the page's table."""
    parameters = "-" if recipe.parameters is None else f"{recipe.parameters:,}"
    if recipe.own_parameters is not None:
        parameters += f" ({recipe.own_parameters:,})"
    found = (errors(recipe, metric) for metric in METRICS)
    cells = (f"`{recipe.name}`", parameters, *found, f"{recipe.estimated_hours:g}")
    return f"| {' | '.join(cells)} |"


def test_the_page_has_every_recipe() -> None:
    recipes = [find_recipe(name) for name in recipe_names()]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert rows == [row(recipe) for recipe in recipes]
    for recipe in recipes:
        assert any(line.startswith("- ") and recipe.paper in line for line in lines), recipe.paper
