"""Observers of training, evaluation and prediction: a progress bar and TensorBoard."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from pgti.errors import MissingExtraError

__all__ = ["Observer", "RichObserver", "TensorBoardObserver"]

Record = Mapping[str, Any]


class Observer:
    """Receives progress and metrics, all of which it may ignore; it cannot change them."""

    def begin(self, label: str, num_windows: int, done: int = 0) -> None:
        """A pass over `num_windows` windows begins, of which `done` are done already."""

    def advance(self, num_windows: int) -> None:
        """The pass has done that many more windows."""

    def record(self, record: Record) -> None:
        """A line was added to `metrics.jsonl`."""

    def close(self) -> None:
        """No more calls follow."""


class RichObserver(Observer):
    """A progress bar with loss, windows per second and time left, and a line per epoch.

    If standard error is not a terminal, it writes only the lines.

    Args:
        console: where to write; standard error if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def begin(self, label: str, num_windows: int, done: int = 0) -> None:
        """Replace the bar of the last pass."""
        self._progress.start()
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(
            label, total=num_windows, completed=done, loss="", speed=""
        )

    def advance(self, num_windows: int) -> None:
        """Advance the bar."""
        if self._task is None:
            return
        self._progress.advance(self._task, num_windows)
        speed = self._progress.tasks[0].speed
        if speed is not None and math.isfinite(speed):
            self._progress.update(self._task, speed=f"{speed:,.0f} windows/s")

    def record(self, record: Record) -> None:
        """Show the loss, and write a line at the end of an epoch."""
        if record["kind"] == "step":
            if self._task is not None:
                self._progress.update(self._task, loss=f"loss {record['train_loss']:.4f}")
            return
        self._console.print(
            f"epoch {record['epoch']}: train loss {_shown(record['train_loss'])}, "
            f"val MAE {_shown(record['val']['mae'])}, "
            f"{record['windows_per_second']:,.0f} windows/s, lr {record['lr']:.2g}, "
            f"{record['seconds']:.1f} s",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Remove the bar."""
        if not self._progress.disable:
            self._progress.stop()


class TensorBoardObserver(Observer):
    """Writes the metrics of a run as TensorBoard scalars; the file appears with the first.

    TensorBoard discards earlier events of steps that a resumed run repeats.

    Args:
        directory: of the event files.

    Raises:
        MissingExtraError: if tensorboard is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard") from None
        self._directory = directory
        self._make_writer = SummaryWriter
        self._writer: SummaryWriter | None = None

    def record(self, record: Record) -> None:
        """Write every number of the line at its step."""
        if self._writer is None:
            self._writer = self._make_writer(str(self._directory), purge_step=record["step"])
        for name, value in _scalars(record).items():
            if name not in {"step", "epoch"}:
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _scalars(record: Record, prefix: str = "") -> dict[str, float]:
    """The numbers of a nested record by dotted name."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = value
    return found
