"""A study of models: configurations times seeds on one store, each trained as users train it.

A study may be interrupted and resumed: finished trainings stay in its working directory, and a
training that was interrupted resumes from its last checkpoint.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import ConfigError, PgtiError, RunError, require_whole_number
from pgti.forecasting import BASELINES
from pgti.models import is_own_model, source_of_own_model
from pgti.run.build import resolve_model, shape_of_store
from pgti.run.config import RunConfig, read_toml
from pgti.run.recipe import note_differences, open_recipe, recipe_config, write_recipes
from pgti.run.results import Machine
from pgti.run.study_processes import StudyTraining, run_trainings
from pgti.run.study_result import METRICS, OverSeeds, StudiedModel, StudyResult
from pgti.run.tracking import Tracking
from pgti.store import SeriesStore

__all__ = ["study"]


def study(  # noqa: PLR0913 - each names one part of a study
    store: SeriesStore,
    configs: Sequence[Path],
    *,
    workdir: Path,
    recipes: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
    test_windows: int | None = None,
    track: Sequence[str] = (),
    log: Callable[[str], None] = lambda _: None,
) -> StudyResult:
    """Train every configuration with every seed, each in a process, and collect the test metrics.

    Args:
        store: to train on.
        configs: TOML files as for `pgti train --config`. A row of the table is named after the
            model, or after its file where a model occurs twice.
        workdir: where runs and results stay; finished trainings are not repeated.
        recipes: published recipes to train besides, or data sets, all of whose recipes to train.
        seeds: of every model.
        jobs: trainings at the same time. They share the cores; where OMP_NUM_THREADS is set, each
            has that many threads.
        test_windows: maximum number of test windows; all if not given.
        track: names of trackers that show each run; their group is the name of `workdir`.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: an argument is out of range; a file is given twice; a configuration cannot be
            trained on the store, which is known before the first training; the working directory
            has trainings of another store, configuration or network of your own; or the
            configurations test on different windows.
        RunError: no training succeeded.
    """
    configs = [*configs, *write_recipes(recipes, store, workdir / "recipes")]
    _check(seeds, jobs, test_windows, configs)
    Tracking(track).check()
    tracked = (
        ("--track", ",".join(track), "--track-group", workdir.absolute().name) if track else ()
    )
    contents = {config: read_toml(config) for config in configs}
    options = {config: _read_options(store, config, contents[config]) for config in configs}
    models = {config: each.model.name for config, each in options.items()}
    files = _distinct_names(configs)
    for config, name in models.items():
        _check_configuration(store, config, options[config], name)
    rows = _row_names(models, files)
    trainings = [
        StudyTraining(
            row=rows[config],
            config=config,
            seed=seed,
            directory=workdir / f"{files[config].replace('/', '-')}-{seed}",
            identity=_identity(store, contents[config], models[config], test_windows),
        )
        for config in configs
        for seed in seeds
    ]
    machine = Machine.here()
    threads = _threads(machine.cores, jobs)
    measured = {"cpu": machine.cpu, "threads": threads, "jobs": jobs, **machine.versions}
    found = {training: training.read_result() for training in trainings}
    waiting = [training for training in trainings if found[training] is None]
    log(
        f"{count_of(len(trainings), 'training')}, {len(waiting)} of them not finished; "
        f"{count_of(threads, 'thread')} each"
    )
    failures: dict[StudyTraining, PgtiError] = {}
    for training, result in run_trainings(
        waiting,
        lambda training: [*training.command(store.path, test_windows), *tracked],
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
    studied = [_row(rows[config], store, each, results) for config, each in options.items()]
    test = next(iter(results.values()))["test"]
    return StudyResult(
        store=str(store.path),
        interval_seconds=store.meta.interval_seconds,
        models=(*_baseline_rows(test), *(row for row in studied if row is not None)),
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


def _read_options(store: SeriesStore, config: Path, content: Mapping[str, Any]) -> RunConfig:
    """The options of a configuration, above those of the recipe that it names."""
    table = content.get("model", {})
    name = table.get("name") if isinstance(table, Mapping) else table
    if not isinstance(table, Mapping) or not isinstance(name, str | None):
        raise ConfigError(f'{config}: model must be a table such as [model] with name = "dcrnn"')
    options = RunConfig.from_toml(config, store.path)
    recipe = open_recipe(options.recipe, model=name, protocol=None, start=False)
    if recipe is None:
        return options
    given = {name: table for name, table in content.items() if isinstance(table, Mapping)}
    return recipe_config(recipe, store).override(given)


def _check_configuration(store: SeriesStore, config: Path, options: RunConfig, model: str) -> None:
    """Refuse options, a model or windows that a training would refuse when its turn comes.

    Options of a network of the user's own are checked when it is imported, by its training.
    """
    try:
        if not is_own_model(model):
            resolve_model(options.model)
        options.windows.splits(store)
        shape_of_store(store, options.windows, model)
    except PgtiError as error:
        raise type(error)(f"{config}: {error}") from None


def _distinct_names(configs: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: as much of the end of its path as tells it from the others.

    Raises:
        ConfigError: if a file is given twice.
    """
    paths = [config.resolve().with_suffix("").parts for config in configs]
    names = {}
    for config, parts in zip(configs, paths, strict=True):
        if paths.count(parts) > 1:
            raise ConfigError(f"the configuration {config} is given twice")
        length = 1
        while sum(other[-length:] == parts[-length:] for other in paths) > 1:
            length += 1
        names[config] = "/".join(parts[-length:])
    return names


