"""`pgti train`: train a model on a store."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.breakdowns import hardest_tables
from pgti.cli.error_tables import error_tables, note_better_baselines
from pgti.cli.flags import JsonFlag, heading
from pgti.cli.output import error_console, facts_table, log, print_results
from pgti.cli.recipe_tables import compare_run
from pgti.cli.run_options import RunFlags, allow_own_module, run_config
from pgti.display import count_of
from pgti.distributed import TIMEOUT_SECONDS
from pgti.errors import ConfigError, require_whole_number

if TYPE_CHECKING:
    from pgti.forecasting import Report
    from pgti.run import Run, RunConfig
    from pgti.run.warm_start import StartRun
    from pgti.training import FitResult

__all__ = ["train_command"]

_WINDOWS = "windows."  # flags of the windows


def train_command(
    store: Path,
    /,
    *,
    run: Annotated[Path, Parameter(name=("--run", "--run-dir"))],
    options: Annotated[RunFlags | None, Parameter(name="*")] = None,
    local_copy: Annotated[Path | None, Parameter(group=heading("Machine"))] = None,
    start: Annotated[Path | None, Parameter(name="--from", group=heading("Start"))] = None,
    from_checkpoint: Annotated[Literal["best", "last"], Parameter(group=heading("Start"))] = "best",
    refit_scaler: Annotated[bool, Parameter(group=heading("Start"))] = False,
    protocol: Annotated[str | None, Parameter(group=heading("Windows"))] = None,
    recipe: Annotated[str | None, Parameter(group=heading("Start"))] = None,
    resume: bool = False,
    overwrite: bool = False,
    peer_timeout: Annotated[float, Parameter(group=heading("Machine"))] = TIMEOUT_SECONDS,
    test_windows: Annotated[int | None, Parameter(group=heading("Output"))] = None,
    track: Annotated[tuple[str, ...], Parameter(group=heading("Output"))] = (),
    track_group: Annotated[str | None, Parameter(group=heading("Output"))] = None,
    tensorboard: Annotated[bool, Parameter(group=heading("Output"))] = False,
    json: JsonFlag = False,
) -> None:
    """Train a model and evaluate it on the test windows.

    Several ranks train together if torchrun, srun or mpirun launch the command. Options may also
    come from a TOML file (--config run.toml); command-line options override it.

    Args:
        store: The store to train on.
        run: Directory of the run; write --run-dir behind torchrun, which has options like --run.
        options: Options of the run.
        local_copy: Copy the store to this directory on a local disk first, once per machine.
        start: Directory of a run whose weights to start from, with its options where none are given
            here, on a store that may have other sensors or more rows.
        from_checkpoint: Its parameters to start from: the best by validation MAE, or the last.
        refit_scaler: Fit the scaler on the new training rows, in place of using that of the run.
        protocol: Windows as published for the data set of the store ("published") or of this name;
            other options come first.
        recipe: Windows, model and training as published, such as metr-la/dcrnn (`pgti recipes`
            lists them); other options come first.
        resume: Continue the run from its last checkpoint, with its options where none are given.
        overwrite: Replace a run that is there.
        peer_timeout: Seconds after which a rank that does not answer ends the job.
        test_windows: Evaluate at most this many test windows at the end, spread over the split.
        track: Show metrics, options and files of the run in these trackers: mlflow, tensorboard,
            trackio, wandb, at the address that their own environment variables say.
        track_group: Name under which trackers group the run with others.
        tensorboard: The same as --track tensorboard.
    """
    from pgti.cli.first_step import FirstStep
    from pgti.cli.job import open_job, open_local_copy, this_job
    from pgti.forecasting import RichObserver
    from pgti.memory import PeakMemory
    from pgti.run import train_run
    from pgti.run.tracking import Tracking

    began = time.perf_counter()
    first_step = FirstStep()
    _check_flags(test_windows, resume=resume, overwrite=overwrite)
    begin = _open_start(start, options or {}, from_checkpoint, refit_scaler=refit_scaler)
    config, notes = _configure(
        store, run, options or {}, begin, protocol, recipe=recipe, resume=resume
    )

    trackers = track + ("tensorboard",) * (tensorboard and "tensorboard" not in track)
    tracking = Tracking(trackers, log=log, group=track_group)
    with (
        PeakMemory() as memory,
        open_job(config.device, peer_timeout) as communicator,
        tracking,
    ):
        tracking.check(communicator)
        _log_notes(notes if communicator.is_main else ())
        trained, result = train_run(
            config,
            run,
            store=None if local_copy is None else open_local_copy(store, local_copy, communicator),
            start=begin,
            resume=resume,
            overwrite=overwrite,
            job=this_job(),
            log=log,
            observers=tracking.observers([RichObserver(error_console()), first_step]),
            communicator=communicator,
        )
        report = trained.read_test() if result.was_finished and test_windows is None else None
        if report is None and len(trained.splits.test):
            report = trained.evaluate("test", max_windows=test_windows)
            with communicator.raise_together():
                if communicator.is_main:
                    trained.directory.write_test(report.to_dict()["test"])
        test = None if report is None else report.to_dict()["test"]
        if test is not None and test_windows is None:
            tracking.log_test(test)
        sent = communicator.traffic.sent_bytes
    if not communicator.is_main:
        return
    if report is None:
        log("the test split has no windows: nothing was evaluated")
    first_step.log()
    if any(sent.values()):
        by_kind = ", ".join(f"{kind} {num_bytes:,}" for kind, num_bytes in sent.items())
        log(f"{count_of(communicator.world_size, 'rank')}; bytes that rank 0 sent: {by_kind}")
    content = _outcome(run, trained, result) | {
        "test": test,
        "seconds": time.perf_counter() - began,
        "seconds_to_training": first_step.began_after,
        "seconds_to_first_step": first_step.done_after,
        "peak_pss_bytes": memory.peak_bytes,
        "peak_device_bytes": result.peak_device_bytes,
        "world_size": communicator.world_size,
        "sent_bytes": sent,
    }
    errors = () if report is None else _errors(report, logged=trained.splits.notes)
    published, tables = compare_run(trained, test if test_windows is None else None)
    print_results(
        content | published, _summary(run, trained, result), *errors, *tables, as_json=json
    )


def _errors(report: "Report", logged: tuple[str, ...]) -> Iterator[Table]:
    """Tables of the test errors; their notes are logged, but those that training has logged."""
    for line in (*report.notes, *note_better_baselines(report)):
        if line not in logged:
            log(line)
    yield from error_tables(report)
    yield from hardest_tables(report)


def _check_flags(test_windows: int | None, *, resume: bool, overwrite: bool) -> None:
    if test_windows is not None:
        require_whole_number("test-windows", test_windows, 1)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: choose one of them")


def _log_notes(notes: tuple[str, ...]) -> None:
    for line in notes:
        log(line)


def _configure(
    store: Path,
    run: Path,
    options: RunFlags,
    begin: "StartRun | None",
    protocol: str | None,
    *,
    recipe: str | None,
    resume: bool,
) -> tuple["RunConfig", tuple[str, ...]]:
    """The options of the run, and what to say about its protocol or its recipe.

    They are given, or those of the protocol or recipe, or of the run to resume or to start from.
    """
    from pgti.run.config import read_toml
    from pgti.run.protocol import apply_protocol, note_windows
    from pgti.run.recipe import note_recipe, open_recipe, recipe_config, require_recipe
    from pgti.store import SeriesStore
    from pgti.training import RunDirectory

    file = {} if options.get("config") is None else read_toml(options["config"])
    table = file.get("model", {})
    named = table.get("name") if isinstance(table, Mapping) else table
    model = options.get("model.name") or (named if isinstance(named, str) else None)
    published = open_recipe(
        recipe or file.get("recipe"), model=model, protocol=protocol, start=begin is not None
    )
    notes: tuple[str, ...] = ()
    if protocol is not None:
        own = {name: value for name, value in options.items() if name.startswith(_WINDOWS)}
        given = {name.removeprefix(_WINDOWS): value for name, value in own.items()}
        chosen, notes = apply_protocol(protocol, SeriesStore.open(store), given)
        options = {**options, **{f"{_WINDOWS}{name}": each for name, each in chosen.items()}}
    if resume and RunDirectory.exists(run):
        config = run_config(store, options, run)
        require_recipe(published, config, run)
    elif published is not None:
        config = run_config(store, options, base=recipe_config(published, SeriesStore.open(store)))
    elif begin is not None:
        config = run_config(store, options, base=begin.config_for(SeriesStore.open(store)))
    else:
        config = run_config(store, options)
    if protocol is not None:
        notes += note_windows(protocol, SeriesStore.open(store), config)
    if config.recipe is not None:
        notes += note_recipe(SeriesStore.open(store), config)
    return config, notes


def _open_start(
    start: Path | None, options: RunFlags, checkpoint: str, *, refit_scaler: bool
) -> "StartRun | None":
    """The run to start from, if there is one."""
    if start is None:
        if refit_scaler or checkpoint != "best":
            raise ConfigError("--refit-scaler and --from-checkpoint belong to --from RUN: add it")
        return None
    from pgti.run.warm_start import StartRun

    model = options.get("model.name")
    allow_own_module(model)
    return StartRun.of(start, checkpoint=checkpoint, model=model, refit_scaler=refit_scaler)


def _num_windows(trained: "Run") -> dict[str, int]:
    from pgti.windows import SPLIT_NAMES

    return {name: len(trained.splits.starts(name)) for name in SPLIT_NAMES}


def _outcome(run: Path, trained: "Run", result: "FitResult") -> dict[str, Any]:
    """The same, for the JSON object."""
    return {
        "run": str(run),
        "epochs": result.epochs,
        "steps": result.steps,
        "train_loss": result.train_loss,
        "val": {"mae": result.best_val_mae},
        "best_epoch": result.best_epoch,
        "windows": _num_windows(trained),
        "edges": trained.store.meta.num_edges,
        "windows_per_second": result.windows_per_second,
        "parameters": result.parameters,
        "training_seconds": result.seconds,
    }


def _summary(run: Path, trained: "Run", result: "FitResult") -> Table:
    """What was trained, on what, and how it ended."""
    meta, windows = trained.store.meta, _num_windows(trained)
    units = {meta.units[channel] for channel in trained.source.target_indices}
    epochs = f"{result.epochs} of {trained.config.training.epochs}"
    if result.stopped_early:
        epochs += ", stopped early"
    return facts_table(
        f"the run in {run}",
        {
            "model": f"{trained.config.model.name}, {count_of(result.parameters, 'parameter')}",
            "graph": f"{count_of(meta.num_nodes, 'sensor')}, {count_of(meta.num_edges, 'edge')}",
            "windows": ", ".join(f"{name} {number:,}" for name, number in windows.items()),
            "epochs": f"{epochs}; {count_of(result.steps, 'step')} in {result.seconds:,.0f} s",
            "best epoch": f"{result.best_epoch or '0 (the weights that it started from)'}, "
            f"validation MAE {result.best_val_mae:.4f} " + (units.pop() if len(units) == 1 else ""),
        },
    )
