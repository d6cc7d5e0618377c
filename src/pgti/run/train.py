"""Training from end to end: check everything, create or resume the run, train."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgti.batching import WindowConfig
from pgti.distributed import Communicator, SingleProcess, find_launch
from pgti.errors import ConfigError, PgtiError, RunError, option
from pgti.memory import is_allocation_failure, malloc_policy
from pgti.models import ModelFactory, name_of_own_model
from pgti.options import check_names
from pgti.run.build import resolve_model
from pgti.run.config import ModelConfig, RunConfig
from pgti.run.memory_plan import MemoryPlan
from pgti.run.prepare import AUTO, ObserverFactory, PreparedRun, prepare
from pgti.run.resume import FinishedRun, Job, NewRun, ResumedRun, find_run
from pgti.run.run import Run
from pgti.store import SeriesStore, open_store
from pgti.training import FitResult, RunDirectory, TrainingConfig
from pgti.training.checkpoint import Checkpoint, read_checkpoint
from pgti.training.compatibility import plain_settings
from pgti.training.run_directory import now
from pgti.windows import Placement

__all__ = ["Job", "train", "train_run"]

Log = Callable[[str], None]
"""Writes a line for the user."""


def train(  # noqa: PLR0913 - each names one part of a run
    store: str | Path | SeriesStore,
    run: str | Path,
    *,
    model: str | ModelFactory = "dcrnn",
    model_options: Mapping[str, Any] | None = None,
    windows: WindowConfig | None = None,
    training: TrainingConfig | None = None,
    batching: str = AUTO,
    device: str = "auto",
    memory_budget: int | None = None,
    placement: Placement = "replicated",
    communicator: Communicator | None = None,
    resume: bool = False,
    **training_options: Any,
) -> Run:
    """Train a model on a store; the result is a run directory.

    Args:
        store: the store, or its path.
        run: directory to create, or with `resume` to continue in.
        model: name of a model; or a network of your own: its class, a function that returns it, or
            `module:Class`. It is built as `Class(shape, **model_options)`, `shape` a `ModelShape`,
            called with x [B, L, N, C + F], standardised, and with what else its `forward` names
            (`supports`, `x_mask`, `calendar`: docs/own-models.md), and returns [B, H, N, C_out],
            standardised.
        model_options: options of the model.
        windows: shape and split of the windows.
        training: options of the training loop.
        batching: "auto", "index", "device" or "standard".
        device: "auto", "cpu" or "cuda".
        memory_budget: bytes that the process may use on that device; by default what is free.
        placement: "replicated" or "partitioned": see `RunConfig`.
        communicator: the ranks that train together (`init_communicator`); one process by default.
        resume: continue from the last checkpoint.
        **training_options: single options of `TrainingConfig`, such as `epochs=3`.

    Returns:
        The run, with its best parameters.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
    """
    if communicator is None and find_launch(os.environ).world_size > 1:
        raise ConfigError(
            "this is one of several processes, which must train together: pass "
            "communicator= from `with pgti.init_communicator() as communicator`"
        )
    opened = open_store(store)
    base = TrainingConfig() if training is None else training
    check_names(training_options, TrainingConfig.__slots__)
    config = RunConfig(
        store=opened.path.absolute(),
        windows=WindowConfig() if windows is None else windows,
        model=ModelConfig(
            name=model if isinstance(model, str) else name_of_own_model(model),
            options=dict(model_options or {}),
        ),
        training=replace(base, **training_options),
        batching=batching,
        placement=placement,
        device=device,
        memory_budget=memory_budget,
    )
    factory = None if isinstance(model, str) else model
    trained, _ = train_run(
        config, run, store=opened, model=factory, resume=resume, communicator=communicator
    )
    return trained


def train_run(  # noqa: PLR0913 - each names one part of a run
    config: RunConfig,
    path: str | Path,
    *,
    store: SeriesStore | None = None,
    model: ModelFactory | None = None,
    resume: bool = False,
    job: Job | None = None,
    log: Log = lambda _: None,
    observers: ObserverFactory | None = None,
    communicator: Communicator | None = None,
) -> tuple[Run, FitResult]:
    """Train as a configuration says.

    Args:
        config: every option.
        path: directory of the run.
        store: the configuration's store, if it is open already.
        model: the user's own class or function, in place of the one that the configuration's
            model names.
        resume: continue from the last checkpoint.
        job: what launched the processes.
        log: called with each choice that was made automatically, once the run's directory exists.
        observers: creates the observers of the training.
        communicator: the ranks that train together; each of them calls this. Only rank 0 reads and
            writes the run's directory, and logs. One process by default.

    Returns:
        The run with its best parameters, and how the training ended.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
    """
    directory = RunDirectory(Path(path).absolute())
    communicator = SingleProcess() if communicator is None else communicator
    with ExitStack() as held, _explain_memory_failures():
        with communicator.raise_together():
            opened = SeriesStore.open(config.store) if store is None else store
            config = replace(config, model=resolve_model(config.model, model)).resolved()
        _assert_same_on_all_ranks(communicator, config, opened)
        found = find_run(directory, config, opened, communicator, resume=resume, job=job, held=held)
        with communicator.raise_together():
            prepared = prepare(
                config,
                directory,
                opened,
                model,
                observers,
                communicator,
                is_restored=not isinstance(found, NewRun) and found.checkpoint is not None,
            )
        prepared.info["job"] = None if job is None else job.name
        match found:
            case NewRun():
                result = _start(prepared, held, log)
            case ResumedRun():
                result = _resume(prepared, found, log)
            case FinishedRun():
                prepared.trainer.restore(found.checkpoint)
                result = prepared.trainer.fit()
        _finish(prepared.run, is_new_end=not isinstance(found, FinishedRun))
        return prepared.run, result


def _start(prepared: PreparedRun, held: ExitStack, log: Log) -> FitResult:
    """Create the run's directory and train; without a checkpoint nothing is left of a failure."""
    run = prepared.run
    plan, directory, is_main = prepared.plan_memory(), run.directory, run.communicator.is_main
    with run.communicator.raise_together():
        if is_main:
            config = run.config.to_toml()
            RunDirectory.create(directory.path, config=config, info=prepared.info)
            held.enter_context(directory.locked())
    try:
        return _fit(prepared, plan, log)
    except (PgtiError, RuntimeError) as error:
        is_explained = isinstance(error, PgtiError) or is_allocation_failure(error)
        if is_main and is_explained and not directory.last_checkpoint.exists():
            directory.remove()
        raise


