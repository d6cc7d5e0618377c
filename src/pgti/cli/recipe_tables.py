"""Tables of published errors beside a run's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pgti.cli.output import build_table

if TYPE_CHECKING:
    from pgti.run import Run
    from pgti.run.recipe import Comparison
    from pgti.run.study_result import StudyResult

__all__ = ["compare_run", "compare_study"]


def compare_run(
    trained: "Run", test: Mapping[str, Any] | None
) -> tuple[dict[str, Any], list[Table]]:
    """The published errors of a run's recipe beside the run's, as JSON and as tables.

    Both are empty where there is nothing to compare.

    Args:
        trained: the run.
        test: its test errors as `test.json` has them; None if they were not evaluated.
    """
    name = trained.config.recipe
    if name is None or test is None:
        return {}, []
    from pgti.cli.output import log
    from pgti.run.recipe import compare_published, note_differences

    notes = note_differences(trained.source.store, trained.config)
    comparison = compare_published(name, test, notes)
    if comparison is None:
        return {}, []
    for line in comparison.notes:
        log(line)
    return {"published": comparison.to_dict()}, [_table(comparison)]


def compare_study(result: "StudyResult") -> tuple[dict[str, Any], list[Table]]:
    """The published errors of a study's recipes beside means over seeds, as JSON and as tables."""
    from pgti.cli.output import log
    from pgti.run.recipe import compare_published

    content, tables = {}, []
    for row in (row for row in result.models if row.recipe is not None):
        means = {
            metric: {step: error.mean for step, error in steps.items()}
            for metric, steps in row.errors.items()
        }
        comparison = compare_published(str(row.recipe), means, row.notes)
        if comparison is not None:
            for line in comparison.notes:
                log(f"{row.name}: {line}")
            content[row.name] = comparison.to_dict()
            tables.append(_table(comparison))
    return ({"published": content}, tables) if content else ({}, [])


def _table(comparison: "Comparison") -> Table:
    from pgti.run.recipe import deviation

    compares = not comparison.notes
    rows = [
        (
            metric.upper(),
            f"step {step}" if step.isdigit() else step,
            f"{published:.3f}",
            f"{ours:.3f}",
            *([f"{deviation(published, ours):+.1f} %"] if compares else []),
        )
        for metric, steps in comparison.errors.items()
        for step, (published, ours) in steps.items()
    ]
    title = f"recipe {comparison.recipe}: published errors ({comparison.source}) beside ours"
    title += "" if compares else ", which may not compare: see the lines above"
    heads = ("error", "at", "published", "ours", *(["deviation"] if compares else []))
    return build_table(title, heads, rows, num_texts=2)
