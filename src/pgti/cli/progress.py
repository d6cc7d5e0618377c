"""Progress on standard error: on a terminal bars for bytes and rows, and lines above them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pgti.cli.output import error_console, log
from pgti.display import printable

__all__ = ["Bars", "progress_bars"]

_SECONDS_PER_LINE = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """What shows progress while something is read.

    Attributes:
        log: prints a line.
        rows: shows the number of rows read, and their total where it is known.
        download: shows the bytes of a file, by name, that have arrived, and their total.
    """

    log: Callable[[str], None] = log
    rows: Callable[[int, int | None], None] = lambda *_: None
    download: Callable[[str, int, int | None], None] = lambda *_: None


@contextmanager
def progress_bars(
    label: str, console: Console | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Bars]:
    """Bars that are drawn while the block runs; without a terminal, a line of rows a minute.

    Args:
        label: text before the bar for rows; a download has the name of its file.
        console: where to draw; standard error by default.
        clock: gives the seconds that pass.
    """
    console = console or error_console()
    if not console.is_terminal:
        yield Bars(rows=_row_lines(label, clock))
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bar:

        def print_line(line: str) -> None:
            shown = f"pgti: {printable(line)}"
            bar.console.print(shown, markup=False, highlight=False, soft_wrap=True)

        def show(name: str, done: int, total: int | None, amount: str) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(printable(name), total=total, amount=amount)
            bar.update(tasks[name], completed=done, total=total, amount=amount)

        def show_bytes(name: str, done: int, total: int | None) -> None:
            whole = "" if total is None else f" of {total / 1e6:,.1f}"
            show(name, done, total, f"{done / 1e6:,.1f}{whole} MB")

        def show_rows(done: int, total: int | None) -> None:
            show(label, done, total, _rows(done, total))

        yield Bars(log=print_line, rows=show_rows, download=show_bytes)


def _row_lines(label: str, clock: Callable[[], float]) -> Callable[[int, int | None], None]:
    """What logs the number of rows about once a minute."""
    line_at = clock()

    def show(done: int, total: int | None) -> None:
        nonlocal line_at
        if clock() - line_at >= _SECONDS_PER_LINE:
            log(f"{label}: {_rows(done, total)}")
            line_at = clock()

    return show


def _rows(done: int, total: int | None) -> str:
    return f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows"
