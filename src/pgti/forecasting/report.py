"""`Report`: the errors of an evaluation, to look at, to compute with and to store."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from pgti.display import count_of, shorten
from pgti.errors import ConfigError
from pgti.forecasting.breakdowns import breakdown_frame
from pgti.forecasting.drift import describe_drift, drift_frame
from pgti.forecasting.metrics import add_average
from pgti.forecasting.scores import is_score, metric_label
from pgti.windows import SPLIT_NAMES

__all__ = ["Report", "step_heading"]

_NUM_SHOWN = 4
_MAX_ROWS = 16


class Report:
    """Errors of a model and the baselines on splits, in original units.

    `report["test"]` is the report of one split. Where there is a single split, `mae`, `rmse` and
    `mape` are the model's errors over all steps and targets.

    Args:
        splits: for each split, what `evaluation_report` returns, with "windows" (evaluated) and
            "split_windows" (of the split).
        model: name of the model.
        units: unit of each target channel by name, "" where unknown.
        interval_seconds: seconds between two horizon steps; None where unknown.
        metrics: names of the metrics.
        notes: what is worth knowing about the evaluation, one line each.
        peak_device_bytes: the most that tensors took on a rank's GPU; None on a CPU.

    Attributes:
        model, units, interval_seconds, metrics, peak_device_bytes: as given.
    """

    def __init__(
        self,
        splits: Mapping[str, Mapping[str, Any]],
        *,
        model: str,
        units: Mapping[str, str],
        interval_seconds: int | None = None,
        metrics: Sequence[str] = ("mae", "rmse", "mape"),
        notes: Sequence[str] = (),
        peak_device_bytes: int | None = None,
    ) -> None:
        self._splits = {name: _complete(content) for name, content in splits.items()}
        self.model = model
        self.units = dict(units)
        self.interval_seconds = interval_seconds
        self.metrics = tuple(metrics)
        self._notes = tuple(notes)
        self.peak_device_bytes = peak_device_bytes

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing, one line each: inputs far from those of training among it."""
        drifts = {k: each["drift"] for k, each in self._splits.items() if "drift" in each}
        lines = {name: describe_drift(drift, self.units) for name, drift in drifts.items()}
        return (*self._notes, *(f"{name}: {line}" for name, line in lines.items() if line))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self._splits)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines."""
        return _baselines_of(next(iter(self._splits.values())))

    def __getitem__(self, split: str) -> "Report":
        if split not in self._splits:
            raise ConfigError(
                f"split {split!r} was not evaluated: the report has {', '.join(self._splits)}"
            )
        return Report(
            {split: self._splits[split]},
            model=self.model,
            units=self.units,
            interval_seconds=self.interval_seconds,
            metrics=self.metrics,
            notes=self._notes,
        )

    @property
    def mae(self) -> float | None:
        """Mean absolute error of the model, in the target's unit; None without observations."""
        return self.mean("mae")

    @property
    def rmse(self) -> float | None:
        """Root mean squared error of the model, in the target's unit."""
        return self.mean("rmse")

    @property
    def mape(self) -> float | None:
        """Mean absolute percentage error of the model, in percent."""
        return self.mean("mape")

    @property
    def num_windows(self) -> int:
        """Windows that were evaluated."""
        return int(self._only["windows"])

    @staticmethod
    def name(split: str) -> str:
        """What titles call a split, or other windows: "test", "newer readings"."""
        return {"newer": "newer readings", "between": "a range of time"}.get(split, split)

    @property
    def better_baselines(self) -> dict[str, float]:
        """Baselines whose MAE is smaller than the model's, with their MAE."""
        maes = {name: self._only[name]["mae"]["mean"] for name in self.baselines}
        mae = self.mae
        if mae is None:
            return {}
        return {name: each for name, each in maes.items() if each is not None and each < mae}

    def mean(self, metric: str) -> float | None:
        """A metric of the model over all steps and targets; None without observations.

        Every observed target weighs the same; `average` gives every step the same weight.

        Raises:
            ConfigError: if there is no such metric, or the report has several splits.
        """
        return self._total(metric, "mean")

    def average(self, metric: str) -> float | None:
        """The mean over the horizon steps of the model's errors, as many published tables have it.

        Raises:
            ConfigError: if there is no such metric, or the report has several splits.
        """
        return self._total(metric, "average")

    def _total(self, metric: str, key: str) -> float | None:
        if metric not in self.metrics:
            raise ConfigError(
                f"metric {metric!r} was not computed: the report has {', '.join(self.metrics)}"
            )
        value: float | None = self._only[metric][key]
        return value

    @property
    def _only(self) -> dict[str, Any]:
        if len(self._splits) != 1:
            raise ConfigError(
                f"the report has the splits {', '.join(self._splits)}: choose one first, such as "
                f"report[{next(iter(self._splits))!r}]"
            )
        return next(iter(self._splits.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `pgti evaluate --json` prints them.

        For each split {"mae": {"1": .., "mean": .., "average": ..}, "rmse": .., "mape": ..,
        "count": .., "persistence": {the same}, "historical-average": {the same}}, MAPE in percent.
        Where there are several targets, each of the three also has "channels": {name: {the metrics
        of that target alone}}. "windows" says how many windows were evaluated, "split_windows" how
        many the split has, and "mape_threshold" which targets MAPE counts.

        "by" has the breakdowns, {"sensor": {channel: {"names": [..], "model": {"mae": [..], ..,
        "count": [..]}, "persistence": ..}}, "hour": .., "weekday": .., "hour-of-week": ..,
        "range": ..}, and "drift" the inputs beside those of training.
        """
        return {name: dict(content) for name, content in self._splits.items()}

    def to_frame(self, *, by_horizon: bool = True) -> pd.DataFrame:
        """A row for each split, forecaster, channel and horizon step.

        Columns: `split`, `forecaster`, `channel` (missing in the rows of all targets together,
        where there are several), `horizon` (steps from 1), a column per metric, and `count`, the
        observed targets of all steps.

        Args:
            by_horizon: False gives the errors over all steps, without the column `horizon`, and
                with a column `METRIC_average` per metric: the mean of the steps' errors.
        """
        averages = () if by_horizon else self.metrics
        rows = [
            {"split": split, "forecaster": forecaster, "channel": channel}
            | ({"horizon": int(key)} if by_horizon else {})
            | {name: errors[name][key] for name in self.metrics if name in errors}
            | {"count": errors["count"]}
            | {f"{name}_average": errors[name]["average"] for name in averages if name in errors}
            for split, forecaster, channel, errors in self._tables()
            for key in errors["mae"]
            if key.isdigit() == by_horizon and key != "average"
        ]
        texts = dict.fromkeys(("split", "forecaster", "channel"), "str")
        numbers = dict.fromkeys(
            (*self.metrics, *(f"{name}_average" for name in averages)), "float64"
        )
        return pd.DataFrame(rows).astype(texts | numbers)

    def check(self) -> None:
        """Make every table, which raises something if a stored report was damaged."""
        steps = set(self.shown_steps())
        for split, forecaster, channel, errors in self._tables():
            tables = [errors[name] for name in self.metrics if name in errors]
            values = [errors["count"], *(value for table in tables for value in table.values())]
            known = all(steps <= set(table) for table in tables) and all(
                value is None or isinstance(value, int | float) for value in values
            )
            if not known or (channel is None and set(errors["channels"]) != set(self.units)):
                raise ValueError(f"{forecaster} has no errors of some steps or targets of {split}")
        for split, content in self._splits.items():
            if not all(isinstance(content.get(name, ""), str) for name in ("from", "to")):
                raise ValueError(f"{split} begins or ends at no time")
            forecasters = {"model", *_baselines_of(content)}
            for breakdown, of_targets in content.get("by", {}).items():
                if not all(forecasters <= set(each) for each in of_targets.values()):
                    raise ValueError(f"a forecaster has no errors by {breakdown} of {split}")
        self.title  # noqa: B018 - counts its windows
        self.to_frame()
        self.to_frame(by_horizon=False)
        self.summary()
        for breakdown in self.breakdowns:
            self.by(breakdown)
        if all("drift" in content for content in self._splits.values()):
            self.drift  # noqa: B018 - computes it
            self.drift_by_sensor  # noqa: B018
            self.notes  # noqa: B018

    @property
    def breakdowns(self) -> tuple[str, ...]:
        """What `by` takes: "sensor", and those of the others that are known."""
        return tuple(next(iter(self._splits.values())).get("by", {}))

    def by(self, breakdown: str) -> pd.DataFrame:
        """Errors over all steps, a row for each split, forecaster, channel and group.

        Columns: `split`, `forecaster`, `channel`, the name of the breakdown, a column per metric,
        and `count`, the observed targets.

        Args:
            breakdown: "sensor"; "hour" (0 to 23), "weekday" or "hour-of-week" ("Monday 17:00") of
                the target's time on the series' clock; or "range" of the target's value. Without
                an observed target, sensors have no error and other groups are left out.

        Raises:
            ConfigError: if the report has no such breakdown.
        """
        if breakdown not in self.breakdowns:
            known = f"it has {', '.join(self.breakdowns)}" if self.breakdowns else "it has none"
            raise ConfigError(
                f"the errors are not broken down by {breakdown!r}: {known}; evaluate the run again "
                "for those of its series"
            )
        return breakdown_frame(self._splits, breakdown, self.model, self.metrics)

    @property
    def drift(self) -> pd.DataFrame:
        """The inputs beside those of training: a row for each split and input channel.

        Columns: `split`, `channel`, `mean`, `training_mean`, `std`, `training_std` (in the
        channel's unit), `missing`, `training_missing` (shares of the readings), `outside` (share of
        the observed readings outside the range of training), `psi`, the population stability index
        (above 0.1 it means a moderate shift, above 0.25 a major one), and `shift`, the mean of
        reading minus typical reading of that sensor at that time, in standard deviations of
        training: a few hours alone have a large `psi` and no shift.

        Raises:
            ConfigError: if the report is of an earlier version and has none.
        """
        return drift_frame(self._splits, "channels")

    @property
    def drift_by_sensor(self) -> pd.DataFrame:
        """The five sensors of each split and channel with the largest shift.

        Columns: `split`, `channel`, `sensor`, `shift`, `missing` and `outside`, as in `drift`.

        Raises:
            ConfigError: if the report is of an earlier version and has none.
        """
        return drift_frame(self._splits, "sensors")

    def _tables(self) -> Iterator[tuple[str, str, str | None, Mapping[str, Any]]]:
        """Split, forecaster, channel (None for all of several) and errors."""
        only = None if len(self.units) > 1 else next(iter(self.units))
        for split, content in self._splits.items():
            baselines = {name: content[name] for name in _baselines_of(content)}
            for forecaster, errors in {self.model: content, **baselines}.items():
                yield split, forecaster, only, errors
                for channel, of_channel in errors.get("channels", {}).items():
                    yield split, forecaster, channel, of_channel

    def shown_steps(self) -> dict[str, str]:
        """A few horizon steps, always the last, mean and average: their headings by key."""
        keys = [key for key in next(iter(self._splits.values()))["mae"] if key.isdigit()]
        stride = -(-len(keys) // _NUM_SHOWN)
        chosen = keys[::-stride][::-1]
        return {key: step_heading(int(key), self.interval_seconds) for key in chosen} | {
            "mean": "mean",
            "average": "average",
        }

    def summary(self) -> pd.DataFrame:
        """What `repr` shows: metrics of each split, channel and forecaster at a few steps."""
        steps = self.shown_steps()
        several = len(self._splits) > 1
        rows = {
            (
                *((split,) if several else ()),
                *((channel or "all",) if len(self.units) > 1 else ()),
                forecaster,
                metric_label(metric),
            ): [errors[metric][key] for key in steps]
            for split, forecaster, channel, errors in self._tables()
            for metric in self.metrics
            if metric in errors and not metric.startswith("pinball_")
        }
        index = pd.MultiIndex.from_tuples(list(rows))
        return pd.DataFrame(
            list(rows.values()), index=index, columns=list(steps.values()), dtype="float64"
        )

    @property
    def title(self) -> str:
        """Splits, windows and targets, in one line."""
        windows = ", ".join(
            f"{self.name(name)} ({_extent(name, each)})" for name, each in self._splits.items()
        )
        targets = shorten(
            [f"{name} in {unit}" if unit else name for name, unit in self.units.items()]
        )
        return f"{self.model} on {windows}: {targets}"

    def __repr__(self) -> str:
        shown, rest = self._few_rows()
        table = shown.to_string(float_format="{:.3f}".format, na_rep="-")
        return f"{self.title}\n{table}{rest}"

    def _repr_html_(self) -> str:
        shown, rest = self._few_rows()
        table = shown.to_html(float_format="{:.3f}".format, na_rep="-")
        return f"<p>{self.title}</p>{table}<p>{rest}</p>"

    def _few_rows(self) -> tuple[pd.DataFrame, str]:
        """A few rows of the summary, and what they leave out: RMSE, MAPE and own metrics."""
        table = self.summary()
        if len(table) <= _MAX_ROWS:
            return table, ""
        named = [metric_label(name) for name in self.metrics if name == "mae" or is_score(name)]
        table = table[table.index.isin(named, level=-1)]
        left_out = "the other metrics"
        if len(table) > _MAX_ROWS:
            table, left_out = table.head(12), "the other rows and metrics"
        return table, f"\n(to_frame() has {left_out})"


def _baselines_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(k for k, each in content.items() if isinstance(each, Mapping) and "count" in each)


def _complete(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a split with averages, which reports of 0.1 lack."""
    if "mean" in content and "1" in content and "average" not in content:
        return dict(add_average(content))
    return {
        name: _complete(each) if isinstance(each, Mapping) else each
        for name, each in content.items()
    }


def step_heading(step: int, interval_seconds: int | None) -> str:
    """What a table calls a horizon step: "60 min" and "24 h", up to two of the next unit."""
    if interval_seconds is None:
        return f"step {step}"
    seconds = step * interval_seconds
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds % size == 0 and (unit == "min" or seconds >= 3 * size):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _extent(name: str, content: Mapping[str, Any]) -> str:
    """How many windows were evaluated; where they are no split, also the time of their targets."""
    evaluated, total = content["windows"], content["split_windows"]
    share = f"{evaluated:,} of " if evaluated != total else ""
    extent = share + count_of(total, "window")
    if name in SPLIT_NAMES or "from" not in content:
        return extent
    return f"{extent}, {content['from']} to {content['to']}"
