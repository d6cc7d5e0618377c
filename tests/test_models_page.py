"""docs/models.md: each model beside its released code, with its recipes and their errors."""

from pathlib import Path

from pgti.datasets import find_recipe, recipe_names
from pgti.models import MODELS

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


def rows() -> dict[str, list[str]]:
    """Cells of each line of the table, by model."""
    section = PAGE.read_text(encoding="utf-8").split("## Beside released code")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:3] == "| `"]
    return {each[0].split("`")[1]: each for each in cells}


def shown(model: str) -> list[str]:
    """How many recipes a model has, and errors: of one for METR-LA, or else of the first."""
    recipes = [each for each in map(find_recipe, recipe_names()) if each.model_name == model]
    known = [each for each in recipes if each.published is not None]
    known.sort(key=lambda each: each.dataset != "METR-LA")
    if not known or known[0].published is None:
        return [f"{len(recipes)}" if recipes else "-", "-"]
    errors = " / ".join(f"{known[0].published.mae[step]:.2f}" for step in ("3", "6", "12"))
    return [f"{len(recipes)}", f"{errors} (`{known[0].name}`)"]


def test_every_model_has_its_recipes_and_a_published_error() -> None:
    table = rows()
    assert set(table) == {name for name in MODELS if not name.startswith("pgt")}
    for name, cells in table.items():
        assert cells[2:4] == shown(name), name
