"""The evaluation of a run: its errors and those of the baselines, ranges and drift."""

from collections.abc import Mapping, Sequence
from typing import Any

from pgti.batching import WindowSource, build_loader
from pgti.errors import require_whole_number
from pgti.forecasting import (
    AbstractForecaster,
    Breakdowns,
    Metrics,
    Observer,
    PersistenceForecaster,
    RangeEdges,
    Report,
    build_baselines,
    check_metrics,
    check_ranges,
    choose_edges,
    evaluate,
    evaluation_report,
    measure_drift,
)
from pgti.memory import device_peak_bytes
from pgti.run.intervals import check_adaptive, with_intervals
from pgti.run.loaded import LoadedRun
from pgti.run.memory_estimate import largest_peak_bytes
from pgti.store import TypicalReadings
from pgti.windows import Starts, subsample_evenly

__all__ = ["evaluate_windows"]


def evaluate_windows(  # noqa: PLR0913 - each names one part of an evaluation
    run: LoadedRun,
    windows: Mapping[str, Starts],
    source: WindowSource,
    *,
    max_windows: int | None = None,
    batch_size: int | None = None,
    metrics: Metrics | None = None,
    mape_threshold: float = 1e-3,
    ranges: RangeEdges | None = None,
    intervals: Sequence[float] = (),
    adaptive: bool = False,
    baselines: Sequence[str] | None = None,
    observers: Sequence[Observer] = (),
    notes: Sequence[str] = (),
) -> Report:
    """Errors of a run and the baselines on windows of its own series or of a newer one.

    Baselines, ranges and what drift is measured against are those of the run's training rows.

    Args:
        run: the run.
        windows: starts of windows in `source` by the name that the report gives them.
        source: what the windows hold.
        max_windows: windows of each name at most, spread evenly; None takes all.
        batch_size: windows per batch of all ranks; None takes that of the run's validation.
        metrics: of the user's own; by default those of the run's training.
        mape_threshold: smallest magnitude of a target, in its unit, that MAPE counts.
        ranges: edges of the ranges of each target; by default a tenth, half and nine tenths of the
            training readings lie below them.
        intervals: probabilities of conformal intervals to score; none by default.
        adaptive: let them follow the outcomes, as `IntervalForecaster`.
        baselines: names of the baselines; those of `BASELINES` by default.
        observers: shown the progress.
        notes: what is worth knowing about the windows, one line each.

    Raises:
        ConfigError: if there is no window, or an option breaks its rule.
    """
    if batch_size is not None:
        require_whole_number("batch_size", batch_size, 1)
    chosen = {name: subsample_evenly(starts, max_windows) for name, starts in windows.items()}
    own = run.metrics if metrics is None else metrics
    check_metrics(own)
    typical = _typical_readings(run)
    breakdowns = _breakdowns(source, typical, ranges)
    check_adaptive(intervals, adaptive=adaptive)
    forecasters: dict[str, AbstractForecaster] = {
        "model": run.forecaster,
        **_baselines(run, source, baselines),
    }
    if run.problem is not None:
        notes = (
            *notes,
            "baselines other than persistence are left out: they are fitted on the training "
            f"readings, and {run.problem}",
        )
    contents: dict[str, dict[str, Any]] = {}
    device_peak_bytes(run.device, reset=True)
    for name, starts in chosen.items():
        if len(intervals) and len(starts):
            forecasters["model"], lines = with_intervals(
                run,
                intervals,
                source=source,
                first=int(starts[0]),
                adaptive=adaptive,
                observers=observers,
            )
            notes = (*notes, *(line for line in lines if line not in notes))
        loader = build_loader(
            source,
            starts,
            batch_size or run.config.training.evaluated_at_once(run.communicator.data_size),
            device=run.device,
            communicator=run.communicator,
        )
        errors = evaluate(
            {label: each.to(run.device) for label, each in forecasters.items()},
            loader,
            mape_threshold=mape_threshold,
            own_metrics=own,
            breakdowns=breakdowns,
            observers=observers,
            communicator=run.communicator,
        )
        drift = measure_drift(
            source.store,
            range(int(starts[0]), int(starts[-1]) + source.spec.input_steps),
            typical,
            source.scaler,
            communicator=run.communicator,
            device=run.device,
        )
        contents[name] = {
            **evaluation_report(errors, "model", source.target_names, breakdowns),
            "windows": len(starts),
            "split_windows": len(windows[name]),
            "mape_threshold": mape_threshold,
            "drift": drift,
            **_period(source, starts),
        }
    peak = largest_peak_bytes(run.device, run.communicator)
    return run.report_of(contents, own, notes=notes, peak_device_bytes=peak)


def _typical_readings(run: LoadedRun) -> TypicalReadings:
    """Those that the run holds, or else of its training rows."""
    if run.source.typical is not None:
        return run.source.typical
    return TypicalReadings.fit(run.store, run.splits.train_rows(run.source.spec))


def _breakdowns(
    source: WindowSource, typical: TypicalReadings, ranges: RangeEdges | None
) -> Breakdowns:
    if ranges is None:
        of_targets = (typical.quantiles[:, channel] for channel in source.target_indices)
        edges = tuple(map(choose_edges, of_targets))
    else:
        edges = check_ranges(ranges, source.target_names)
    return Breakdowns(
        node_ids=source.store.meta.node_ids,
        time_axis=source.store.time_axis,
        input_steps=source.spec.input_steps,
        channels=source.target_names,
        units=tuple(source.target_units.values()),
        edges=edges,
    )


def _baselines(
    run: LoadedRun, source: WindowSource, names: Sequence[str] | None
) -> dict[str, AbstractForecaster]:
    """The baselines fitted on the run's training rows; without them persistence alone."""
    if run.problem is not None:
        targets, horizon = source.target_indices, source.spec.horizon
        return {
            "persistence": PersistenceForecaster(source.scaler, targets, horizon, source.sensors)
        }
    return build_baselines(run.source, run.splits, names, evaluated=source, device=run.device)


def _period(source: WindowSource, starts: Starts) -> dict[str, str]:
    """Time of the first and of the last target, where times are known."""
    axis, spec = source.store.time_axis, source.spec
    if not axis.is_dated:
        return {}
    first, last = int(starts[0]) + spec.input_steps, int(starts[-1]) + spec.span - 1
    return {"from": axis.isoformat(first), "to": axis.isoformat(last)}
