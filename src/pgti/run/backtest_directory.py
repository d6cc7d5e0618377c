"""The directory of a backtest: what it was started with, and the results of its folds.

backtest.json    every option, and the rows of the store
fold-1           the run of a fold
fold-1.json      the sums of its errors, once it is finished
lock             exists while a process works on it
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from typing import Any

from pgti.errors import Interrupted, RunError, option
from pgti.run.config import complete_settings
from pgti.storage import (
    file_lock,
    json_text,
    parse_json_object,
    reraise_os_errors,
    write_atomically,
)
from pgti.training.compatibility import check_settings, plain_settings

__all__ = ["BacktestDirectory"]

_SETTINGS = "backtest.json"
_LOCK = "lock"
_BINDING = {"training.epochs", "training.max_steps", "training.patience"}
"""Options that a run may change when it is resumed, and a backtest may not."""


class BacktestDirectory:
    """A backtest on the disk.

    Args:
        path: the directory, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_rows(self) -> int | None:
        """Rows of the store when the backtest began; None if it has not."""
        described = self.read(_SETTINGS)
        return None if described is None else int(described["rows"])

    @contextmanager
    def opened(self, settings: Mapping[str, Any], free: Set[str]) -> Iterator[None]:
        """Create the directory or continue in it; no other process does so inside the block.

        Args:
            settings: what determines the results, nested.
            free: dotted names of options that may change.

        Raises:
            RunError: if something else is there, another process works on it, or it was started
                with other options.
            Interrupted: in place of that of the block, saying how the backtest resumes.
        """
        now = plain_settings(settings)
        self._check(now, free - _BINDING)
        with reraise_os_errors(f"{self.path} cannot be written"):
            self.path.mkdir(parents=True, exist_ok=True)

        def refuse() -> None:
            raise RunError(
                f"another process works on the backtest {self.path}: wait until it has ended, or "
                f"choose another {option('out')}"
            )

        with file_lock(self.path / _LOCK, on_busy=refuse):
            self.write(_SETTINGS, now)
            try:
                yield
            except Interrupted as stop:
                name = Signals(stop.signal_number).name
                raise Interrupted(
                    f"stopped by {name}; the backtest {self.path} resumes if it is started again",
                    stop.signal_number,
                ) from None

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON object in one of its files; None if there is no such file.

        Raises:
            RunError: if it cannot be read.
        """
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return parse_json_object(path.read_text(encoding="utf-8"), path, RunError)
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path} cannot be read: {error}; remove it") from None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of its files."""
        write_atomically(self.path / name, json_text(content))

    def _check(self, settings: Mapping[str, Any], free: Set[str]) -> None:
        before = self.read(_SETTINGS)
        if before is None:
            if self.path.exists() and not (self.path.is_dir() and self._is_empty()):
                raise RunError(
                    f"{self.path} exists and is not a backtest: choose another {option('out')} or "
                    "remove what is there"
                )
            return
        try:
            check_settings(complete_settings(before), settings, free=free)
        except RunError as error:
            text = str(error).replace("the run was", "the backtest was")
            text = text.partition(": use the option")[0]
            raise RunError(
                f"{self.path}: {text}: use its option, or choose another {option('out')}"
            ) from None

    def _is_empty(self) -> bool:
        """Whether there is nothing but what a backtest that was killed at once left there."""
        names = [each.name for each in self.path.iterdir()]
        return all(name == _LOCK or name.endswith(".partial") for name in names)
