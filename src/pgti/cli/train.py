"""`pgti train`: train a model on a store."""

import time
from pathlib import Path
from typing import Annotated, Any

import psutil
from cyclopts import Parameter

from pgti.cli.job import open_job, open_local_copy, this_job
from pgti.cli.output import log, print_json, show_errors
from pgti.cli.run_options import RunFlags, run_config
from pgti.distributed import TIMEOUT_SECONDS
from pgti.errors import require_whole_number
from pgti.forecasting import Observer, RichObserver, TensorBoardObserver
from pgti.memory import PeakMemory
from pgti.run import train_run
from pgti.training import RunDirectory

__all__ = ["train_command"]


def train_command(
    store: Path,
    /,
    *,
    run: Annotated[Path, Parameter(name=("--run", "--run-dir"))],
    options: Annotated[RunFlags | None, Parameter(name="*")] = None,
    local_copy: Path | None = None,
    resume: bool = False,
    peer_timeout: float = TIMEOUT_SECONDS,
    test_windows: int | None = None,
    tensorboard: bool = False,
    json: bool = False,
) -> None:
    """Train a model and evaluate it on the test windows.

    Several ranks train together if torchrun, srun or mpirun launch the command. Options may also
    come from a TOML file (--config run.toml); command-line options override it.

    Args:
        store: The store to train on.
        run: Directory of the run: created, or continued with --resume. With torchrun, which has
            options that begin with --run itself, use --run-dir.
        options: Options of the run.
        local_copy: Copy the store to this directory on a local disk first, once per machine; later
            runs use the copy. For stores on a shared file system.
        resume: Continue from the last checkpoint of the run, with any number of ranks. A process
            that torchrun has restarted resumes automatically.
        peer_timeout: Seconds after which a rank that does not answer ends the job.
        test_windows: Evaluate at most this many test windows at the end, spread evenly over the
            split.
        tensorboard: Also write TensorBoard events.
        json: Print one JSON object as the last line of standard output.
    """
    began = time.perf_counter()
    first_step = _FirstStep()
    if test_windows is not None:
        require_whole_number("test-windows", test_windows, 1)
    config = run_config(store, options or {})

    def observers(directory: RunDirectory) -> list[Observer]:
        chosen: list[Observer] = [RichObserver(), first_step]
        if tensorboard:
            chosen.append(TensorBoardObserver(directory.tensorboard_directory))
        return chosen

    with PeakMemory() as memory, open_job(config.device, peer_timeout) as communicator:
        trained, result = train_run(
            config,
            run,
            store=None if local_copy is None else open_local_copy(store, local_copy, communicator),
            resume=resume,
            job=this_job(),
            log=log,
            observers=observers,
            communicator=communicator,
        )
        report: dict[str, Any] = {}
        if trained.splits.test:
            report = trained.evaluate("test", max_windows=test_windows).to_dict()
        with communicator.raise_together():
            if report and communicator.is_main:
                trained.directory.write_test(report["test"])
        sent = communicator.traffic.sent_bytes
    if not communicator.is_main:
        return
    if report:
        show_errors("test", report["test"], config.model.name)
    else:
        log("the test split has no windows: nothing was evaluated")
    first_step.log()
    if any(sent.values()):
        by_kind = ", ".join(f"{kind} {num_bytes:,}" for kind, num_bytes in sent.items())
        log(f"{communicator.world_size} ranks; bytes that rank 0 sent: {by_kind}")
    log(f"the run is in {run}")
    if json:
        print_json(
            {
                "run": str(run),
                "epochs": result.epochs,
                "steps": result.steps,
                "train_loss": result.train_loss,
                "val": {"mae": result.best_val_mae},
                "best_epoch": result.best_epoch,
                "test": report.get("test"),
                "windows_per_second": result.windows_per_second,
                "parameters": result.parameters,
                "seconds": time.perf_counter() - began,
                "training_seconds": result.seconds,
                "seconds_to_training": first_step.began_after,
                "seconds_to_first_step": first_step.done_after,
                "peak_pss_bytes": memory.peak_bytes,
                "world_size": communicator.world_size,
                "sent_bytes": sent,
            }
        )


class _FirstStep(Observer):
    """Measures how long a user waits for the first optimizer step.

    Attributes:
        began_after: seconds from the start of the process to the beginning of the first step, or
            None.
        done_after: seconds from the start of the process to its end, or None.
    """

    def __init__(self) -> None:
        self.began_after: float | None = None
        self.done_after: float | None = None
        self._is_training = False
        self._started = psutil.Process().create_time()

    def begin(self, label: str, num_windows: int, done: int = 0) -> None:
        """A pass begins: over training windows, unless a resumed run only has to be validated."""
        self._is_training = label != "evaluating"
        if self.began_after is None and self._is_training:
            self.began_after = time.time() - self._started

    def advance(self, num_windows: int) -> None:
        """A step is done."""
        if self.done_after is None and self._is_training:
            self.done_after = time.time() - self._started

    def log(self) -> None:
        """Log both times, if a step was taken."""
        if self.began_after is not None and self.done_after is not None:
            log(
                f"the first optimizer step began {self.began_after:.1f} s after the command and "
                f"took {self.done_after - self.began_after:.1f} s"
            )
