"""The runs of a report: their stored errors, and which of them differ in their seed alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError
from pgti.forecasting import Report, step_heading
from pgti.run.run import Run
from pgti.training.compatibility import flat_settings

__all__ = ["ComparedRun", "Group", "compare_runs", "options_of"]

Floats = NDArray[np.float64]

_MAX_NAMED = 2  # options that tell groups apart


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ComparedRun:
    """A run and the errors of its test windows.

    Attributes:
        run: the run.
        name: of its directory.
        label: of its group, and its seed where the group has several.
        report: the stored errors; None if there are none.
    """

    run: Run
    name: str
    label: str
    report: Report | None

    @property
    def content(self) -> Mapping[str, Any]:
        """What `test.json` has; empty without it."""
        return {} if self.report is None else self.report.to_dict()["test"]

    @property
    def forecasters(self) -> tuple[str, ...]:
        """The name "model", and the baselines that were evaluated."""
        return () if self.report is None else ("model", *self.report.baselines)

    def of_target(self, forecaster: str, target: str) -> Mapping[str, Any]:
        """Metrics of a forecaster for one target."""
        errors = self.content if forecaster == "model" else self.content[forecaster]
        return errors if len(self.run.source.target_names) == 1 else errors["channels"][target]

    def by_horizon(self, forecaster: str, target: str, metric: str = "mae") -> Floats:
        """Errors at each horizon step, NaN where nothing was observed."""
        table = self.of_target(forecaster, target)[metric]
        return _floats(table[str(step)] for step in range(1, self.run.source.spec.horizon + 1))

    def has(self, breakdown: str, target: str) -> bool:
        """Whether the errors of a target are broken down so."""
        return target in self.content.get("by", {}).get(breakdown, {})

    def groups(self, breakdown: str, target: str) -> list[Any]:
        """What the groups of a breakdown are called."""
        return list(self.content["by"][breakdown][target]["names"])

    def by(self, breakdown: str, forecaster: str, target: str, metric: str = "mae") -> Floats:
        """Errors of each group over all steps; NaN where nothing was observed."""
        return _floats(self.content["by"][breakdown][target][forecaster][metric])

    def headings(self) -> list[str]:
        """Of the horizon steps, such as "15 min"."""
        seconds = self.run.store.time_axis.step_seconds
        return [step_heading(step + 1, seconds) for step in range(self.run.source.spec.horizon)]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Group:
    """Runs whose configuration differs in the seed alone.

    Attributes:
        label: what tells it from other groups.
        members: the runs.
    """

    label: str
    members: tuple[ComparedRun, ...]

    @property
    def evaluated(self) -> tuple[ComparedRun, ...]:
        """The members that have stored errors."""
        return tuple(each for each in self.members if each.report is not None)

    def stacked(self, of_one: Callable[[ComparedRun], Floats]) -> Floats:
        """The same numbers of every evaluated member, [members, ..]."""
        return np.stack([of_one(each) for each in self.evaluated])


def compare_runs(runs: Sequence[Run]) -> tuple[Group, ...]:
    """The runs in groups, in the order of their first members.

    Raises:
        ConfigError: if a run is given twice, or has other sensors, targets, units, steps or another
            horizon than the first.
    """
    places = [run.directory.path.resolve() for run in runs]
    for number, (run, place) in enumerate(zip(runs, places, strict=True)):
        if place in places[:number]:
            raise ConfigError(f"the run {run.directory.path} is given twice: give each run once")
    for run in runs[1:]:
        _check_same(runs[0], run)
    keys = [_plain(run) for run in runs]
    distinct: list[dict[str, Any]] = []
    for key in keys:
        if key not in distinct:
            distinct.append(key)
    names = _group_labels(distinct)
    groups = []
    for key, label in zip(distinct, names, strict=True):
        members = [run for run, other in zip(runs, keys, strict=True) if other == key]
        groups.append(Group(label=label, members=tuple(_members(members, label))))
    return tuple(groups)


def _members(runs: Sequence[Run], label: str) -> Iterator[ComparedRun]:
    seeds = [run.config.training.seed for run in runs]
    for run, seed in zip(runs, seeds, strict=True):
        name = run.directory.path.name
        own = f"seed {seed}" if len(set(seeds)) == len(seeds) else name
        yield ComparedRun(
            run=run,
            name=name,
            label=label if len(runs) == 1 else f"{label}, {own}",
            report=run.read_test(),
        )


def options_of(run: Run) -> dict[str, str]:
    """Every option of a run by its dotted name, as text; empty where it is not set."""
    return {name: _text_of(value) for name, value in flat_settings(asdict(run.config)).items()}


def _text_of(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _plain(run: Run) -> dict[str, str]:
    """The options that make a configuration, by dotted name; neither seed nor machine.

    Its store is that of its readings, which may have been moved.
    """
    flat = options_of(run)
    for name in ("training.seed", "store", "device", "training.checkpoint_every_minutes"):
        flat.pop(name, None)
    return flat | {"store": run.fingerprint[:12]}


def _group_labels(keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """Models' names, with the options that tell those of one model apart; numbered if many do."""
    labels = []
    for key in keys:
        model = key.get("model.name", "")
        rivals = [each for each in keys if each.get("model.name", "") == model]
        differing = [
            name for name in key if any(each.get(name) != key[name] for each in rivals)
        ]  # fmt: skip
        if not differing:
            labels.append(model)
        elif len(differing) <= _MAX_NAMED:
            options = ", ".join(f"{_option_name(name)} {key[name] or 'none'}" for name in differing)
            labels.append(f"{model} ({options})")
        else:
            labels.append(f"{model} {rivals.index(key) + 1}")
    return labels


def _option_name(name: str) -> str:
    return name.rsplit(".", maxsplit=1)[-1].replace("_", " ")


def _check_same(first: Run, other: Run) -> None:
    for what, ours, theirs in (
        ("sensors", first.store.meta.node_ids, other.store.meta.node_ids),
        ("targets", first.source.target_names, other.source.target_names),
        ("units", first.source.target_units, other.source.target_units),
        ("steps", first.store.time_axis.step_seconds, other.store.time_axis.step_seconds),
        ("horizon steps", first.source.spec.horizon, other.source.spec.horizon),
    ):
        if ours != theirs:
            raise ConfigError(
                f"the runs {first.directory.path} and {other.directory.path} have different "
                f"{what}, and a report compares runs of the same: write a report of each"
            )


def _floats(values: Any) -> Floats:
    return np.array([np.nan if each is None else each for each in values], dtype=np.float64)
