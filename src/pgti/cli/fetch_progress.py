"""How a fetch goes: lines on standard error, and on a terminal a bar for bytes and for rows."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pgti.cli.output import log
from pgti.datasets import FetchCallbacks

__all__ = ["fetch_callbacks"]


@contextmanager
def fetch_callbacks(console: Console | None = None) -> Iterator[FetchCallbacks]:
    """Callbacks that show a fetch while the block runs.

    Args:
        console: where to draw; None takes standard error.
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

        def tell(line: str) -> None:
            bar.console.print(f"pgti: {line}", markup=False, highlight=False, soft_wrap=True)

        def show(what: str, done: int, total: int | None, amount: str) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, amount=amount)
            bar.update(tasks[what], completed=done, total=total, amount=amount)

        def show_bytes(name: str, done: int, total: int | None) -> None:
            whole = "" if total is None else f" of {total / 1e6:,.1f}"
            show(name, done, total, f"{done / 1e6:,.1f}{whole} MB")

        def show_rows(done: int, total: int | None) -> None:
            whole = "" if total is None else f" of {total:,}"
            show("ingest", done, total, f"{done:,}{whole} rows")

        yield FetchCallbacks(log=tell, download_progress=show_bytes, row_progress=show_rows)
