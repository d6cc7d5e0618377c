"""The accuracy study as a table in Markdown."""

from collections.abc import Iterator
from pathlib import Path

from pgti.bench.model_study import ERRORS, StudiedModel, StudyResult
from pgti.bench.results import Spread

__all__ = ["shown_steps", "write_markdown"]

_PUBLISHED = ("3", "6", "12")
"""Horizon steps of the field's tables: 15, 30 and 60 minutes of five-minute readings."""


def shown_steps(result: StudyResult) -> tuple[str, ...]:
    """The horizon steps to show: those of the literature if there are so many, else the last."""
    steps = [step for step in result.models[0].errors["mae"] if step != "mean"]
    shown = tuple(step for step in _PUBLISHED if step in steps)
    return shown or (steps[-1],)


def write_markdown(path: Path, result: StudyResult) -> None:
    """Write one row a model: errors by horizon step with their spread over seeds, and the cost.

    Rows are in the order of the mean absolute error over all steps, the best first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_lines(result)) + "\n", encoding="utf-8")


def _lines(result: StudyResult) -> Iterator[str]:
    steps = shown_steps(result)
    columns = [f"{error.upper()} {step}" for error in ERRORS for step in steps]
    titles = ["model", "seeds", *columns, "epochs (best)", "s/epoch", "peak MiB", "parameters"]
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for each in sorted(result.models, key=lambda each: each.errors["mae"]["mean"].median):
        cells = [each.model, str(len(each.seeds)) if each.seeds else "-"]
        cells += [_with_spread(each.errors[error].get(step)) for error in ERRORS for step in steps]
        cells += [_epochs(each), _plain(each.seconds_per_epoch, 1), _plain(each.peak_pss_bytes)]
        yield "| " + " | ".join([*cells, f"{each.parameters:,}" if each.parameters else "-"]) + " |"


def _epochs(model: StudiedModel) -> str:
    if model.epochs is None or model.best_epoch is None:
        return "-"
    return f"{model.epochs.median:.0f} ({model.best_epoch.median:.0f})"


def _with_spread(spread: Spread | None) -> str:
    """Median over seeds, and half the distance between the extremes."""
    if spread is None:
        return "-"
    if spread.runs == 1:
        return f"{spread.median:.3f}"
    return f"{spread.median:.3f} ± {(spread.maximum - spread.minimum) / 2:.3f}"


def _plain(spread: Spread | None, unit: float = 2**20) -> str:
    return "-" if spread is None else f"{spread.median / unit:,.0f}"
