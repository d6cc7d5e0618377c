"""The directory of a run: how its files are read and written."""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from pgti.errors import RunError, option
from pgti.storage import (
    StagedDirectory,
    file_lock,
    json_text,
    parse_json_object,
    recover_displaced,
    remove_partial_files,
    reraise_os_errors,
    write_atomically,
)
from pgti.training.checkpoint import Checkpoint
from pgti.training.run_files import RunFiles

__all__ = ["RunDirectory", "describe_environment", "now"]


def describe_environment() -> dict[str, str]:
    """Versions and platform that a result depends on."""
    return {
        "pgti": version("pgti"),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def now() -> str:
    """The current time in UTC, to the second."""
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


@contextmanager
def _naming(path: Path, staged: Path) -> Iterator[None]:
    """Let errors of the block name a run by the name that it would have got."""
    try:
        yield
    except RunError as error:
        raise RunError(str(error).replace(str(staged), str(path))) from error


class RunDirectory(RunFiles):
    """A run on the disk. `create` makes a new one, `open` opens an existing one.

    Args:
        path: the directory.
    """

    # -- creating and opening ---------------------------------------------------------------------

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether there is a run at `path`, finished or not."""
        return (Path(path) / "config.toml").is_file()

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        config: str,
        info: Mapping[str, Any],
        data: Mapping[str, bytes] | None = None,
        overwrite: bool = False,
        checkpoint: Checkpoint | None = None,
    ) -> "RunDirectory":
        """Create the directory of a new run; it appears complete or not at all.

        Args:
            path: must not exist, or be an empty directory.
            config: content of `config.toml`.
            info: content of `run.json`; versions, platform and the time are added to it.
            data: content of each file of `data/` by name.
            overwrite: replace a run that is there.
            checkpoint: what the run resumes from, if it does not start from new weights.

        Raises:
            RunError: if something is there that must stay, or it cannot be written.
        """
        path = Path(path).absolute()
        check = partial(cls.check_free, overwrite=overwrite)
        staged = StagedDirectory(path, check_target=check, overwrite=overwrite)
        with reraise_os_errors(f"{path} cannot be written"), staged, _naming(path, staged.path):
            run = cls(staged.path)
            run.last_checkpoint.parent.mkdir()
            run.write_config(config)
            run.write_beginning(info)
            run.write_data(data or {})
            run.metrics_file.touch()
            if checkpoint is not None:
                checkpoint.save(run.last_checkpoint)
            staged.publish()
        return cls(path)

    @classmethod
    def check_free(cls, path: Path, *, overwrite: bool = False) -> None:
        """Refuse a path where a new run cannot be created.

        Args:
            path: of the run.
            overwrite: whether a run that is there may be replaced.

        Raises:
            RunError: if there is a run that must stay or is being trained, or anything else but an
                empty directory.
        """
        if cls.exists(path) and overwrite:
            with cls(path).locked():
                return
        if cls.exists(path):
            raise RunError(
                f"{path} holds a run already: resume it with {option('resume', value=True)}, "
                f"replace it with {option('overwrite', value=True)}, or choose another "
                f"{option('run')}"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path} exists and is not a run: choose another {option('run')} or remove "
                "what is there"
            )

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """Open a run for reading.

        Raises:
            RunError: if there is no run.
        """
        path = Path(path).absolute()
        if not path.is_dir() and not recover_displaced(path):
            raise RunError(f"{path} is not a run: there is no such directory; train to make one")
        if not cls.exists(path):
            raise RunError(f"{path} is not a run: it has no config.toml; train to make one")
        return cls(path)

    @contextmanager
    def locked(self, log: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Keep every other process from training this run, until the block or the process ends.

        Args:
            log: told where the file system cannot lock.

        Raises:
            RunError: if another process trains it, or the lock file cannot be written.
        """

        def refuse() -> None:
            raise RunError(
                f"{self.path} is being trained by another process: wait until it has ended, or "
                f"choose another {option('run')}"
            )

        with file_lock(self.lock_file, on_busy=refuse) as is_held:
            if not is_held:  # another user's file, or a file system that cannot lock: train then
                with reraise_os_errors(f"{self.lock_file} cannot be written"):
                    self.lock_file.open("ab").close()
                log(f"{self.path} cannot be locked: let no other process train it meanwhile")
            yield

    def remove(self) -> None:
        """Remove the whole run; for the process that has just created it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def clean(self) -> None:
        """Remove files that a killed process left half-written; for the process that trains."""
        with reraise_os_errors(f"{self.path} cannot be written"):
            remove_partial_files(self.path)
            remove_partial_files(self.last_checkpoint.parent)

    # -- content ----------------------------------------------------------------------------------

    def read_config(self) -> str:
        """Content of `config.toml`."""
        return self._read(self.config_file)

    def write_config(self, text: str) -> None:
        """Replace `config.toml`: some options of a resumed run may change."""
        write_atomically(self.config_file, text.encode())

    def read_info(self) -> dict[str, Any]:
        """Content of `run.json`."""
        info = self._read_json(self.info_file)
        windows = info.get("windows", {})
        if not isinstance(windows, dict) or not all(isinstance(n, int) for n in windows.values()):
            raise RunError(f"{self.info_file} is damaged: its windows are {windows!r}")
        return info

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_atomically(self.info_file, json_text(info))

    def write_beginning(self, info: Mapping[str, Any], *, started: str | None = None) -> None:
        """Replace `run.json` when training starts or resumes.

        Args:
            info: what the caller knows; versions, platform and the time are added.
            started: when the run started, if not now.
        """
        self.write_info({**describe_environment(), **info, "started": started or now()})

    def write_data(self, files: Mapping[str, bytes]) -> None:
        """Write the files of `data/`.

        Raises:
            RunError: if they cannot be written.
        """
        if not files:
            return
        with reraise_os_errors(f"{self.data_directory} cannot be written"):
            self.data_directory.mkdir(exist_ok=True)
            for name, content in files.items():
                write_atomically(self.data_directory / name, content)

    def update_info(self, **values: object) -> None:
        """Set some fields of `run.json`."""
        self.write_info({**self.read_info(), **values})

    def write_test(self, report: Mapping[str, Any]) -> None:
        """Write `test.json`."""
        write_atomically(self.test_file, json_text(report))

    def read_test(self) -> dict[str, Any] | None:
        """Content of `test.json`; None if there is none."""
        return self._read_json(self.test_file) if self.test_file.exists() else None

    def forget_test(self) -> None:
        """Remove `test.json`: training will end with other parameters."""
        with reraise_os_errors(f"{self.test_file} cannot be written"):
            self.test_file.unlink(missing_ok=True)

    def load_last(self) -> Checkpoint:
        """The state to resume from, on the CPU."""
        return Checkpoint.load(self.last_checkpoint)

    def load_best(self) -> Checkpoint:
        """The state with the lowest validation MAE, on the CPU."""
        return Checkpoint.load(self.best_checkpoint)

    # -- metrics ----------------------------------------------------------------------------------

    def append_metrics(self, record: Mapping[str, Any]) -> int:
        """Append a line to `metrics.jsonl` and flush it to the disk; returns the new length.

        Raises:
            RunError: if it cannot be written.
        """
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self._append_to_metrics() as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def truncate_metrics(self, num_bytes: int) -> None:
        """Remove the lines after the checkpoint that a run resumes from.

        Raises:
            RunError: if the file is shorter than that, or cannot be written.
        """
        with self._append_to_metrics() as file:
            length = file.tell()
            if length < num_bytes:
                raise RunError(
                    f"{self.metrics_file} has {length} bytes and had {num_bytes} at the "
                    "checkpoint: it was changed since; restore it or start a new run"
                )
            file.truncate(num_bytes)

    @contextmanager
    def _append_to_metrics(self) -> Iterator[BinaryIO]:
        problem = f"{self.metrics_file} cannot be written"
        with reraise_os_errors(problem), self.metrics_file.open("ab") as file:
            yield file

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, without half a line that a killed process left."""
        lines = self._read(self.metrics_file).split("\n")[:-1]
        records = [parse_json_object(line, self.metrics_file, RunError) for line in lines]
        wrong = next((number for number, each in enumerate(records, 1) if not _is_record(each)), 0)
        if wrong:
            raise RunError(
                f"{self.metrics_file} is damaged: line {wrong} is none of an epoch or a step; "
                "copy the run again"
            )
        return records

    def read_history(self) -> pd.DataFrame:
        """A row for each epoch that was validated, from `metrics.jsonl`.

        Columns: `epoch` (from 1; 0 for the weights of another run that training starts from),
        `step` (optimizer steps so far), `train_loss`, a `val_` column per metric in original units,
        `lr`, `seconds` (of training in the epoch) and `windows_per_second`.
        """
        records = self.read_metrics() if self.metrics_file.exists() else []
        epochs = [each for each in records if each["kind"] == "epoch"]
        frame = pd.json_normalize(epochs, sep="_") if epochs else pd.DataFrame(columns=["val_mae"])
        errors = [name for name in frame if str(name).startswith("val_")]
        first, last = ["epoch", "step", "train_loss"], ["lr", "seconds", "windows_per_second"]
        return frame.reindex(columns=[*first, *errors, *last])

    # -- reading ----------------------------------------------------------------------------------

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def _read_json(self, path: Path) -> dict[str, Any]:
        return parse_json_object(self._read(path), path, RunError)


def _are_numbers(value: Any) -> bool:
    """Whether a value is a number, or absent, or a mapping of those."""
    if isinstance(value, dict):
        return all(map(_are_numbers, value.values()))
    return value is None or isinstance(value, int | float)


def _is_record(record: Mapping[str, Any]) -> bool:
    """Whether training may have written a line of `metrics.jsonl`."""
    rest = {name: each for name, each in record.items() if name != "kind"}
    is_epoch = record.get("kind") == "epoch"
    return (
        isinstance(record.get("kind"), str)
        and all(isinstance(record.get(name), int) for name in ("epoch", "step"))
        and _are_numbers(rest)
        and (not is_epoch or (isinstance(record.get("val"), dict) and "mae" in record["val"]))
    )
