"""Progress on standard error: on a terminal bars for bytes and rows, and lines above them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pgti.cli.output import error_console, log

__all__ = ["Bars", "progress_bars"]


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
def progress_bars(label: str, console: Console | None = None) -> Iterator[Bars]:
    """Bars that are drawn while the block runs; without a terminal they only log lines.

    Args:
        label: text before the bar for rows; a download has the name of its file.
        console: where to draw; standard error by default.
    """
    console = console or error_console()
    if not console.is_terminal:
        yield Bars()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bar:

        def print_line(line: str) -> None:
            bar.console.print(f"pgti: {line}", markup=False, highlight=False, soft_wrap=True)

        def show(name: str, done: int, total: int | None, amount: str) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total, amount=amount)
            bar.update(tasks[name], completed=done, total=total, amount=amount)

        def show_bytes(name: str, done: int, total: int | None) -> None:
            whole = "" if total is None else f" of {total / 1e6:,.1f}"
            show(name, done, total, f"{done / 1e6:,.1f}{whole} MB")

        def show_rows(done: int, total: int | None) -> None:
            whole = "" if total is None else f" of {total:,}"
            show(label, done, total, f"{done:,}{whole} rows")

        yield Bars(log=print_line, rows=show_rows, download=show_bytes)
