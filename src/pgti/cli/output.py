"""Output: results on standard output, and everything else on standard error.

A command prints its results as tables or, with `--json`, as one JSON object and nothing beside it.
Where standard output is no terminal, tables are plain columns, never wrapped or cut at any width.
A reader that goes away (`pgti models | head -3`) ends the output, not the command.
"""

import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Literal, cast

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgti.display import printable

__all__ = [
    "OutputConsole",
    "build_table",
    "error_console",
    "facts_table",
    "format_default",
    "log",
    "print_results",
    "print_text",
    "silence",
]

_UNBOUNDED = 1 << 20


class OutputConsole(Console):
    """A console whose reader may go away: what follows is dropped."""

    def on_broken_pipe(self) -> None:
        """Drop the output, where rich ends the process."""
        self.quiet = True
        _drop(self.file)


_is_quiet = False  # not a context variable: threads of their own report progress


@contextmanager
def silence(is_quiet: bool = True) -> Iterator[None]:
    """Drop notes and progress while the block runs; errors and results are printed."""
    global _is_quiet  # noqa: PLW0603 - one user interface per process
    before, _is_quiet = _is_quiet, is_quiet
    try:
        yield
    finally:
        _is_quiet = before


class _ErrorStream:
    """Standard error; what cannot be written there is dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        _write(text, self._stream)
        return len(text)

    def flush(self) -> None:
        """Nothing is left to flush."""


def error_console() -> Console:
    """The console of progress and notes: a terminal that was closed ends no training."""
    return OutputConsole(file=cast(IO[str], _ErrorStream(sys.stderr)), quiet=_is_quiet)


def log(message: str, rank: int = 0, *, is_error: bool = False) -> None:
    """Print a line on standard error; it names the rank, unless that is 0."""
    if _is_quiet and not is_error:
        return
    prefix = f"pgti: rank {rank}" if rank else "pgti"
    _write(f"{prefix}: {printable(message)}\n", sys.stderr)


def print_results(content: Mapping[str, Any], *tables: Table, as_json: bool) -> None:
    """Print the results of a command on standard output.

    Args:
        content: the JSON object.
        tables: the same for people.
        as_json: print the object alone.
    """
    if as_json:
        print_text(json.dumps(content, allow_nan=False) + "\n")
    elif sys.stdout.isatty():
        _show(tables)
    else:
        print_text("\n".join(map(_plain, tables)))


def print_text(text: str) -> None:
    """Write on standard output."""
    _write(text, sys.stdout)


def build_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, num_texts: int = 1
) -> Table:
    """A table.

    Args:
        title: a line above it; empty for none.
        columns: heading of each column.
        rows: cells of each row.
        num_texts: how many columns hold text, from the first; the others hold numbers. A narrow
            terminal wraps the last of several texts.
    """
    table = Table(
        title=Text(printable(title)) if title else None,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    columns = ["\n".join(map(printable, name.split("\n"))) for name in columns]
    rows = [tuple(map(printable, row)) for row in rows]
    for number, name in enumerate(columns):
        justify: Literal["left", "right"] = "left" if number < num_texts else "right"
        wraps = number == num_texts - 1 > 0
        # Rich cuts a column that does not wrap, unless it has a width that it needs.
        width = (
            None
            if wraps
            else max(cell_len(line) for row in (columns, *rows) for line in row[number].split("\n"))
        )
        table.add_column(
            Text(name), justify=justify, overflow="fold", no_wrap=not wraps, min_width=width
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def facts_table(title: str, facts: Mapping[str, str]) -> Table:
    """A table of facts by name, one a row."""
    table = build_table(title, ("", ""), facts.items(), num_texts=2)
    table.show_header = False
    return table


def format_default(value: Any) -> Any:
    """A default value as the help shows it; None hides it."""
    if value is False or value in (None, (), ""):
        return None
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _show(tables: Sequence[Table]) -> None:
    """Print tables on a terminal; it wraps the lines of those that are too wide for it."""
    console = OutputConsole()
    unbounded = console.options.update(max_width=_UNBOUNDED)
    for number, table in enumerate(tables):
        if number:
            console.print()
        if console.measure(table, options=unbounded).minimum > console.width:
            print_text(_plain(table))
            continue
        title, table.title = table.title, None  # rich wraps titles at the width of the table
        if title is not None:
            console.print(title, style="italic")
        console.print(table)


def _plain(table: Table) -> str:
    """A table as lines of columns two spaces apart, as wide as it is."""
    title, table.title = table.title, None
    table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
    for column in table.columns:
        column.no_wrap = True
        column.header = Text(str(column.header).replace("\n", " "))
    buffer = io.StringIO()
    Console(file=buffer, width=_UNBOUNDED, color_system=None, emoji=False).print(table)
    lines = [] if title is None else [str(title)]
    return "".join(f"{line.rstrip()}\n" for line in [*lines, *buffer.getvalue().splitlines()])


def _write(text: str, stream: IO[str]) -> None:
    try:
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            if error.errno != errno.EFBIG or stream is sys.stdout:
                raise
            with _no_soft_file_limit():
                stream.flush()  # the rest of the line
    except OSError as error:
        _drop(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise  # a full disk: the results are lost


@contextmanager
def _no_soft_file_limit() -> Iterator[None]:
    """Let files grow as far as the user may let them: what fails at a limit has to be said."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _drop(stream: IO[str]) -> None:
    """Send what a stream still holds, and what follows, nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
