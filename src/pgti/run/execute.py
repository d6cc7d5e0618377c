"""Train as a configuration says: check everything, create or resume the run, train."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pgti.batching import WindowConfig, needs_typical
from pgti.display import count_of, size_text
from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError, PgtiError, RunError, option
from pgti.memory import device_peak_bytes, is_allocation_failure, malloc_policy
from pgti.models import ModelFactory
from pgti.run.build import resolve_model
from pgti.run.config import RunConfig
from pgti.run.memory_estimate import largest_peak_bytes
from pgti.run.memory_plan import MemoryPlan
from pgti.run.prepare import ObserverFactory, PreparedRun, check_edges, prepare
from pgti.run.resume import FinishedRun, Job, NewRun, ResumedRun, find_run, keep_options
from pgti.run.run import Run
from pgti.run.series import RunData
from pgti.run.warm_start import StartedFrom, StartRun
from pgti.store import Scaler, SeriesStore, TypicalReadings
from pgti.training import (
    Extensions,
    FitResult,
    RunDirectory,
)
from pgti.training.checkpoint import Checkpoint, read_checkpoint
from pgti.training.compatibility import plain_settings
from pgti.training.run_directory import now

__all__ = ["train_run"]

Log = Callable[[str], None]
"""Writes a line for the user."""


def train_run(  # noqa: PLR0913 - each names one part of a run
    config: RunConfig,
    path: str | Path,
    *,
    store: SeriesStore | None = None,
    model: ModelFactory | None = None,
    resume: bool = False,
    overwrite: bool = False,
    job: Job | None = None,
    log: Log = lambda _: None,
    observers: ObserverFactory | None = None,
    communicator: Communicator | None = None,
    extensions: Extensions | None = None,
    start: StartRun | None = None,
) -> tuple[Run, FitResult]:
    """Train as a configuration says.

    Args:
        config: every option.
        path: directory of the run.
        store: the configuration's store, if it is open already.
        model: the user's own class or function, in place of the one that the configuration's
            model names.
        resume: continue from the last checkpoint.
        overwrite: replace a run that is there.
        job: what launched the processes.
        log: called with each choice that was made automatically, once the run's directory exists.
        observers: creates the observers of the training.
        communicator: the ranks that train together; each of them calls this. Only rank 0 reads and
            writes the run's directory, and logs. One process by default.
        extensions: what the user adds to the training.
        start: the run to start from, if this one is new.

    Returns:
        The run with its best parameters, and how the training ended.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
    """
    directory = RunDirectory(Path(path).absolute())
    communicator = SingleProcess() if communicator is None else communicator
    with ExitStack() as held, _explain_memory_failures():
        with communicator.raise_together():
            if start is not None and not resume:
                start.check_path(directory.path)
            opened = SeriesStore.open(config.store) if store is None else store
            config = replace(config, model=resolve_model(config.model, model))
        config = keep_options(
            config, None if overwrite else directory, communicator=communicator, log=log
        )
        config = config.resolved(communicator.world_size)
        _assert_same_on_all_ranks(
            communicator, config, opened, () if extensions is None else extensions.metrics or ()
        )
        communicator.split_space(config.shard_sensors)
        found = find_run(
            directory,
            config,
            opened,
            communicator,
            resume=resume,
            overwrite=overwrite,
            job=job,
            held=held,
            log=log,
        )
        rows = opened
        if not isinstance(found, NewRun) and found.num_steps is not None:
            rows = opened.prefix(found.num_steps)  # the store may have grown since
        typical = _fit_typical(config.windows, rows, communicator)
        started_from = _find_start(found, start)
        if started_from is None and config.training.epochs == 0:
            raise ConfigError(
                "epochs is 0: a run trains for one at least, unless it starts from another "
                f"({option('init_from', flag='from')})"
            )
        with communicator.raise_together():
            if isinstance(found, NewRun) and start is not None:
                start.check(config, opened)
            prepared = prepare(
                config,
                directory,
                rows,
                model,
                observers,
                communicator,
                scaler=_scaler_of(found),
                typical=typical,
                latest=opened,
                is_restored=started_from is not None
                or (not isinstance(found, NewRun) and found.checkpoint is not None),
                started_from=started_from,
                extensions=extensions,
            )
            if isinstance(found, NewRun) and start is not None:
                _take_over(prepared, start)
        prepared.info["job"] = None if job is None else job.name
        match found:
            case NewRun():
                result = _start(prepared, held, log, overwrite=overwrite)
            case ResumedRun():
                result = _resume(prepared, found, log)
            case FinishedRun():
                prepared.trainer.restore(found.checkpoint)
                result = replace(prepared.trainer.fit(), was_finished=True)
                if communicator.is_main:
                    log(
                        f"the run in {directory.path} is finished after "
                        f"{count_of(result.epochs, 'epoch')}: there is nothing to train"
                    )
        _finish(prepared.run, None if isinstance(found, FinishedRun) else result)
        return prepared.run, result


def _fit_typical(
    windows: WindowConfig, store: SeriesStore, communicator: Communicator
) -> TypicalReadings | None:
    """What each sensor usually reads: rank 0 reads the rows, for all ranks where inputs need it."""
    content = b""
    with communicator.raise_together():
        if communicator.is_main:
            rows = windows.splits(store).train_rows(windows.spec)
            typical = TypicalReadings.fit(store, rows, every_step=windows.climatology)
            if communicator.world_size == 1 or not needs_typical(windows, store):
                return typical  # the run keeps it
            content = typical.to_bytes()
    if not needs_typical(windows, store):
        return None
    return TypicalReadings.from_bytes(communicator.broadcast_bytes(content))


def _find_start(
    found: NewRun | ResumedRun | FinishedRun, start: StartRun | None
) -> StartedFrom | None:
    """What the run takes over from another, if it does.

    Raises:
        RunError: if it was started from another than `start`.
    """
    if isinstance(found, NewRun):
        return None if start is None else start.started_from
    record = found.start
    before = None if record is None else record["path"]
    if start is not None and str(start.path) != before:
        raise RunError(
            f"the run was started from {before or 'new weights'} and cannot be resumed from "
            f"{start.path}: leave {option('init_from', flag='from')} out, or start a new run"
        )
    if record is None:
        return None
    return StartedFrom(record=record, scaler=None)


def _scaler_of(found: NewRun | ResumedRun | FinishedRun) -> Scaler | None:
    """The scaler that a run was trained with, if it has a checkpoint."""
    if isinstance(found, NewRun) or found.checkpoint is None:
        return None
    return Scaler.from_plain(found.checkpoint.scaler)


def _take_over(prepared: PreparedRun, start: StartRun) -> None:
    """Give the network the weights of the run to start from."""
    run = prepared.run
    weights, lines = start.weights_for(run.config, run.source, run.forecaster)
    run.forecaster.network.load_state_dict(weights)
    prepared.choices[:0] = [start.describe(run.store), *lines, *start.find_overlaps(run)]


def _start(prepared: PreparedRun, held: ExitStack, log: Log, *, overwrite: bool) -> FitResult:
    """Create the run's directory and train; without a checkpoint nothing is left of a failure."""
    run = prepared.run
    with run.communicator.raise_together():
        check_edges(run)
    plan, directory, is_main = prepared.plan_memory(), run.directory, run.communicator.is_main
    is_warm = "started_from" in prepared.info
    with run.communicator.raise_together():
        if is_main:
            RunDirectory.create(
                directory.path,
                config=run.config.to_toml(),
                info=prepared.info,
                data=_run_data(run).to_files(),
                overwrite=overwrite,
                checkpoint=prepared.trainer.state.to_checkpoint() if is_warm else None,
            )
            held.enter_context(directory.locked(log))
    try:
        return _fit(prepared, plan, log)
    except (PgtiError, RuntimeError) as error:
        is_explained = isinstance(error, PgtiError) or is_allocation_failure(error)
        if is_main and is_explained and not _has_trained(directory):
            directory.remove()
        raise


