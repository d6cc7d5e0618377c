"""Forecasts beside observations of every sensor, which a click on the map shows."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching import build_loader
from pgti.figures import escape_text, series_lines
from pgti.forecasting import AbstractForecaster, ForecastLabels, forecast_blocks, step_heading
from pgti.report import Panel, pack_series
from pgti.run.intervals import known_levels, with_intervals
from pgti.run.reporting.compared import ComparedRun

__all__ = ["CurvesOptions", "curves_panel"]

Floats = NDArray[np.float32]

_MAX_RUNS = 3
_RAW_NUMBERS = 4_000_000  # that are forecast anew; packed, a page has about as many bytes at most


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvesOptions:
    """How much of a page its curves take.

    Attributes:
        budget_bytes: of the page.
        budget_seconds: for forecasts of all runs; what they do not reach is not shown.
        intervals: probabilities of intervals; those that the run has are shown by default.
    """

    budget_bytes: int
    budget_seconds: float = 12.0
    intervals: tuple[float, ...] = ()


def curves_panel(
    runs: Sequence[ComparedRun], worst: int, options: CurvesOptions
) -> tuple[Panel, dict[str, Any]]:
    """The panel "curves", drawn for one sensor, and the series of all for the page.

    The last windows of the test split are forecast anew, as many as the budgets hold; of a large
    network every some steps of a day.

    Args:
        runs: whose rows are there; the first has intervals, and no more than three are shown.
        worst: position of the sensor that is shown first.
        options: the budgets.
    """
    first = runs[0].run
    source, spec = first.source, first.source.spec
    same = [
        each for each in runs[:_MAX_RUNS]
        if np.array_equal(np.asarray(each.run.splits.test)[-1:], np.asarray(first.splits.test)[-1:])
        and each.run.source.spec.input_steps == spec.input_steps
    ]  # fmt: skip
    forecaster = _with_intervals(first, options)
    per_window = source.store.meta.num_nodes * len(source.target_indices)
    starts = _choose_starts(first, _RAW_NUMBERS // (per_window * (2 + len(same))))
    is_dense = len(starts) < 2 or int(starts[1] - starts[0]) == 1
    leads = _leads(spec.horizon, is_dense=is_dense and per_window * len(starts) < _RAW_NUMBERS // 8)
    seconds = options.budget_seconds / len(same)
    names: list[str] = []
    parts: list[Floats] = []
    for index, each in enumerate(same):
        found = _forecast(
            each, forecaster if index == 0 else each.run.forecaster, starts, leads, seconds
        )
        starts = starts[: len(found["forecast"])]
        parts = [part[: len(starts)] for part in parts]
        label = "" if len(same) == 1 else f" {each.label}"
        if index == 0:
            names, parts = ["observed"], [found.pop("observed")]
            bands = [name for name in found if name.startswith("lo-")]
            for low in sorted(bands, key=lambda name: -float(name[3:])):
                names += [low, f"hi-{low[3:]}"]
                parts += [found[low], found[f"hi-{low[3:]}"]]
        names.append(f"forecast{label}")
        parts.append(found["forecast"])
    return _build(runs[0], names, parts, starts, leads, worst, options)


def _with_intervals(run: Any, options: CurvesOptions) -> AbstractForecaster:
    levels = options.intervals or known_levels(run)
    if not levels:
        forecaster: AbstractForecaster = run.forecaster
        return forecaster
    return with_intervals(run, levels, source=run.source, first=int(run.splits.test[-1]))[0]


def _choose_starts(run: Any, count: int) -> NDArray[np.int64]:
    """The last windows: all of a week at most, or every some steps of the last day."""
    starts = np.asarray(run.splits.test, dtype=np.int64)
    per_day = run.store.time_axis.steps_per_day or 288
    count = max(2, count)
    if count >= per_day:
        return starts[-min(count, 7 * per_day) :]
    stride = -(-min(per_day, len(starts)) // count)
    return starts[::-1][: count * stride : stride][::-1]


def _leads(horizon: int, *, is_dense: bool) -> list[int]:
    """The horizon steps that are shown: the last, and of small networks two before it."""
    return sorted({max(1, horizon // 4), max(1, horizon // 2), horizon}) if is_dense else [horizon]


def _forecast(
    each: ComparedRun,
    forecaster: AbstractForecaster,
    starts: NDArray[np.int64],
    leads: Sequence[int],
    seconds: float,
) -> dict[str, Floats]:
    """Numbers by name, [windows, leads, N, C], of the windows that the time allows."""
    run = each.run
    batch = min(run.config.training.evaluated_at_once(1), max(1, len(starts) // 8))
    loader = build_loader(run.source, starts, batch, device=run.device)
    labels = ForecastLabels.of_source(run.source)
    found: dict[str, list[Floats]] = {}
    steps = [lead - 1 for lead in leads]
    until = time.monotonic() + seconds
    for block in forecast_blocks(forecaster, _until(loader.epoch(0), until), labels):
        more = {**_bands(block.more), "observed": block.observed, "forecast": block.forecast}
        for name, values in more.items():
            found.setdefault(name, []).append(values[:, steps].astype(np.float32))
    return {name: np.concatenate(values) for name, values in found.items()}


def _bands(more: Any) -> dict[str, Any]:
    """Intervals; of a run with quantiles alone, those between its outermost quantiles."""
    intervals = {name: each for name, each in more.items() if name[:2] in ("lo", "hi")}
    levels = sorted(float(name) for name in more if name not in intervals)
    if intervals or len(levels) < 2 or levels[0] == levels[-1]:
        return intervals
    covered = f"{100 * (levels[-1] - levels[0]):.6g}"
    low, high = (more[f"{level:.6g}"] for level in (levels[0], levels[-1]))
    return {f"lo-{covered}": low, f"hi-{covered}": high}


def _until(batches: Any, until: float) -> Iterator[Any]:
    for number, batch in enumerate(batches):
        if number and time.monotonic() > until:
            batches.close()
            return
        yield batch


def _build(
    first: ComparedRun,
    names: Sequence[str],
    parts: Sequence[Floats],
    starts: NDArray[np.int64],
    leads: Sequence[int],
    worst: int,
    options: CurvesOptions,
) -> tuple[Panel, dict[str, Any]]:
    source = first.run.source
    num_nodes, num_targets = parts[0].shape[2:]
    rows, lines = np.unique(starts[:, None] + source.spec.input_steps - 1 + np.array(leads)), []
    per_lead = len(names) - 1
    values = np.full((num_nodes * num_targets, 1 + per_lead * len(leads), len(rows)), np.nan, "f4")
    for index, lead in enumerate(leads):
        places = np.searchsorted(rows, starts + source.spec.input_steps - 1 + lead)
        for number, part in enumerate(parts):
            line = 0 if number == 0 else 1 + index * per_lead + number - 1
            values[:, line, places] = part[:, index].reshape(len(starts), -1).T
        bands = [1 + index * per_lead + i for i in range(per_lead)]
        is_band = [name[:3] in ("lo-", "hi-") for name in names[1:]]
        below = [line for line, yes in zip(bands, is_band, strict=True) if yes]
        above = [line for line, yes in zip(bands, is_band, strict=True) if not yes]
        lines.append([*below, 0, *above])
    packed = pack_series(values, options.budget_bytes)
    rows, values = rows[-packed.shape[2] :], values[..., -packed.shape[2] :]
    axis = first.run.store.time_axis
    times: list[Any] = (
        [axis.isoformat(int(row))[:19] for row in rows] if axis.is_dated else rows.tolist()
    )
    headings = [step_heading(lead, axis.step_seconds) for lead in leads]
    labels = [
        f"{name} in {unit}" if unit else name for name, unit in source.target_units.items()
    ]  # fmt: skip
    shown = values[worst * num_targets]
    of_lead = dict(
        zip(
            ["observed", *names[1:]],
            [0, *(1 + (len(leads) - 1) * per_lead + i for i in range(per_lead))],
            strict=True,
        )
    )
    bands_of = {
        f"{name[3:]} % interval": (shown[of_lead[name]], shown[of_lead[f"hi-{name[3:]}"]])
        for name in names
        if name.startswith("lo-")
    }
    drawn = {name: shown[of_lead[name]] for name in names if name[:3] not in ("lo-", "hi-")}
    clock = axis.title
    figure = series_lines(times, drawn, label=labels[0], bands=bands_of, x=clock)
    figure.update_layout(height=480)
    ahead = headings[0] if len(headings) == 1 else "the chosen time"
    gap = _gap_text(rows, axis.step_seconds)
    panel = Panel(
        name="curves",
        figure=figure,
        caption=f"Forecasts {ahead} ahead beside observations of one sensor, {len(rows):,} times "
        f"at the end of the test windows{gap}. Numbers are rounded to a "
        f"{'65,000th' if packed.bytes_per_number == 2 else '250th'} of the range shown.",
    )
    data = {
        "content": packed.content, "bytes": packed.bytes_per_number, "missing": packed.missing,
        "low": packed.low, "step": packed.step, "shape": list(packed.shape), "lines": lines,
        "times": times, "leads": headings, "targets": source.target_names,
        "labels": [escape_text(each) for each in labels], "first": worst, "clock": clock,
    }  # fmt: skip
    return panel, data


def _gap_text(rows: NDArray[np.int64], seconds: int | None) -> str:
    gaps = np.diff(rows)
    if not len(gaps) or gaps.max() == 1:
        return ""
    return f", one every {step_heading(int(np.median(gaps)), seconds)}"
