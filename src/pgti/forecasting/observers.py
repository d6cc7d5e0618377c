"""Observers of training, evaluation and prediction, and the one that shows progress."""

import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from pgti.display import printable

__all__ = ["Observer", "RichObserver"]

Record = Mapping[str, Any]
ReadLoss = Callable[[], float | None]

_SECONDS_TO_FIRST_LINE, _SECONDS_PER_LINE = 10.0, 60.0
_SECONDS_PER_DRAWING = 0.25


class Observer:
    """Receives progress and metrics, all of which it may ignore; it cannot change them."""

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """A pass over `num_windows` windows begins, of which `done` are done already.

        `step` is the number of optimizer steps so far; None in a pass that takes none.
        """

    def advance(self, num_windows: int, loss: ReadLoss | None = None) -> None:
        """The pass has done that many more windows.

        `loss` reads the mean training loss of the epoch so far, on this rank, and waits for the
        device; None in a pass that does not train.
        """

    def record(self, record: Record) -> None:
        """A line was added to `metrics.jsonl`."""

    def close(self) -> None:
        """No more calls follow."""


class RichObserver(Observer):
    """A progress bar with loss, windows per second and time left, and a line per epoch.

    If standard error is neither a terminal nor a notebook, it writes lines alone: one per epoch,
    and one ten seconds after the first pass began and about every minute from then on. Each has
    the time, the step, the loss and the rate.

    Args:
        console: where to write; standard error if None.
        clock: gives the seconds that pass.
    """

    def __init__(
        self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._clock = clock
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}", markup=False),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            # Rich draws in notebooks by ipywidgets, which few have; this class draws itself there.
            disable=self._console.is_jupyter or not self._console.is_terminal,
        )
        self._draws = self._console.is_jupyter or self._console.is_terminal
        self._notebook: Any = None
        self._task: TaskID | None = None
        self._step: int | None = None
        self._line_at = self._drawn_at = 0.0
        self._seconds_to_line = _SECONDS_TO_FIRST_LINE
        self._line_windows = 0

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """Replace the bar of the last pass."""
        self._progress.start()
        if self._console.is_jupyter and self._notebook is None:
            from IPython.display import display  # noqa: PLC0415 - a notebook has it

            self._notebook = display(self._progress, display_id=True)  # type: ignore[no-untyped-call] # IPython
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(
            printable(label), total=num_windows, completed=done, loss="", speed=""
        )
        self._step, self._line_at, self._line_windows = step, self._clock(), done
        self._draw()

    def advance(self, num_windows: int, loss: ReadLoss | None = None) -> None:
        """Advance the bar, or write a line if a minute has passed."""
        if self._task is None:
            return
        self._progress.advance(self._task, num_windows)
        if self._step is not None:
            self._step += 1
        task = self._progress.tasks[0]
        if not self._draws:
            self._print_if_due(task, loss)
        elif task.speed is not None and math.isfinite(task.speed):
            self._progress.update(self._task, speed=f"{task.speed:,.0f} windows/s")
        if self._clock() - self._drawn_at >= _SECONDS_PER_DRAWING:
            self._draw()

    def record(self, record: Record) -> None:
        """Show the loss, and write a line at the end of an epoch."""
        if record["kind"] == "step":
            if self._task is not None:
                self._progress.update(self._task, loss=f"loss {_shown(record['train_loss'])}")
            return
        errors = f"val MAE {_shown(record['val']['mae'])}"
        if not record["epoch"]:
            self._print(f"epoch 0, the weights that training starts from: {errors}")
            return
        self._print(
            f"epoch {record['epoch']}: train loss {_shown(record['train_loss'])}, {errors}, "
            f"{record['windows_per_second']:,.0f} windows/s, lr {record['lr']:.2g}, "
            f"{record['seconds']:.1f} s, step {record['step']:,}"
        )

    def close(self) -> None:
        """Remove the bar."""
        if not self._progress.disable:
            self._progress.stop()
        if self._notebook is not None:
            self._notebook.update({"text/plain": ""}, raw=True)
            self._notebook = None

    def _draw(self) -> None:
        """Draw the bar anew in a notebook; on a terminal rich does so by itself."""
        self._drawn_at = self._clock()
        if self._notebook is not None:
            self._notebook.update(self._progress)

    def _print_if_due(self, task: Task, loss: ReadLoss | None) -> None:
        """Write how far the pass has come, about once a minute."""
        seconds = self._clock() - self._line_at
        if seconds < self._seconds_to_line:
            return
        self._seconds_to_line = _SECONDS_PER_LINE
        done = int(task.completed)
        parts = [
            *([] if self._step is None else [f"step {self._step:,}"]),
            f"{done:,} of {task.total:,.0f} windows",
            *([] if loss is None else [f"loss {_shown(loss())}"]),
            f"{(done - self._line_windows) / seconds:,.1f} windows/s",
        ]
        self._print(f"{task.description}: {', '.join(parts)}")
        self._line_at, self._line_windows = self._clock(), done

    def _print(self, line: str) -> None:
        if not self._draws:
            line = f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}"
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
