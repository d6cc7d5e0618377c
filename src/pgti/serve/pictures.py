"""The figures of the dashboard, drawn as those of reports are."""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from pgti.errors import ConfigError, PgtiError
from pgti.figures import graph_layout, sensor_map, series_lines
from pgti.run import Run
from pgti.serve.facts import about_forecasts, time_text
from pgti.serve.problems import RequestError
from pgti.serve.state import ServedRun
from pgti.store import SeriesStore

__all__ = ["Pictures"]

_MAX_RECENT = 288
_HEIGHT = 470


@dataclass(frozen=True, kw_only=True, slots=True)
class _Latest:
    """The latest forecasts of one channel as arrays.

    Attributes:
        times: of the steps, [H].
        values: of each column, such as "forecast" and "lo-80", [H, N].
    """

    times: list[Any]
    values: dict[str, Any]


class Pictures:
    """Draws the latest forecasts of a run.

    Args:
        served: the run.
    """

    def __init__(self, served: ServedRun) -> None:
        self._served = served
        self._layout = lru_cache(maxsize=1)(_layout_of)

    def state(self) -> dict[str, Any]:
        """What the page shows beside its figures, and what tells whether they are old."""
        model, frame = self._served.latest(self._served.model.intervals)
        origin = frame["origin"].iloc[-1]
        is_known = isinstance(origin, pd.Timestamp) and origin.tzinfo is not None
        latest = self._arrays(frame, model.run.source.target_names[0])
        return {
            **about_forecasts(model, frame),
            "version": f"{model.loaded:.3f} {id(frame)} {time_text(origin)}",
            "age_seconds": round(time.time() - origin.timestamp()) if is_known else None,
            "channels": list(model.run.source.target_names),
            "times": latest.times,
            "sensors": list(model.run.store.meta.node_ids),
        }

    def map(self, channel: str, step: int) -> str:
        """The forecasts of a step on the map, as plotly's JSON.

        Raises:
            RequestError: if there is no such channel or step.
        """
        model, frame = self._served.latest(self._served.model.intervals)
        run = model.run
        latest = self._arrays(frame, _channel_of(run, channel))
        if not 1 <= step <= len(latest.times):
            raise RequestError(422, f"step is {step}: it must be 1 to {len(latest.times)}")
        adjacency = run.store.graph.adjacency.tocoo()
        figure = sensor_map(
            self._layout(run),
            run.store.meta.node_ids,
            latest.values["forecast"][step - 1],
            label=f"forecast {_label(run, channel)}",
            edges=np.stack([adjacency.row, adjacency.col]),
            weights=adjacency.data,
            limits=_limits_of(latest.values["forecast"]),
            height=_HEIGHT,
        )
        return _json(figure)

    def sensor(self, sensor: str, channel: str) -> str:
        """Recent readings of a sensor and what is forecast of it, as plotly's JSON.

        Raises:
            RequestError: if there is no such sensor or channel.
        """
        model, frame = self._served.latest(self._served.model.intervals)
        run = model.run
        if sensor not in run.store.meta.node_ids:
            raise RequestError(404, f"the run has no sensor {sensor[:100]!r}: see /v1/metadata")
        latest = self._arrays(frame, _channel_of(run, channel))
        place = run.store.meta.node_ids.index(sensor)
        before, observed = self._recent(run, sensor, channel)
        gap, steps = [np.nan] * len(before), [np.nan] * len(latest.times)
        lines = {"observed": [*observed, *steps]}
        lines["forecast"] = [*gap, *latest.values["forecast"][:, place]]
        if observed and before:
            lines["forecast"][len(before) - 1] = observed[-1]  # the lines meet
        bands = {}
        for level in (f"{100 * each:.6g}" for each in reversed(model.intervals)):
            low, high = (latest.values[f"{end}-{level}"][:, place] for end in ("lo", "hi"))
            bands[f"{level}% interval"] = [*gap, *low], [*gap, *high]
        figure = series_lines(
            [*before, *latest.times],
            lines,
            label=_label(run, channel),
            bands=bands,
            height=_HEIGHT,
            x="time" if run.store.meta.time_zone is None else f"time ({run.store.meta.time_zone})",
        )
        figure.update_xaxes(nticks=5, tickangle=0)
        return _json(figure)

    def _arrays(self, frame: pd.DataFrame, channel: str) -> _Latest:
        """One channel of the forecasts, whose rows are steps, sensors and channels in order."""
        part = frame[frame["channel"] == channel]
        steps = part["horizon"].nunique()
        names = [name for name in part.columns if name == "forecast" or name[:3] in ("lo-", "hi-")]
        return _Latest(
            times=[_wall(each) for each in part["timestamp"].drop_duplicates()],
            values={name: part[name].to_numpy().reshape(steps, -1) for name in names},
        )

    def _recent(self, run: Run, sensor: str, channel: str) -> tuple[list[Any], list[float]]:
        """Times and readings of the newest rows; none where the rows are gone."""
        try:
            store = run.newest_store()[0]
            if run.newer is not None:
                store = SeriesStore.open(run.newer.path)
        except PgtiError:
            return [], []
        meta, axis = store.meta, store.time_axis
        if sensor not in meta.node_ids or channel not in meta.channels:
            return [], []
        count = min(max(4 * run.source.spec.input_steps, 24), _MAX_RECENT, meta.num_steps)
        first = meta.num_steps - count
        values = store.read(first, meta.num_steps)
        readings = values[:, meta.node_ids.index(sensor), meta.channels.index(channel)]
        rows = np.arange(first, meta.num_steps)
        times = [_wall(each) for each in axis.at(rows)] if axis.is_dated else rows.tolist()
        return times, readings.astype(float).tolist()


def _layout_of(run: Run) -> Any:
    return graph_layout(run.store.graph.adjacency, run.store.graph.coordinates)


def _channel_of(run: Run, channel: str) -> str:
    if channel not in run.source.target_names:
        raise ConfigError(
            f"channel is {channel[:100]!r}: it must be one of {', '.join(run.source.target_names)}"
        )
    return channel


def _label(run: Run, channel: str) -> str:
    unit = run.source.target_units[channel]
    return f"{channel} ({unit})" if unit else channel


def _limits_of(values: Any) -> tuple[float, float] | None:
    """Ends of the color bar for all steps alike."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, (2, 98)).tolist()
    return low, high if high > low else low + (abs(low) or 1.0)


def _wall(time_of: Any) -> str | int:
    """A time as the clock of the series shows it, which plotly draws as it is."""
    if isinstance(time_of, int | np.integer):
        return int(time_of)
    shown = pd.Timestamp(time_of)
    return shown.tz_localize(None).isoformat() if shown.tzinfo else shown.isoformat()


def _json(figure: Any) -> str:
    text: str = figure.to_json()
    return text
