"""A study of models: configurations times seeds on one store, each trained as users train it.

A study may be interrupted and resumed: finished trainings stay in its working directory, and a
training that was interrupted resumes from its last checkpoint.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, PgtiError, RunError, require_whole_number
from pgti.run.config import read_toml
from pgti.run.results import Machine, Spread
from pgti.run.study_processes import StudyTraining, run_trainings
from pgti.store import SeriesStore

__all__ = ["METRICS", "StudiedModel", "StudyResult", "study"]

METRICS = ("mae", "rmse", "mape")
_BASELINES = ("persistence", "historical-average")
_PUBLISHED_STEPS = ("3", "6", "12")  # of the field's tables: 15, 30, 60 minutes of five-minute data


@dataclass(frozen=True, kw_only=True, slots=True)
class StudiedModel:
    """A row of the table.

    Attributes:
        model: its name.
        seeds: of the finished trainings.
        parameters: number of trainable parameters; 0 for a baseline.
        errors: test metrics over the seeds, by metric and horizon step ("1", "2", .. and "mean");
            MAE and RMSE in the target's unit, MAPE in per cent.
        epochs: trained, over the seeds; None for a baseline.
        best_epoch: whose parameters were tested; None for a baseline.
        seconds_per_epoch: of training and validation; None for a baseline.
        peak_pss_bytes: of the process; None for a baseline, or where it is not reported.
    """

    model: str
    seeds: tuple[int, ...]
    parameters: int
    errors: Mapping[str, Mapping[str, Spread]]
    epochs: Spread | None = None
    best_epoch: Spread | None = None
    seconds_per_epoch: Spread | None = None
    peak_pss_bytes: Spread | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """The result of `study`.

    Attributes:
        store: the store.
        models: the rows of the table, the baselines first.
        test_windows: number of test windows.
        threads: of each training.
        jobs: trainings at the same time, which shared the machine.
        machine: where they ran.
        left_out: what is missing, and why.
    """

    store: str
    models: tuple[StudiedModel, ...]
    test_windows: int
    threads: int
    jobs: int
    machine: Machine
    left_out: tuple[str, ...]

    @property
    def shown_steps(self) -> tuple[str, ...]:
        """The horizon steps of a table: those of the literature if it has them, else the last."""
        steps = [step for step in self.models[0].errors["mae"] if step != "mean"]
        shown = tuple(step for step in _PUBLISHED_STEPS if step in steps)
        return shown or (steps[-1],)

    def to_markdown(self) -> str:
        """A table in Markdown, a row per model, by mean MAE: metrics with spread, and the cost."""
        columns = [(metric, step) for metric in METRICS for step in self.shown_steps]
        titles = ["model", "seeds", *(f"{metric.upper()} {step}" for metric, step in columns)]
        titles += ["epochs (best)", "s/epoch", "peak MiB", "parameters"]
        lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
        for row in sorted(self.models, key=lambda row: row.errors["mae"]["mean"].median):
            cells = [row.model, str(len(row.seeds)) if row.seeds else "-"]
            cells += [_with_spread(row.errors[metric].get(step)) for metric, step in columns]
            epochs, best = _median(row.epochs), _median(row.best_epoch)
            cells += [f"{epochs} ({best})" if row.epochs else "-", _median(row.seconds_per_epoch)]
            cells += [_median(row.peak_pss_bytes, 2**20)]
            cells += [f"{row.parameters:,}" if row.parameters else "-"]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def study(
    store: SeriesStore,
    configs: Sequence[Path],
    *,
    workdir: Path,
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
    test_windows: int | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> StudyResult:
    """Train every configuration with every seed, each in a process, and collect the test metrics.

    Args:
        store: to train on.
        configs: TOML files as for `pgti train --config`, each of another model.
        workdir: where runs and results stay; finished trainings are not repeated.
        seeds: of every model.
        jobs: trainings at the same time, which share the cores.
        test_windows: maximum number of test windows; all if not given.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: an argument is out of range; the working directory has trainings of another
            store or configuration; or the configurations test on different windows.
        RunError: no training succeeded.
    """
    _check(seeds, jobs, test_windows, configs)
    contents = {config: read_toml(config) for config in configs}
    names = [_model_of(config, content) for config, content in contents.items()]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two configurations train the model {name!r}: a study has one row per model"
            )
    trainings = [
        StudyTraining(
            model=name,
            config=config,
            seed=seed,
            directory=workdir / f"{name.replace(':', '-')}-{seed}",
            identity=_identity(store, contents[config], test_windows),
        )
        for config, name in zip(contents, names, strict=True)
        for seed in seeds
    ]
    machine = Machine.here()
    threads = max(1, machine.cores // jobs)
    measured = {"cpu": machine.cpu, "threads": threads, "jobs": jobs, **machine.versions}
    found = {training: training.read_result() for training in trainings}
    waiting = [training for training in trainings if found[training] is None]
    log(f"{len(trainings)} trainings, {len(waiting)} of them not finished; {threads} threads each")
    failures: dict[StudyTraining, PgtiError] = {}
    for training, result in run_trainings(
        waiting,
        lambda training: training.command(store.path, test_windows),
        jobs=jobs,
        threads=threads,
        log=log,
    ):
        if isinstance(result, PgtiError):
            failures[training] = result
        else:
            found[training] = result | {"measured": measured}
            training.write_result(result | {"measured": measured})
    left_out = [f"{each.name}: {failures[each]}" for each in trainings if each in failures]
    results = {training: result for training, result in found.items() if result is not None}
    if not results:
        raise RunError(f"nothing was trained: {'; '.join(left_out)}")
    _check_same_test(results)
    if any(result.get("measured") != measured for result in results.values()):
        left_out.append(
            "some trainings are of an earlier call with other jobs, threads, versions or machine: "
            "seconds and bytes are not comparable, and results may differ between versions"
        )
    rows = [_row(name, results) for name in names]
    test = next(iter(results.values()))["test"]
    return StudyResult(
        store=str(store.path),
        models=(*_baseline_rows(test), *(row for row in rows if row is not None)),
        test_windows=test["windows"],
        threads=threads,
        jobs=jobs,
        machine=machine,
        left_out=tuple(left_out),
    )


def _check(
    seeds: Sequence[int], jobs: int, test_windows: int | None, configs: Sequence[Path]
) -> None:
    require_whole_number("jobs", jobs, 1)
    if test_windows is not None:
        require_whole_number("test_windows", test_windows, 1)
    if not configs or not seeds:
        raise ConfigError("a study needs at least one configuration and one seed")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {tuple(seeds)}: each must be different")


def _model_of(config: Path, content: Mapping[str, Any]) -> str:
    """The name of the model that a configuration trains."""
    table = content.get("model", {})
    name = table.get("name", "dcrnn") if isinstance(table, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f'{config}: model must be a table such as [model] with name = "dcrnn"')
    return name


def _identity(store: SeriesStore, content: Mapping[str, Any], test_windows: int | None) -> str:
    """A digest of everything that two results must share to be the same training's."""
    text = json.dumps([store.fingerprint, content, test_windows], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_same_test(results: Mapping[StudyTraining, Mapping[str, Any]]) -> None:
    """Refuse a table of different tests: the metrics of persistence tell them apart.

    Raises:
        ConfigError: naming two trainings.
    """
    (first, one), *others = results.items()
    expected = _persistence_metrics(one["test"])
    for training, other in others:
        found = _persistence_metrics(other["test"])
        # Other batch sizes round differently.
        if found.shape != expected.shape or not np.allclose(
            found, expected, rtol=1e-9, atol=0, equal_nan=True
        ):
            raise ConfigError(
                f"{first.config} and {training.config} test on different windows or targets: give "
                "all configurations the same horizon, split and targets"
            )


def _persistence_metrics(test: Mapping[str, Any]) -> NDArray[np.float64]:
    found = test["persistence"]
    values = [value for metric in METRICS for value in found[metric].values()]
    return np.array([test["windows"], found["count"], *values], dtype=np.float64)


def _row(model: str, results: Mapping[StudyTraining, Mapping[str, Any]]) -> StudiedModel | None:
    """A model's figures over its seeds; None if no seed finished."""
    found = {each.seed: result for each, result in results.items() if each.model == model}
    if not found:
        return None
    runs = [found[seed] for seed in sorted(found)]
    peaks = [run["peak_pss_bytes"] for run in runs if run["peak_pss_bytes"] is not None]
    return StudiedModel(
        model=model,
        seeds=tuple(sorted(found)),
        parameters=runs[0]["parameters"],
        errors=_errors([run["test"] for run in runs]),
        epochs=Spread.of([run["epochs"] for run in runs]),
        best_epoch=Spread.of([run["best_epoch"] for run in runs]),
        seconds_per_epoch=Spread.of([run["training_seconds"] / run["epochs"] for run in runs]),
        peak_pss_bytes=Spread.of(peaks) if peaks else None,
    )


def _baseline_rows(test: Mapping[str, Any]) -> Iterator[StudiedModel]:
    for name in _BASELINES:
        if name in test:
            yield StudiedModel(model=name, seeds=(), parameters=0, errors=_errors([test[name]]))


def _errors(tests: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Spread]]:
    """Metrics over seeds; a step without an observed target, or without a MAPE, is left out."""
    return {
        metric: {
            step: Spread.of([test[metric][step] for test in tests])
            for step in tests[0][metric]
            if all(test[metric][step] is not None for test in tests)
        }
        for metric in METRICS
    }


def _with_spread(spread: Spread | None) -> str:
    """Median, and half the range."""
    if spread is None:
        return "-"
    if spread.runs == 1:
        return f"{spread.median:.3f}"
    return f"{spread.median:.3f} ± {(spread.maximum - spread.minimum) / 2:.3f}"


def _median(spread: Spread | None, unit: float = 1.0) -> str:
    return "-" if spread is None else f"{spread.median / unit:,.0f}"
