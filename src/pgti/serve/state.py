"""The model that a server forecasts with, loaded anew when its run has a better one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import pandas as pd

from pgti.errors import ConfigError, DataError, PgtiError, RunError
from pgti.run import Run
from pgti.run.intervals import with_intervals
from pgti.serve.metrics import ServeMetrics
from pgti.store.meta import META_FILE
from pgti.training.run_files import RunFiles

__all__ = ["ServedModel", "ServedRun"]

Log: TypeAlias = Callable[[str], None]
_Stamp: TypeAlias = tuple[int, ...] | None
_MAX_CACHED = 8


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ServedModel:
    """A run as it was when it was loaded.

    Attributes:
        run: that, with the parameters of its best checkpoint.
        intervals: probabilities of the intervals that it is calibrated for.
        loaded: when, in seconds from 1970.
    """

    run: Run
    intervals: tuple[float, ...]
    loaded: float


class ServedRun:
    """A run that forecasts for a server, one request after the other.

    Args:
        path: of the run.
        intervals: probabilities that it is calibrated for.
        metrics: that count forecasts and reloads.
        log: receives a line for each thing that happens.
        **options: of `Run.open`.

    Raises:
        PgtiError: as `Run.open`.
    """

    def __init__(
        self,
        path: Path,
        *,
        intervals: Sequence[float],
        metrics: ServeMetrics,
        log: Log,
        **options: Any,
    ) -> None:
        self._path, self._options, self._levels = path, options, tuple(intervals)
        self._metrics, self._log = metrics, log
        self._loading = Lock()
        self._latest: dict[tuple[float, ...], tuple[Any, pd.DataFrame]] = {}
        self._checkpoint = RunFiles(path).best_checkpoint
        self._stamp = _stamp_of(self._checkpoint)
        run = Run.open(path, **options)
        self.is_ready = False
        self._show(ServedModel(run=run, intervals=(), loaded=time.time()))

    @property
    def model(self) -> ServedModel:
        """The newest model that could be loaded."""
        return self._model

    def prepare(self) -> None:
        """Calibrate the intervals, and forecast once, as the first forecast takes longer.

        A run whose rows are gone is ready, too: newer readings will do.
        """
        with self._loading:
            self._show(self._calibrate(self._model.run))
        try:
            self.latest(())
        except PgtiError as error:
            self._log(f"requests have to bring readings: {error}")
        self.is_ready = True

    def reload_if_changed(self) -> None:
        """Load the best checkpoint if it is another one; one that is damaged changes nothing."""
        with self._loading:
            stamp = _stamp_of(self._checkpoint)
            if stamp is None or stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                model = self._calibrate(Run.open(self._path, **self._options))
            except Exception as error:  # noqa: BLE001 - the old model goes on
                self._metrics.reloads.labels("failed").inc()
                reason = " ".join(str(error).split())
                self._log(f"the new checkpoint cannot be loaded, the old model stays: {reason}")
                return
            self._show(model)
            self._metrics.reloads.labels("done").inc()
            self._log(f"loaded the checkpoint of epoch {model.run.epoch}")

    def forecast(
        self,
        readings: Any = None,
        *,
        future: Any = None,
        options: Mapping[str, Any] | None = None,
        intervals: Sequence[float] = (),
    ) -> tuple[ServedModel, pd.DataFrame]:
        """The forecasts, and the model that made them.

        Raises:
            PgtiError: as `Run.forecast`; if the model has no such intervals.
        """
        model, levels = self._model, tuple(sorted(set(intervals)))
        if not set(levels) <= set(model.intervals):
            served = ", ".join(f"{level:g}" for level in model.intervals) or "none"
            raise ConfigError(
                f"intervals are {', '.join(f'{level:g}' for level in levels)}: this server is "
                f"calibrated for {served}"
            )
        if readings is None and future is None:
            return model, self._latest_of(model, levels)
        return model, self._forecast(model, readings, future, options, levels)

    def latest(self, intervals: Sequence[float] = ()) -> tuple[ServedModel, pd.DataFrame]:
        """Forecasts from the store as it is now."""
        return self.forecast(intervals=intervals)

    def _latest_of(self, model: ServedModel, levels: tuple[float, ...]) -> pd.DataFrame:
        """Computed once for each model and state of the store."""
        run = model.run
        path = (run.latest if run.newer is None else run.newer).path
        key = model, _stamp_of(path / META_FILE)
        known = self._latest.get(levels)
        if known is not None and known[0] == key:
            return known[1]
        newer = None if run.newer is None else path  # opened again, as it may have grown
        frame = self._forecast(model, newer, None, None, levels)
        if len(self._latest) >= _MAX_CACHED:
            self._latest.clear()
        self._latest[levels] = key, frame
        return frame

    def _forecast(
        self,
        model: ServedModel,
        readings: Any,
        future: Any,
        options: Mapping[str, Any] | None,
        levels: tuple[float, ...],
    ) -> pd.DataFrame:
        with self._metrics.forecast_seconds.time():
            frame = model.run.forecast(
                readings, future=future, options=options, intervals=levels, log=_ignore
            )
        self._metrics.windows.inc()
        return frame

    def _calibrate(self, run: Run) -> ServedModel:
        levels = self._levels
        if levels:
            try:
                with_intervals(run, levels, source=run.source, first=0)
            except (ConfigError, DataError, RunError) as error:
                self._log(f"there are no intervals: {error}")
                levels = ()
        return ServedModel(run=run, intervals=levels, loaded=time.time())

    def _show(self, model: ServedModel) -> None:
        self._model = model
        self._latest.clear()  # what an older model forecast
        self._metrics.epoch.set(model.run.epoch or 0)
        self._metrics.loaded.set(model.loaded)


def _stamp_of(path: Path) -> _Stamp:
    """What changes when a file is replaced; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _ignore(_: str) -> None:
    """Notes are in the answer."""
