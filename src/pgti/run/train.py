"""Training from end to end: check everything, then make the run's directory, then train."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgti.batching import Placement
from pgti.distributed import Communicator, SingleProcess, find_launch
from pgti.errors import ConfigError, Interrupted, PgtiError, RunError
from pgti.memory import MallocPolicy, is_allocation_failure, malloc_policy
from pgti.options import check_names
from pgti.run.build import CUSTOM_MODEL, ModelFactory, resolve_model
from pgti.run.config import ModelConfig, RunConfig, WindowConfig
from pgti.run.prepare import AUTO, ObserverFactory, prepare
from pgti.run.run import Run, open_store
from pgti.store import SeriesStore
from pgti.training import FitResult, RunDirectory, Trainer, TrainingConfig
from pgti.training.checkpoint import Checkpoint, read_checkpoint
from pgti.training.compatibility import (
    check_fingerprint,
    check_settings,
    free_options,
    plain_settings,
)
from pgti.training.run_directory import now

__all__ = ["Job", "train", "train_run"]


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
    """Train a model on a store and leave a run behind.

    Args:
        store: the store, or its path.
        run: directory to make, or with `resume` to go on in.
        model: name of a model, or a function that makes a network of one's own from the sizes of
            the data (`ModelShape`). The network is called as `network(x, supports)`, x
            [B, L, N, C + F] standardised, and returns [B, H, N, C_out] standardised.
        model_options: options of a named model.
        windows: shape and split of the windows.
        training: options of the training loop.
        batching: "auto", "index", "device" or "standard".
        device: "auto", "cpu" or "cuda".
        memory_budget: bytes that the process may use on that device; what is free if not given.
        placement: "replicated" or "partitioned": see `RunConfig`.
        communicator: the ranks that train together (`init_communicator`); one process by default.
        resume: go on from the last checkpoint.
        **training_options: single options of `TrainingConfig`, such as `epochs=3`.

    Returns:
        The run, with its best parameters.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
    """
    if communicator is None and find_launch(os.environ).world_size > 1:
        raise ConfigError(
            "this is one of several processes, which must train together: give "
            "processes= from `with pgti.init_communicator() as processes`"
        )
    opened = open_store(store)
    base = TrainingConfig() if training is None else training
    check_names(training_options, TrainingConfig.__slots__)
    config = RunConfig(
        store=opened.path.absolute(),
        windows=WindowConfig() if windows is None else windows,
        model=ModelConfig(
            name=model if isinstance(model, str) else CUSTOM_MODEL,
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What launched the processes that train.

    Args:
        name: tells it from every other job; kept with the run.
        is_restart: it has been started again by itself, after a rank failed: a run that it
            began is gone on with, unasked.
    """

    name: str
    is_restart: bool


def train_run(  # noqa: PLR0913 - each names one part of a run
    config: RunConfig,
    path: str | Path,
    *,
    store: SeriesStore | None = None,
    model: ModelFactory | None = None,
    resume: bool = False,
    job: Job | None = None,
    log: Callable[[str], None] = lambda _: None,
    observers: ObserverFactory | None = None,
    communicator: Communicator | None = None,
) -> tuple[Run, FitResult]:
    """Train as a configuration says.

    Args:
        config: every option.
        path: directory of the run.
        store: the configuration's store, if it is open already.
        model: makes the network, in place of the configuration's model.
        resume: go on from the last checkpoint.
        job: what launched the processes.
        log: told, in one line each, what was chosen on the user's behalf, once the run's
            directory is there.
        observers: makes who is told about the progress.
        communicator: the ranks that train together; all of them call this. Rank 0 alone reads and
            writes the run's directory, and speaks. One process if not given.

    Returns:
        The run with its best parameters, and how the training ended.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
    """
    directory = RunDirectory(Path(path).absolute())
    communicator = SingleProcess() if communicator is None else communicator
    main = communicator.is_main
    with ExitStack() as held:
        found = False, False
        with communicator.raise_together():
            if main and RunDirectory.exists(directory.path):
                found = _find_begun(directory, job, resume=resume, held=held)
        goes_on, has_checkpoint = map(communicator.any, found)
        with _memory_failures_told():
            with communicator.raise_together():
                opened = SeriesStore.open(config.store) if store is None else store
                config = replace(config, model=resolve_model(config.model)).resolved()
                if goes_on and main:
                    _check_goes_on(directory, config, opened)
                prepared = prepare(
                    config,
                    directory,
                    opened,
                    model,
                    observers,
                    communicator,
                    is_restored=has_checkpoint,
                )
            _require_same(communicator, config, opened)
            run, trainer = prepared.run, prepared.trainer
            prepared.info["job"] = None if job is None else job.name
            if goes_on:
                trainer.restore()  # refuses before anything is written
            before = _checkpointed_before(directory, communicator) if goes_on else None
            was_finished = goes_on and trainer.is_finished
            policy: MallocPolicy = "default"
            if not was_finished:
                policy = prepared.plan_memory(checkpointed_before=before).malloc_policy
        with communicator.raise_together():
            if main and not goes_on:
                RunDirectory.create(directory.path, config=config.to_toml(), info=prepared.info)
                held.enter_context(directory.locked())
            elif main and not was_finished:
                _write_going_on(directory, config, prepared.info)
        if main:
            prepared.tell(log)
        with malloc_policy(policy):
            result = _fit(trainer, directory, resume=resume or goes_on, is_new=main and not goes_on)
        _end(run, was_finished=was_finished)
        return run, result