def _row_names(models: Mapping[Path, str], files: Mapping[Path, str]) -> dict[Path, str]:
    """Each row's name: that of its model, or of its file where another row has the model's."""
    counts = Counter(models.values())
    names = {
        config: model if counts[model] == 1 else files[config] for config, model in models.items()
    }
    return names if len(set(names.values())) == len(names) else dict(files)


def _threads(cores: int, jobs: int) -> int:
    """Threads of each training: OMP_NUM_THREADS, or an equal share of the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else max(1, cores // jobs)


def _identity(
    store: SeriesStore, content: Mapping[str, Any], model: str, test_windows: int | None
) -> str:
    """A digest of everything that two results must share to be the same training's."""
    facts = [store.fingerprint, content, test_windows]
    source = source_of_own_model(model) if is_own_model(model) else None
    if source is not None:
        facts.append(hashlib.sha256(source.read_bytes()).hexdigest())
    text = json.dumps(facts, sort_keys=True, default=str)
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


def _row(
    name: str,
    store: SeriesStore,
    options: RunConfig,
    results: Mapping[StudyTraining, Mapping[str, Any]],
) -> StudiedModel | None:
    """A model's figures over its seeds; None if no seed finished."""
    found = {each.seed: result for each, result in results.items() if each.row == name}
    if not found:
        return None
    runs = [found[seed] for seed in sorted(found)]
    peaks = [run["peak_pss_bytes"] for run in runs]
    return StudiedModel(
        name=name,
        model=options.model.name,
        recipe=options.recipe,
        notes=note_differences(store, options),
        seeds=tuple(sorted(found)),
        parameters=runs[0]["parameters"],
        errors=_errors([run["test"] for run in runs]),
        epochs=OverSeeds.of([run["epochs"] for run in runs]),
        best_epoch=OverSeeds.of([run["best_epoch"] for run in runs]),
        seconds_per_epoch=OverSeeds.of([run["training_seconds"] / run["epochs"] for run in runs]),
        peak_pss_bytes=None if None in peaks else OverSeeds.of(peaks),
    )


def _baseline_rows(test: Mapping[str, Any]) -> Iterator[StudiedModel]:
    for name in BASELINES:
        if name in test:
            errors = _errors([test[name]])
            yield StudiedModel(name=name, model=name, seeds=(), parameters=0, errors=errors)


def _errors(tests: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, OverSeeds]]:
    """Metrics over seeds; a step without an observed target, or without a MAPE, is left out."""
    return {
        metric: {
            step: OverSeeds.of([test[metric][step] for test in tests])
            for step in tests[0][metric]
            if all(test[metric][step] is not None for test in tests)
        }
        for metric in METRICS
    }