def _has_trained(directory: RunDirectory) -> bool:
    """Whether a checkpoint holds more than the weights that the run started from."""
    has_checkpoint = directory.last_checkpoint.exists()
    return has_checkpoint and directory.load_last().progress.step > 0


def _run_data(run: Run) -> RunData:
    """What the run keeps of its store."""
    assert run.typical is not None  # rank 0 fits them
    return RunData(
        meta=run.store.meta, graph=run.store.graph, typical=run.typical, static=run.source.static
    )


def _resume(prepared: PreparedRun, found: ResumedRun, log: Log) -> FitResult:
    """Train on from a checkpoint, or from the start where the run has none yet."""
    run = prepared.run
    prepared.trainer.restore(found.checkpoint)
    progress = prepared.trainer.progress
    prepared.choices.append(f"resuming after step {progress.step:,}, in epoch {progress.epoch + 1}")
    plan = prepared.plan_memory(checkpointed_before=found.activation_checkpointing)
    with run.communicator.raise_together():
        if run.communicator.is_main:
            run.directory.forget_test()
            run.directory.write_config(run.config.to_toml())
            run.directory.write_beginning(prepared.info, started=found.started)
            if found.num_steps is None:  # an earlier version began it
                run.directory.write_data(_run_data(run).to_files())
    return _fit(prepared, plan, log)


def _fit(prepared: PreparedRun, plan: MemoryPlan, log: Log) -> FitResult:
    if prepared.run.communicator.is_main:
        for line in prepared.choices:
            log(line)
        prepared.trainer.train_step.explain_to(log)
    run = prepared.run
    device_peak_bytes(run.device, reset=True)  # the trial step is over
    with malloc_policy(plan.malloc_policy):
        result = prepared.trainer.fit()
    peak = largest_peak_bytes(run.device, run.communicator)
    if peak is not None and run.communicator.is_main:
        log(f"memory: tensors took {size_text(peak)} of a GPU at most")
    result = replace(result, peak_device_bytes=peak)
    if result.stopped_early and prepared.run.communicator.is_main:
        who = "a callback" if prepared.trainer.progress.is_stopped else "early stopping"
        log(f"{who} ended the training after step {result.steps:,}")
    return result


def _finish(run: Run, result: FitResult | None) -> None:
    """Note when training ended, and give every rank the best parameters, which rank 0 reads."""
    path, archive = run.directory.best_checkpoint, b""
    with run.communicator.raise_together():
        if run.communicator.is_main:
            if result is not None:
                peak = {"peak_device_bytes": result.peak_device_bytes}
                run.directory.update_info(ended=now(), **peak)
            elif "ended" not in run.directory.read_info():
                run.directory.update_info(ended=now())
            archive = read_checkpoint(path)
    Checkpoint.parse(path, run.communicator.broadcast_bytes(archive)).load_into(
        run.forecaster.network
    )
    run.forecaster.eval()


def _assert_same_on_all_ranks(
    communicator: Communicator, config: RunConfig, store: SeriesStore, metrics: Iterable[str]
) -> None:
    """Refuse ranks with other stores or options, but for where they compute and read."""
    options = plain_settings(
        {
            **config.settings(),
            "placement": config.placement,
            "shard_sensors": config.shard_sensors,
        }
    )
    communicator.assert_same_on_all_ranks("the metrics", ", ".join(metrics))
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