def _find_begun(
    directory: RunDirectory, job: Job | None, *, resume: bool, held: ExitStack
) -> tuple[bool, bool]:
    """Whether a run that exists goes on, locked then, and whether it has a checkpoint."""
    if not (resume or _was_begun_by(directory, job)):
        return False, False
    held.enter_context(directory.locked())
    return True, directory.last_checkpoint.exists()


def _was_begun_by(directory: RunDirectory, job: Job | None) -> bool:
    """Whether the job has been restarted, and it was the one that trained the run before."""
    if job is None or not job.is_restart:
        return False
    return bool(directory.read_info().get("job") == job.name)


def _require_same(communicator: Communicator, config: RunConfig, store: SeriesStore) -> None:
    """Refuse ranks with other stores or options: not where they compute, nor from which copy."""
    options = plain_settings({**_binding(config), "placement": config.placement})
    communicator.assert_same_on_all_ranks("the store", store.fingerprint)
    communicator.assert_same_on_all_ranks("the options", json.dumps(options, sort_keys=True))


def _end(run: Run, *, was_finished: bool) -> None:
    """Note when training ended, and give every rank the best parameters, which rank 0 reads."""
    path, archive = run.directory.best_checkpoint, b""
    with run.communicator.raise_together():
        if run.communicator.is_main:
            if not was_finished or "ended" not in run.directory.read_info():
                run.directory.update_info(ended=now())
            archive = read_checkpoint(path)
    checkpoint = Checkpoint.parse(path, run.communicator.broadcast_bytes(archive))
    run.forecaster.network.load_state_dict(checkpoint.network)
    run.forecaster.eval()


def _checkpointed_before(directory: RunDirectory, communicator: Communicator) -> bool | None:
    """Whether the run has checkpointed its activations so far, as rank 0 reads it."""
    told = b""
    with communicator.raise_together():
        if communicator.is_main:
            info = directory.read_info()
            told = json.dumps(info.get("activation_checkpointing", info.get("recompute"))).encode()
    before: bool | None = json.loads(communicator.broadcast_bytes(told))
    return before


def _check_goes_on(directory: RunDirectory, config: RunConfig, store: SeriesStore) -> None:
    """Refuse another store or other options than the run's, whether it has a checkpoint or not."""
    check_fingerprint(str(directory.read_info().get("fingerprint")), store.fingerprint)
    before = RunConfig.from_toml(directory.config_file)
    check_settings(_binding(before), _binding(config), free=free_options(config.training))


def _binding(config: RunConfig) -> dict[str, Any]:
    return {**config.identity(), "training": asdict(config.training)}


def _write_going_on(directory: RunDirectory, config: RunConfig, info: Mapping[str, Any]) -> None:
    """Bring the files of a run up to date before its training goes on, or begins anew."""
    has_begun = directory.last_checkpoint.exists()
    started = directory.read_info().get("started") if has_begun else None
    directory.forget_test()
    directory.write_config(config.to_toml())
    directory.write_beginning(info, started=started)


def _fit(trainer: Trainer, directory: RunDirectory, *, resume: bool, is_new: bool) -> FitResult:
    """Train; a directory that this call made does not stay if there is nothing in it."""
    try:
        with _memory_failures_told():
            return trainer.fit(resume=resume)
    except Interrupted:
        raise
    except PgtiError:
        if is_new and not directory.last_checkpoint.exists():
            directory.remove()
        raise


@contextmanager
def _memory_failures_told() -> Iterator[None]:
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
            "there is not enough memory to train this: use a smaller --batch-size (and "
            "--accumulate as much larger, which keeps the step the same) or a smaller model, such "
            "as --model.hidden"
        ) from error
