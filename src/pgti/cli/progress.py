"""Progress on standard error: lines, and on a terminal bars for bytes and rows."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pgti.cli.output import log
from pgti.datasets import FetchCallbacks

__all__ = ["progress_bars"]


@contextmanager
def progress_bars(label: str, console: Console | None = None) -> Iterator[FetchCallbacks]:
    """Callbacks that show progress while the block runs; without a terminal they only log lines.

    Args:
        label: text before the bar for rows; a download has the name of its file.
        console: where to draw; standard error by default.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield FetchCallbacks(log=log)
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

        yield FetchCallbacks(log=print_line, download_progress=show_bytes, row_progress=show_rows)
