"""The trainings of a study: each a process that runs `pgti train`, some at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgti.bench.measured_commands import last_message, last_object
from pgti.errors import BenchError, ConfigError

__all__ = ["StudyTraining", "run_trainings"]

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyTraining:
    """One model with one seed.

    Args:
        model: its name.
        config: the TOML file that it is trained with.
        seed: of the run.
        directory: where its run and what it gave stay.
    """

    model: str
    config: Path
    seed: int
    directory: Path

    @property
    def result_path(self) -> Path:
        """Where what it gave is kept."""
        return self.directory / "result.json"

    def command(self, store: Path, test_windows: int | None) -> list[str]:
        """What trains it, or goes on with it."""
        limit = [] if test_windows is None else ["--test-windows", str(test_windows)]
        where = ["--run", str(self.directory / "run"), "--resume", "--json"]
        return [
            *(sys.executable, "-m", "pgti", "train", str(store), "--config", str(self.config)),
            *("--seed", str(self.seed), *limit, *where),
        ]

    def finished(self, identity: str) -> dict[str, Any] | None:
        """What it gave, if it was trained to the end.

        Raises:
            ConfigError: it was trained on another store, or with another configuration.
        """
        if not self.result_path.exists():
            return None
        result: dict[str, Any] = json.loads(self.result_path.read_text(encoding="utf-8"))
        if result["identity"] != identity:
            raise ConfigError(
                f"{self.directory} holds a training of another store or configuration: remove "
                "it, or choose another --workdir"
            )
        return result


class _Running:
    """A training in a process of its own."""

    def __init__(self, training: StudyTraining, command: Sequence[str], threads: int) -> None:
        self.training = training
        training.directory.mkdir(parents=True, exist_ok=True)
        self._output = training.directory / "output.txt"
        self._log = training.directory / "log.txt"
        with self._output.open("w") as output, self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,
            )

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> dict[str, Any]:
        """What it printed.

        Raises:
            BenchError: it failed, with the last line that it said, or measured no test error.
        """
        if self._process.returncode:
            messages = self._log.read_text(encoding="utf-8", errors="replace")
            raise BenchError(last_message(messages) or f"exit code {self._process.returncode}")
        result = dict(last_object(self._output.read_text(encoding="utf-8")))
        test = result.get("test")
        if not test or test["mae"]["mean"] is None:
            raise BenchError(
                "no target of its test windows was observed: there is no error to show"
            )
        return result

    def stop(self) -> None:
        """End it as a user would: its state is saved."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()


def run_trainings(
    waiting: Sequence[StudyTraining],
    command_of: Callable[[StudyTraining], Sequence[str]],
    *,
    jobs: int,
    threads: int,
    left_out: list[str],
    log: Callable[[str], None],
) -> Iterator[tuple[StudyTraining, dict[str, Any]]]:
    """Run trainings, and give each with what it printed as they end.

    Args:
        waiting: in the order in which they begin.
        command_of: what to run for one.
        jobs: at the same time, at most.
        threads: that each computes with.
        left_out: takes the reasons of those that failed.
        log: told what is being done, a line each.
    """
    queue, running = list(waiting), list[_Running]()
    try:
        while queue or running:
            while queue and len(running) < jobs:
                training = queue.pop(0)
                log(f"training {training.model}, seed {training.seed}")
                running.append(_Running(training, command_of(training), threads))
            time.sleep(_LOOK_SECONDS)
            for each in [each for each in running if each.is_over]:
                running.remove(each)
                name = f"{each.training.model}, seed {each.training.seed}"
                try:
                    result = each.result()
                except BenchError as error:
                    log(f"{name} failed: {error}")
                    left_out.append(f"{name}: {error}")
                    continue
                mae = result["test"]["mae"]["mean"]
                log(f"{name}: test MAE {mae:.3f} after {result['seconds']:,.0f} s")
                yield each.training, result
    finally:
        for each in running:
            each.stop()
