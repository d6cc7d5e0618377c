"""A progress bar over the rows of a series, on standard error and only on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["rows_progress"]


@contextmanager
def rows_progress(
    what: str, console: Console | None = None
) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show rows as they are done; gives what to call with the rows done and, if known, in all.

    Args:
        what: the word before the bar.
        console: where to draw; None takes standard error.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
