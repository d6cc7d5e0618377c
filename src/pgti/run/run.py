"""A trained run: load, evaluate, forecast."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.batching import BatchLoader, WindowSource, build_loader
from pgti.display import print_line
from pgti.distributed import Communicator
from pgti.errors import ConfigError
from pgti.forecasting import (
    AbstractForecaster,
    InputSummary,
    Metrics,
    Observer,
    RangeEdges,
    Report,
    forecast_frame,
    predict,
)
from pgti.ingestion.sources import ReadingsSource
from pgti.run.evaluated_windows import EvaluatedWindows
from pgti.run.evaluation import evaluate_windows
from pgti.run.intervals import check_adaptive, with_intervals
from pgti.run.loaded import LoadedRun
from pgti.run.newer import NewerOptions, NewerReadings
from pgti.run.plots import RunPlots
from pgti.run.selection import ForecastSummary, SelectedWindows, Selection, TimeLike
from pgti.windows import SplitName

__all__ = ["Log", "Run"]

Log: TypeAlias = Callable[[str], None]
"""Writes a line for the user."""

_MAX_LOGGED_NOTES = 1000  # some name times, and a service runs for years


class Run(LoadedRun):
    """A trained run: evaluate it, forecast with it, look at it.

    `Run.open(path)` loads one; `pgti.train` returns one. Its parts are documented at `LoadedRun`.
    """

    # -- evaluate ---------------------------------------------------------------------------------

    def evaluate(  # noqa: PLR0913 - each names one part of an evaluation
        self,
        splits: SplitName | Sequence[SplitName] | NewerReadings | None = None,
        *,
        between: tuple[TimeLike | None, TimeLike | None] | None = None,
        options: NewerOptions = None,
        max_windows: int | None = None,
        batch_size: int | None = None,
        metrics: Metrics | None = None,
        mape_threshold: float = 1e-3,
        ranges: RangeEdges | None = None,
        intervals: Sequence[float] = (),
        adaptive: bool = False,
        baselines: Sequence[str] | None = None,
        observers: Sequence[Observer] = (),
    ) -> Report:
        """Metrics on splits or on newer readings, in original units, beside those of baselines.

        The baselines, the ranges of the target and what the inputs are compared with are those of
        the run's own training rows, whatever is evaluated.

        Args:
            splits: "train", "val", "test" (the default), or several of them; or newer readings of
                the run's sensors, as `forecast` takes them: a store, a DataFrame or a file, every
                window of which is evaluated. Their errors are called "newer".
            between: only the windows whose first forecast step lies in [first, last], two
                wall-clock times, None for an end that is open, and whose whole horizon lies in the
                series: of newer readings, or else of the run's store as it is now. Their errors are
                called "between".
            options: how to read newer readings that are a table or a file, where that is not as in
                training.
            max_windows: windows of each split at most, spread evenly over it; None takes all.
            batch_size: windows per batch, over all ranks together; by default that of the run's
                validation. The errors do not depend on it.
            metrics: of your own by name, as for `pgti.train`; by default those of training.
            mape_threshold: MAPE leaves out targets up to this magnitude, in their unit.
            ranges: values at which one range of the target ends and the next begins, such as
                (30, 50), or {"speed": (30, 50)} where there are several targets; by default a
                tenth, half and nine tenths of the training readings lie below them.
            intervals: probabilities to cover, such as (0.8, 0.95), of conformal intervals that are
                calibrated on the validation windows: adds `crps`, `coverage_80` and `width_80`.
            adaptive: let intervals follow the outcomes that each forecast knows; in one process.
            baselines: such as "persistence", "historical-average", "seasonal-naive" (the default),
                "ridge", "lightgbm" and "chronos:PATH", as `pgti evaluate` explains them.
            observers: shown the progress.

        Returns:
            The errors; `to_frame()` and `to_dict()` give them as a table and as plain values,
            `by("sensor")`, `by("hour")`, `by("weekday")`, `by("hour-of-week")` and `by("range")`
            break them down.

        Raises:
            ConfigError: if there is no such split or no window, or an option breaks its rule.
            DataError: if the newer readings are not of the run's sensors, channels and interval,
                or break a rule.
            RunError: if the run's own series is needed and its store is gone.
        """
        chosen = EvaluatedWindows.of(splits, between, options)
        with ExitStack() as held:
            with self.communicator.raise_together():
                source, windows, notes = held.enter_context(chosen.open(self))
            return evaluate_windows(
                self,
                windows,
                source,
                max_windows=max_windows,
                batch_size=batch_size,
                metrics=metrics,
                mape_threshold=mape_threshold,
                ranges=ranges,
                intervals=intervals,
                adaptive=adaptive,
                baselines=baselines,
                observers=observers,
                notes=notes,
            )

    # -- forecast ---------------------------------------------------------------------------------

    def forecast(  # noqa: PLR0913 - each says one thing about the forecasts
        self,
        readings: NewerReadings | None = None,
        *,
        split: SplitName | None = None,
        between: tuple[TimeLike, TimeLike] | None = None,
        options: NewerOptions = None,
        future: ReadingsSource | None = None,
        names: Literal["pgti", "neuralforecast"] = "pgti",
        intervals: Sequence[float] = (),
        adaptive: bool = False,
        log: Log | None = None,
        observers: Sequence[Observer] = (),
    ) -> pd.DataFrame:
        """Forecast into a table, one row per origin, horizon step, sensor and channel.

        Without further arguments, the steps after the end of the series are forecast: of the run's
        store as it is now, which may have grown.

        Args:
            readings: newer readings of the run's sensors to forecast from: a DataFrame (a row each
                step, a column each sensor), a file that `pgti.ingest` reads, or a store. Sensors
                are matched by id and channels by name; a file, a table and an array are read as
                the run's own source was (scale, missing codes, clock), a store as it is.
            split: forecast the windows of this split instead.
            between: forecast the windows whose first forecast step lies in [first, last], two
                wall-clock times (ISO 8601 or anything with that `str`), instead.
            options: how to read `readings` that are a table or a file, where that is not as in
                training: an `IngestOptions`, or its options by name; without `readings`, `future`.
            future: values of channels known in advance after the last reading, from a source of
                their own; where it has none, those of the store or of `readings` count.
            names: "neuralforecast" names the columns `unique_id, ds, cutoff, MODEL, y`, with the
                model's name, and MODEL-lo-80, MODEL-hi-80 and MODEL-ql0.1 those of intervals and
                quantiles; several channels become "SENSOR/CHANNEL".
            intervals: probabilities of conformal intervals, as in `evaluate`.
            adaptive: as in `evaluate`; outcomes before the first forecast are counted, too.
            log: receives a line for each thing that was put right, filled or left out; by default
                each goes to standard error, once for this run however often it forecasts.
            observers: shown the progress.

        Returns:
            Columns `timestamp` (of the forecast value), `origin` (time of the last input),
            `horizon` (steps, from 1), `sensor`, `channel`, `forecast` and `observed` (missing
            where unknown), both in original units, those of a run with quantiles by their level
            ("0.1", "0.5", "0.9"), the ends of intervals by their percentage ("lo-80", "hi-80"),
            `missing_inputs` (inputs of the sensor and
            channel that are missing in the window) and `missing_newest` (those after its last
            reading: 0 if the last input was observed, `input_steps` if none was). The lines that
            `log` receives are in its `attrs["notes"]`.

        Raises:
            ConfigError: if the choices contradict one another, there is nothing to forecast, or
                the table would not fit into memory.
            DataError: if the newer readings are not of the run's sensors, channels and interval,
                or break a rule.
            RunError: if the run's own series is needed and its store is gone.
        """
        if names not in ("pgti", "neuralforecast"):
            raise ConfigError(f"names is {names!r}: it must be one of pgti, neuralforecast")
        selection = Selection(
            readings=readings,
            split=split,
            between=between,
            options=options,
            future=future,
            with_past=adaptive,
        )
        with self._select(selection, intervals, log, observers) as (selected, forecaster, summary):
            frame = forecast_frame(
                forecaster,
                selected.batches,
                selected.labels,
                num_windows=selected.summary.windows,
                horizon=self.source.spec.horizon,
                model=self.config.model.name if names == "neuralforecast" else None,
                observers=observers,
            )
            frame.attrs["notes"] = list(summary.notes)
            return frame

    def predict(  # noqa: PLR0913 - each says one thing about the forecasts
        self,
        out: str | Path,
        readings: NewerReadings | None = None,
        *,
        split: SplitName | None = None,
        between: tuple[TimeLike, TimeLike] | None = None,
        options: NewerOptions = None,
        future: ReadingsSource | None = None,
        intervals: Sequence[float] = (),
        adaptive: bool = False,
        inputs: InputSummary | None = None,
        log: Log | None = None,
        observers: Sequence[Observer] = (),
    ) -> ForecastSummary:
        """Write what `forecast` returns to a CSV, Parquet or NPZ file, in bounded memory.

        Args:
            out: the file; its suffix names the format (see `pgti.forecasting.predict`).
            readings: as in `forecast`.
            split: as in `forecast`.
            between: as in `forecast`.
            options: as in `forecast`.
            future: as in `forecast`.
            intervals: as in `forecast`.
            adaptive: as in `forecast`.
            inputs: counts what is missing in the inputs.
            log: as in `forecast`.
            observers: shown the progress.

        Returns:
            How many windows, from which readings, and what was put right.

        Raises:
            PgtiError: as `forecast`; if the file cannot be written.
        """
        selection = Selection(
            readings=readings,
            split=split,
            between=between,
            options=options,
            future=future,
            with_past=adaptive,
        )
        with self._select(selection, intervals, log, observers) as (selected, forecaster, summary):
            predict(
                forecaster,
                selected.batches,
                selected.labels,
                out,
                inputs=inputs,
                observers=observers,
            )
            return summary

    # -- plot -------------------------------------------------------------------------------------

    @property
    def plot(self) -> RunPlots:
        """Figures of the run: called, a first look; `plot.forecast`, `plot.map` and others alone.

        They need plotly (the extra `report`). See `pgti.run.plots.RunPlots`.
        """
        return RunPlots(self)

    # -- report -----------------------------------------------------------------------------------

    def report(self, out: str | Path, *, intervals: Sequence[float] = ()) -> Path:
        """Write one HTML file that shows where and when the run is wrong; it opens offline.

        Args:
            out: the file, which is replaced; its suffix is .html.
            intervals: probabilities of conformal intervals to draw; by default those that the run
                was calibrated for before, or the quantiles that it forecasts.

        Returns:
            The file.

        Raises:
            PgtiError: as `pgti.write_report`, which also takes several runs.
        """
        from pgti.run.reporting.write import write_report  # noqa: PLC0415 - it imports this class

        return write_report(self, out, intervals=intervals)

    def _loader(
        self,
        starts: range | NDArray[np.int64],
        source: WindowSource,
        *,
        with_targets: bool = True,
        communicator: Communicator | None = None,
    ) -> BatchLoader:
        """Batches in time order; index-batching, whose bits are those of every strategy."""
        world_size = 1 if communicator is None else communicator.world_size
        return build_loader(
            source,
            starts,
            self.config.training.evaluated_at_once(world_size),
            device=self.device,
            communicator=communicator,
            with_targets=with_targets,
        )

    @contextmanager
    def _select(
        self,
        selection: Selection,
        intervals: Sequence[float],
        log: Log | None = None,
        observers: Sequence[Observer] = (),
    ) -> Iterator[tuple[SelectedWindows, AbstractForecaster, ForecastSummary]]:
        """The windows to forecast, what forecasts them, with intervals, and their summary."""
        self.require_all_sensors()
        adaptive = selection.with_past
        check_adaptive(intervals, adaptive=adaptive)
        with selection.open(self, self._loader) as selected:
            forecaster: AbstractForecaster = self.forecaster
            summary = selected.summary
            if len(intervals):
                forecaster, notes = with_intervals(
                    self, intervals, source=selected.source, first=selected.first, adaptive=adaptive
                )
                summary = replace(summary, notes=(*summary.notes, *notes))
            for note in summary.notes:
                if log is not None:
                    log(note)
                elif note not in self.logged_notes:
                    if len(self.logged_notes) >= _MAX_LOGGED_NOTES:
                        self.logged_notes.clear()
                    self.logged_notes.add(note)
                    print_line(note)
            for observer in observers:
                observer.begin("forecasting", summary.windows)
            yield selected, forecaster, summary