def _resume(prepared: PreparedRun, found: ResumedRun, log: Log) -> FitResult:
    """Train on from a checkpoint, or from the start where the run has none yet."""
    run = prepared.run
    prepared.trainer.restore(found.checkpoint)
    plan = prepared.plan_memory(checkpointed_before=found.activation_checkpointing)
    with run.communicator.raise_together():
        if run.communicator.is_main:
            run.directory.forget_test()
            run.directory.write_config(run.config.to_toml())
            run.directory.write_beginning(prepared.info, started=found.started)
    return _fit(prepared, plan, log)


def _fit(prepared: PreparedRun, plan: MemoryPlan, log: Log) -> FitResult:
    if prepared.run.communicator.is_main:
        for line in prepared.choices:
            log(line)
    with malloc_policy(plan.malloc_policy):
        return prepared.trainer.fit()


def _finish(run: Run, *, is_new_end: bool) -> None:
    """Note when training ended, and give every rank the best parameters, which rank 0 reads."""
    path, archive = run.directory.best_checkpoint, b""
    with run.communicator.raise_together():
        if run.communicator.is_main:
            if is_new_end or "ended" not in run.directory.read_info():
                run.directory.update_info(ended=now())
            archive = read_checkpoint(path)
    Checkpoint.parse(path, run.communicator.broadcast_bytes(archive)).load_into(
        run.forecaster.network
    )
    run.forecaster.eval()


def _assert_same_on_all_ranks(
    communicator: Communicator, config: RunConfig, store: SeriesStore
) -> None:
    """Refuse ranks with other stores or options, but for where they compute and read."""
    options = plain_settings({**config.settings(), "placement": config.placement})
    communicator.assert_same_on_all_ranks("the store", store.fingerprint)
    communicator.assert_same_on_all_ranks("the options", json.dumps(options, sort_keys=True))


@contextmanager
def _explain_memory_failures() -> Iterator[None]:
    """Turn torch's failures to allocate memory into one line.

    Raises:
        RunError: saying what to make smaller.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_allocation_failure(error):
            raise
        raise RunError(
            f"there is not enough memory to train this: use a smaller {option('batch_size')} (and "
            f"{option('accumulate')} as much larger, which keeps the step the same) or a smaller "
            f"model, such as {option('model.hidden')}"
        ) from error
