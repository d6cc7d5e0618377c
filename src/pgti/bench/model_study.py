"""The accuracy study: configurations times seeds on one store, each a training as users run it.

A study may be stopped and started again: what is trained stays in its working directory, and a
training that was cut short goes on from its last checkpoint.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgti.bench.model_study_trainings import StudyTraining, run_trainings
from pgti.bench.results import Machine, Spread
from pgti.errors import BenchError, ConfigError, require_whole_number
from pgti.store import SeriesStore

__all__ = ["ERRORS", "StudiedModel", "StudyOptions", "StudyResult", "run_study"]

ERRORS = ("mae", "rmse", "mape")
_BASELINES = ("persistence", "historical-average")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyOptions:
    """What is trained.

    Args:
        configs: TOML files as `pgti train --config` takes them, each of another model.
        seeds: of every model.
        jobs: trainings at the same time; each has its share of the cores.
        test_windows: test windows of each, at most; None takes all.

    Raises:
        ConfigError: no configuration or seed, the same model twice, or a file that is none.
    """

    configs: tuple[Path, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    jobs: int = 1
    test_windows: int | None = None

    def __post_init__(self) -> None:
        require_whole_number("jobs", self.jobs, 1)
        if self.test_windows is not None:
            require_whole_number("test_windows", self.test_windows, 1)
        if not self.configs or not self.seeds:
            raise ConfigError("a study needs at least one configuration and one seed")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds are {self.seeds}: each must be another")
        names = [model_of(config) for config in self.configs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"two configurations train the model {name!r}: a study has one row a model"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class StudiedModel:
    """A row of the table.

    Args:
        model: its name.
        seeds: that were trained to the end.
        parameters: of the network; 0 for a baseline.
        errors: of the test windows, by error and horizon step ("1", "2", .. and "mean"), over
            seeds; MAE and RMSE in the target's unit, MAPE in per cent.
        epochs: trained, over seeds; None for a baseline.
        best_epoch: whose parameters were tested; None for a baseline.
        seconds_per_epoch: of training and validation, over seeds; None for a baseline.
        peak_pss_bytes: of the process; None for a baseline, or where the system does not tell.
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
    """All rows, the baselines first.

    Args:
        store: that was learnt from.
        models: the rows.
        test_windows: that were measured.
        threads: that each training computed with.
        jobs: trainings at the same time: seconds are of a machine shared by so many.
        machine: where.
        left_out: what is missing, and why.
    """

    store: str
    models: tuple[StudiedModel, ...]
    test_windows: int
    threads: int
    jobs: int
    machine: Machine
    left_out: tuple[str, ...]


def model_of(config: Path) -> str:
    """The model that a configuration trains.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or names its model by no text.
    """
    table = _content(config).get("model", {})
    name = table.get("name", "dcrnn") if isinstance(table, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f'{config} must name its model: [model], name = "dcrnn"')
    return name


def _content(config: Path) -> dict[str, Any]:
    """What is in a TOML file; its options are checked when it is trained."""
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration {config} cannot be read: {error}") from None


def run_study(
    store: SeriesStore, options: StudyOptions, workdir: Path, log: Callable[[str], None]
) -> StudyResult:
    """Train every configuration with every seed, and bring the test errors together.

    Args:
        store: to learn from.
        options: what to train.
        workdir: where runs and results stay; what is finished there is not trained again.
        log: told what is being done, a line each.

    Raises:
        ConfigError: the working directory holds trainings of another store or configuration, or
            the configurations test on different windows.
        BenchError: nothing could be trained.
    """
    machine = Machine.here()
    threads = max(1, machine.cores // options.jobs)
    trainings = [
        StudyTraining(
            model=name, config=config, seed=seed, directory=workdir / f"{_file_name(name)}-{seed}"
        )
        for config, name in ((config, model_of(config)) for config in options.configs)
        for seed in options.seeds
    ]
    identities = {
        training.config: _identity(store, training.config, options.test_windows)
        for training in trainings
    }
    results: dict[StudyTraining, dict[str, Any]] = {}
    for training in trainings:
        found = training.finished(identities[training.config])
        if found is not None:
            results[training] = found
    waiting = [training for training in trainings if training not in results]
    log(f"{len(trainings)} trainings, {len(waiting)} still to be run, {threads} threads each")
    left_out: list[str] = []
    measured = {"cpu": machine.cpu, "threads": threads, "jobs": options.jobs, **machine.versions}
    trained = run_trainings(
        waiting,
        lambda training: training.command(store.path, options.test_windows),
        jobs=options.jobs,
        threads=threads,
        left_out=left_out,
        log=log,
    )
    for training, result in trained:
        result |= {"identity": identities[training.config], "measured": measured}
        text = json.dumps(result, allow_nan=False)
        part = training.result_path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(training.result_path)
        results[training] = result
    if not results:
        raise BenchError(f"nothing was trained: {'; '.join(left_out)}")
    _check_alike(results)
    if any(result.get("measured") != measured for result in results.values()):
        left_out.append(
            "some trainings are of an earlier call with other jobs, threads, versions or machine: "
            "their seconds and bytes are not comparable, and another version may compute otherwise"
        )
    rows = [_row(name, results) for name in dict.fromkeys(each.model for each in trainings)]
    first = next(iter(results.values()))
    return StudyResult(
        store=str(store.path),
        models=(*_baseline_rows(first["test"]), *(row for row in rows if row is not None)),
        test_windows=first["test"]["windows"],
        threads=threads,
        jobs=options.jobs,
        machine=machine,
        left_out=tuple(left_out),
    )


def _check_alike(results: Mapping[StudyTraining, Mapping[str, Any]]) -> None:
    """Refuse a table of different tests: what the baselines reach tells them apart.

    Raises:
        ConfigError: naming two trainings.
    """
    (first, one), *others = results.items()
    for training, other in others:
        if not _are_of_one_test(one["test"], other["test"]):
            raise ConfigError(
                f"{first.config} and {training.config} test on different windows or targets: give "
                "all configurations the same horizon, split and targets"
            )


def _are_of_one_test(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether persistence reached the same; the sums of other batch sizes differ in last bits."""
    first, second = one["persistence"], other["persistence"]
    if (one["windows"], first["count"]) != (other["windows"], second["count"]):
        return False
    return all(
        first[error].keys() == second[error].keys()
        and all(_are_near(first[error][step], second[error][step]) for step in first[error])
        for error in ERRORS
    )


def _are_near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9)


def _row(model: str, results: Mapping[StudyTraining, Mapping[str, Any]]) -> StudiedModel | None:
    """A model's figures over its seeds; None if no seed was trained to the end."""
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
    """Errors over seeds; a step without an observed target, or without a MAPE, is left out."""
    return {
        error: {
            step: Spread.of([test[error][step] for test in tests])
            for step in tests[0][error]
            if all(test[error][step] is not None for test in tests)
        }
        for error in ERRORS
    }


def _identity(store: SeriesStore, config: Path, test_windows: int | None) -> str:
    """What a finished training must share to stand for one that is asked for."""
    content = json.dumps(
        [store.fingerprint, _content(config), test_windows], sort_keys=True, default=str
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _file_name(model: str) -> str:
    return model.replace(":", "-")
