"""The trainings of a study: each a process that runs `pgti train`, some at the same time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgti.errors import ConfigError, PgtiError, RunError, option
from pgti.storage import parse_json_object, reraise_os_errors, write_atomically

__all__ = ["StudyTraining", "run_training", "run_trainings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyTraining:
    """One configuration with one seed.

    Attributes:
        row: of the table that it belongs to.
        config: the TOML file that it is trained with.
        seed: of the run.
        directory: of its run and its result.
        identity: of store, configuration, own network and test windows; results with another one
            are refused.
    """

    row: str
    config: Path
    seed: int
    directory: Path
    identity: str

    @property
    def name(self) -> str:
        """Row and seed."""
        return f"{self.row}, seed {self.seed}"

    def command(self, store: Path, test_windows: int | None) -> list[str]:
        """The command that trains it, or resumes its training."""
        limit = [] if test_windows is None else ["--test-windows", str(test_windows)]
        where = ["--run", str(self.directory / "run"), "--resume", "--json"]
        return [
            *(sys.executable, "-m", "pgti", "train", str(store), "--config", str(self.config)),
            *("--seed", str(self.seed), *limit, *where),
        ]

    def read_result(self) -> dict[str, Any] | None:
        """The result of a finished training; None if it is not finished.

        Raises:
            ConfigError: it was trained on another store, or with another configuration or network.
        """
        path = self.directory / "result.json"
        if not path.exists():
            return None
        with reraise_os_errors(f"{path} cannot be read"):
            result = parse_json_object(path.read_text("utf-8", "replace"), path, RunError)
        if result.get("identity") != self.identity:
            raise ConfigError(
                f"{self.directory} contains a training of another store, configuration or network "
                f"of your own: remove it, or choose another {option('workdir')}"
            )
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        """Keep the result of a finished training."""
        text = json.dumps(result | {"identity": self.identity}, allow_nan=False)
        write_atomically(self.directory / "result.json", text.encode())


def run_trainings(
    trainings: Sequence[StudyTraining],
    command_of: Callable[[StudyTraining], Sequence[str]],
    *,
    jobs: int,
    threads: int,
    log: Callable[[str], None],
) -> Iterator[tuple[StudyTraining, dict[str, Any] | PgtiError]]:
    """Run trainings, and yield each with its result, or with the error that ended it.

    Args:
        trainings: in the order in which they start.
        command_of: the command of a training.
        jobs: maximum number of trainings at the same time.
        threads: of each training.
        log: receives one line for each thing that is done.
    """
    started: list[subprocess.Popen[bytes]] = []

    def train(training: StudyTraining) -> dict[str, Any] | PgtiError:
        log(f"training {training.name}")
        try:
            result = run_training(command_of(training), training.directory, threads, started)
        except PgtiError as error:
            log(f"{training.name} failed: {error}")
            return error
        mae = result["test"]["mae"]["mean"]
        log(f"{training.name}: test MAE {mae:.3f} after {result['seconds']:,.0f} s")
        return result

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(train, training): training for training in trainings}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                if process.poll() is None:
                    process.terminate()  # it saves its state and ends


def run_training(
    command: Sequence[str], directory: Path, threads: int, started: list[subprocess.Popen[bytes]]
) -> dict[str, Any]:
    """Run a training to its end; returns the JSON object that it printed.

    Args:
        command: prints the object.
        directory: receives its output and its log.
        threads: of the process.
        started: receives the process.

    Raises:
        RunError: it failed, or there are no test metrics.
    """
    directory.mkdir(parents=True, exist_ok=True)
    output, log = directory / "output.txt", directory / "log.txt"
    with output.open("w") as out, log.open("w") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
    started.append(process)
    if process.wait():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        message = lines[-1] if lines else f"exit code {process.returncode}"
        raise RunError(message.removeprefix("pgti: ").removeprefix("error: "))
    result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    test = result.get("test")
    if not test or test["mae"]["mean"] is None:
        raise RunError("no target of the test windows was observed: there are no test metrics")
    return result
