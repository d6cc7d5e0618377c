"""What a run's directory holds: nothing yet, a training to resume, or a finished one."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from pgti.batching import WindowConfig
from pgti.display import count_of
from pgti.distributed import Communicator
from pgti.errors import ConfigError, RunError, option
from pgti.models import is_own_model
from pgti.run.config import RunConfig, complete_settings, earlier_options, read_toml
from pgti.run.series import RunData
from pgti.store import SeriesStore
from pgti.training import RunDirectory
from pgti.training.checkpoint import Checkpoint, read_checkpoint
from pgti.training.compatibility import check_fingerprint, check_settings, free_options

__all__ = ["FinishedRun", "Job", "NewRun", "ResumedRun", "find_run", "keep_options"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What launched the processes that train.

    Attributes:
        name: identifies it among all jobs; stored with the run.
        is_restart: the launcher restarted it after a rank failed: a run that it started is resumed
            automatically.
    """

    name: str
    is_restart: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """There is no run yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumedRun:
    """A training that was stopped.

    Attributes:
        checkpoint: its last state; None if it was stopped before its first checkpoint.
        num_steps: rows of its store then; None if an earlier version began it.
        started: when it began.
        activation_checkpointing: what was chosen then; the last bits of gradients depend on it.
        start: what the run says of the run that it started from, if it did.
    """

    checkpoint: Checkpoint | None
    num_steps: int | None
    started: str | None
    activation_checkpointing: bool | None
    start: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """A training with nothing left to do.

    Attributes:
        checkpoint: its last state.
        num_steps: rows of its store when it began; None if an earlier version began it.
        start: what the run says of the run that it started from, if it did.
    """

    checkpoint: Checkpoint
    num_steps: int | None
    start: Mapping[str, Any] | None = None


def find_run(  # noqa: PLR0913 - each is of another kind
    directory: RunDirectory,
    config: RunConfig,
    store: SeriesStore,
    communicator: Communicator,
    *,
    resume: bool,
    overwrite: bool,
    job: Job | None,
    held: ExitStack,
    log: Callable[[str], None],
) -> NewRun | ResumedRun | FinishedRun:
    """Look at the directory of a run; rank 0 reads it, and all ranks get the same answer.

    Args:
        directory: where the run is, or will be.
        config: every option now, resolved.
        store: the store now, which may have grown.
        communicator: the ranks.
        resume: whether an existing run may be resumed.
        overwrite: whether an existing run may be replaced.
        job: what launched the processes.
        held: holds the lock of an existing run.
        log: told where that cannot be locked.

    Raises:
        RunError: if there is a run that may not be resumed, another process trains it, it is
            damaged, or it has another store or other options.
    """
    facts: dict[str, Any] = {}
    archive = b""
    with communicator.raise_together():
        if communicator.is_main and RunDirectory.exists(directory.path):
            is_resumed = resume or _was_started_by(directory, job)
            if not is_resumed:
                directory.check_free(directory.path, overwrite=overwrite)
            else:
                held.enter_context(directory.locked(log))
                facts, archive = _read_run(directory, config, store)
    facts = communicator.broadcast_json(facts)
    archive = communicator.broadcast_bytes(archive)
    if not facts:
        return NewRun()
    checkpoint = None
    with communicator.raise_together():
        if archive:
            checkpoint = Checkpoint.parse(directory.last_checkpoint, archive)
    if checkpoint is not None and checkpoint.progress.is_finished(config.training):
        return FinishedRun(
            checkpoint=checkpoint, num_steps=facts["num_steps"], start=facts["start"]
        )
    return ResumedRun(checkpoint=checkpoint, **facts)


def keep_options(
    config: RunConfig,
    directory: RunDirectory | None,
    *,
    communicator: Communicator,
    log: Callable[[str], None],
) -> RunConfig:
    """The options with what the run to resume does, where they leave that open.

    Windows stay as they were before their version had an option. The batch of all ranks stays that
    of the run, whatever `batch_size_per_rank` makes of it at the number of ranks now.

    Args:
        config: every option; one of the windows that is not its default was chosen, and stays.
        directory: of the run, which rank 0 alone reads; None if nothing is resumed.
        communicator: the ranks.
        log: receives a line for each option that was chosen here, on rank 0.
    """
    known: dict[str, Any] = {}
    with communicator.raise_together():
        if communicator.is_main and directory is not None and RunDirectory.exists(directory.path):
            size = read_toml(directory.config_file).get("training", {}).get("batch_size")
            windows = earlier_options(directory.config_file)
            known = {"windows": windows, "batch_size": size}
    known = communicator.broadcast_json(known)
    lines, default, size = [], WindowConfig(), known.get("batch_size")
    for name, value in known.get("windows", {}).items():
        if getattr(config.windows, name) == getattr(default, name):
            config = replace(config, windows=replace(config.windows, **{name: value}))
            lines.append(
                f"the run is of an earlier version: {option(f'windows.{name}', value)} stays"
            )
    per_rank = config.training.batch_size_per_rank
    ranks = max(1, communicator.world_size // config.shard_sensors)  # with windows of their own
    if per_rank is not None and size is not None:
        training = replace(config.training, batch_size=size, batch_size_per_rank=None)
        config = replace(config, training=training)
        if size != per_rank * ranks:
            lines.append(
                f"{option('batch_size', size)} stays, with which the run began: "
                f"{option('batch_size_per_rank', per_rank)} on {count_of(ranks, 'rank')} would be "
                f"{per_rank * ranks}"
            )
    for line in lines if communicator.is_main else ():
        log(line)
    return config


def _was_started_by(directory: RunDirectory, job: Job | None) -> bool:
    """Whether the job was restarted, and the run is its own."""
    if job is None or not job.is_restart:
        return False
    return bool(directory.read_info().get("job") == job.name)


def _read_run(
    directory: RunDirectory, config: RunConfig, store: SeriesStore
) -> tuple[dict[str, Any], bytes]:
    """Facts of a run, and the archive of its last checkpoint, if there is one.

    Refuses another store or other options than the run's.
    """
    info, archive = directory.read_info(), b""
    if directory.last_checkpoint.exists():
        archive = read_checkpoint(directory.last_checkpoint)
        checkpoint = Checkpoint.parse(directory.last_checkpoint, archive)
        fingerprint, settings = checkpoint.fingerprint, checkpoint.settings
        started = info.get("started")
    else:  # it trains from the start
        fingerprint, started = str(info.get("fingerprint")), None
        settings = RunConfig.of_run(directory.config_file).settings()
    data = RunData.read(directory)
    num_steps = None if data is None else data.meta.num_steps
    rows = store
    if num_steps is not None and num_steps <= store.meta.num_steps:
        rows = store.prefix(num_steps)
    check_fingerprint(fingerprint, rows.fingerprint)
    name = config.model.name
    if is_own_model(name) and is_own_model(settings["model"]["name"]):  # its module may have moved
        settings = {**settings, "model": {**settings["model"], "name": name}}
    free = free_options(config.training)
    try:
        check_settings(complete_settings(settings), config.settings(), free=free)
    except ConfigError as error:  # in the file: the options now are checked already
        raise RunError(
            f"the checkpoint {directory.last_checkpoint} is damaged: in its settings, {error}; "
            "restore it from a copy, or train again"
        ) from error
    chosen = info.get("activation_checkpointing", info.get("recompute"))  # its name in 0.1
    facts = {
        "num_steps": num_steps,
        "started": started,
        "activation_checkpointing": chosen,
        "start": info.get("started_from"),
    }
    return facts, archive
