"""The report of a search: one HTML file that needs nothing else."""

from collections.abc import Sequence
from typing import Any

from pgti.display import count_of
from pgti.figures import escape_text, graph_objects
from pgti.figures.search import (
    option_importance,
    option_slices,
    parallel_options,
    search_curves,
    search_history,
)
from pgti.run.search_result import TrialResult, TuneResult
from pgti.run.search_space import SearchSpace
from pgti.storage import write_atomically

__all__ = ["write_search_report"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #222;
  margin: 0 auto; max-width: 1100px; padding: 1rem; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #ddd; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
.figures {{ display: grid; grid-template-columns: 1fr; gap: 1rem; }}
@media (min-width: 900px) {{ .figures {{ grid-template-columns: 1fr 1fr; }} }}
.figures > div {{ min-width: 0; }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
{body}
</body></html>
"""
_MOST_ROWS = 20


def write_search_report(result: TuneResult, space: SearchSpace, *, unit: str = "") -> None:
    """Write `report.html` of a search: its best trials, and how errors depend on options.

    Args:
        result: of the search.
        space: of the search.
        unit: of the target; empty where targets differ.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    graph_objects()
    import plotly.io  # noqa: PLC0415 - an extra

    is_first = True

    def draw(figure: Any) -> str:
        nonlocal is_first
        text: str = plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=is_first,
            config={"responsive": True, "displaylogo": False},
        )
        is_first = False
        return text

    label = f"validation MAE ({unit})" if unit else "validation MAE"
    wide, slices = _figures(result, space, label)
    parts = [
        _table(result, label),
        *(f"<h2>{title}</h2>{draw(figure)}" for title, figure in wide.items()),
        "<h2>Error by the value of each option</h2>",
        f'<div class="figures">{"".join(f"<div>{draw(each)}</div>" for each in slices)}</div>',
    ]
    ended = ", ".join(
        f"{result.count(state)} {state}" for state in ("complete", "pruned", "failed", "running")
    )
    summary = (
        f"{count_of(len(result.trials), 'trial')}: {ended}. The best is trial "
        f"{result.best.number}, with a {label} of {result.best.val_mae:.4f}. Test windows were "
        "not read."
    )
    page = _PAGE.format(
        title=escape_text(f"Search {result.path.name}"),
        summary=escape_text(summary),
        body="\n".join(parts),
    )
    write_atomically(result.report_file, page.encode())


def _figures(
    result: TuneResult, space: SearchSpace, label: str
) -> tuple[dict[str, Any], list[Any]]:
    """Figures over the whole page by their titles, and one for each option."""
    trials = result.trials
    numbers = [each.number for each in trials]
    errors = [_error(each) for each in trials]
    states = [each.state for each in trials]
    wide = {
        "Error by trial": search_history(numbers, errors, states, label=label),
        "Error by epoch": search_curves(
            {each.number: each.curve for each in trials if each.curve},
            dict(zip(numbers, states, strict=True)),
            best=result.best.number,
            label=label,
        ),
    }
    complete = [each for each in trials if each.state == "complete"]
    logs = [name for name, each in space.dimensions.items() if each.log]
    if len(complete) > 1:
        wide["Options and error of the complete trials"] = parallel_options(
            {name: [each.params[name] for each in complete] for name in space.dimensions},
            [_error(each) for each in complete],
            label=label,
            logs=logs,
        )
    if result.importance:
        title = "Importance of each option (PED-ANOVA)"
        wide[title] = option_importance(result.importance)
    tried = [each for each in trials if set(each.params) >= set(space.dimensions)]
    slices = [
        option_slices(
            name,
            [each.params[name] for each in tried],
            [_error(each) for each in tried],
            [each.state for each in tried],
            label=label,
            is_log=name in logs,
        )
        for name in space.dimensions
    ]
    return wide, slices


def _error(trial: TrialResult) -> float:
    return float("nan") if trial.val_mae is None else trial.val_mae


def _table(result: TuneResult, label: str) -> str:
    """The best trials, and what failed."""
    ranked = sorted(
        result.trials, key=lambda each: (each.state != "complete", each.val_mae or float("inf"))
    )
    options = list(result.best.params)
    rows = [
        [
            str(each.number),
            each.state if each.error is None else f"failed: {each.error}",
            "" if each.val_mae is None else f"{each.val_mae:.4f}",
            str(len(each.curve)),
            *(_text(each.params.get(name, "")) for name in options),
        ]
        for each in ranked[:_MOST_ROWS]
    ]
    head = _row("th", ["trial", "state", label, "epochs", *options])
    body = "".join(_row("td", row) for row in rows)
    more = len(ranked) - len(rows)
    note = f"<p>{more} further trials are in study.db.</p>" if more else ""
    return f'<div class="table"><table>{head}{body}</table></div>{note}'


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape_text(each)}</{tag}>" for each in cells) + "</tr>"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
