"""The exception tree. Every error a user can cause is a `PgtiError` with a one-line message.

    PgtiError
    ├── ConfigError (ValueError)   an option or a combination of options
    ├── DataError (ValueError)     readings, a graph or a file that the user gave
    ├── StoreError                 a store that cannot be opened or written
    ├── RunError                   a run directory or a checkpoint
    ├── FetchError                 a file of a data set that could not be downloaded
    ├── MissingExtraError          an optional library that is not installed
    └── PeerError                  another rank of the job that failed, or does not answer

    Interrupted (KeyboardInterrupt)    a signal asked the program to stop

A message says what is wrong, the value, the rule and what to do. It names options with `option`,
so that a user of Python reads arguments and a user of the command line reads flags. The command
line prints it without a traceback and exits with code 2; with 1 for a `PeerError`, which no
argument causes.
"""

import csv
import errno
import lzma
import os
import shlex
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from pgti.display import clipped, printable

__all__ = [
    "PARSER_ERRORS",
    "ConfigError",
    "DataError",
    "FetchError",
    "Interrupted",
    "MissingExtraError",
    "PeerError",
    "PgtiError",
    "RunError",
    "StoreError",
    "check_magnitude",
    "machine_fault",
    "name_flags",
    "option",
    "require_whole_number",
]

PARSER_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError),
    *(MemoryError, OSError, RuntimeError, SyntaxError),
    SystemError,  # of h5py, where an error follows another
    *(TypeError, ValueError, csv.Error, lzma.LZMAError, struct.error, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What readers of files (Python's, NumPy's, pandas') raise on a damaged one."""

_MACHINE_FAULTS = dict.fromkeys(
    (
        *(errno.EACCES, errno.EPERM, errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOSPC),
        *(errno.ESTALE, errno.ETIMEDOUT, errno.EDQUOT, errno.ENETDOWN, errno.EHOSTDOWN),
    ),
    "",
) | {
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), ": close some, or raise the limit (for a shell: ulimit -n)"
    ),
    errno.ENOMEM: ": end other programs, or take a machine with more",
}
_WHOLE_NUMBER_LIMIT = 1 << 63  # of TOML, of arrays and of seeds
_SHOWN_BITS = 256


def machine_fault(error: BaseException | None) -> str | None:
    """What the machine lacks where a reader failed for it; None if its file is to blame.

    Args:
        error: what was raised; what it was raised from is looked through as well.
    """
    while error is not None:
        number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
        if isinstance(error, MemoryError | OSError) and number in _MACHINE_FAULTS:
            return f"{os.strerror(number)}{_MACHINE_FAULTS[number]}"
        error = error.__cause__ or error.__context__
    return None


class PgtiError(Exception):
    """Base of every error that this library raises on purpose; its text is one printable line."""

    def __str__(self) -> str:
        return clipped(printable(" ".join(super().__str__().splitlines())))


class ConfigError(PgtiError, ValueError):
    """An option, or a combination of options, that cannot be used."""


class DataError(PgtiError, ValueError):
    """Readings, a graph or a source file that breaks a rule."""


class StoreError(PgtiError):
    """A store that cannot be opened, trusted or written."""


class RunError(PgtiError):
    """A run directory or checkpoint that cannot be used."""


class FetchError(PgtiError):
    """A file of a data set that could not be downloaded, or is not the one that was expected."""


class MissingExtraError(PgtiError):
    """An optional library is needed and not installed.

    Args:
        library: its name.
        extra: which extra of this package installs it.
        then: a second command, for a library that no extra can install.
    """

    def __init__(self, library: str, extra: str, then: str | None = None) -> None:
        super().__init__(
            f"{library} is not installed and this needs it; install it with "
            f"`pip install 'pgti[{extra}]'`" + (f" and then `{then}`" if then else "")
        )


class PeerError(PgtiError):
    """Another rank of the job failed, is gone or does not answer: this one cannot continue.

    Attributes:
        rank: which one, where that is known.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to stop; what could be saved has been saved.

    Like `KeyboardInterrupt`, neither `except PgtiError` nor `except Exception` catches it.

    Attributes:
        signal_number: the signal that arrived; a process exits with 128 plus this number.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def require_whole_number(name: str, value: object, minimum: int) -> None:
    """Refuse an option that is not a whole number of at least `minimum`, and below 2^63.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """
    if isinstance(value, int):
        check_magnitude(name, value)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} is {value!r}: it must be a whole number of at least {minimum}")


def check_magnitude(name: str, value: int) -> None:
    """Refuse a whole number that no array and no seed could take.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """
    if abs(value) >= _WHOLE_NUMBER_LIMIT:
        is_short = value.bit_length() <= _SHOWN_BITS  # Python refuses to write long ones
        shown = value if is_short else f"a number of {value.bit_length()} bits"
        raise ConfigError(f"{name} is {shown}: it must be less than 2**63")


_flags_are_named = False  # not a context variable: loaders raise errors in threads of their own


@contextmanager
def name_flags(are_named: bool = True) -> Iterator[None]:
    """Let `option` name flags while the block runs, as the command line does, or arguments."""
    global _flags_are_named  # noqa: PLW0603 - one user interface per process
    before, _flags_are_named = _flags_are_named, are_named
    try:
        yield
    finally:
        _flags_are_named = before


def option(name: str, value: object = None, *, flag: str | None = None) -> str:
    """An option as the user writes it: `batch_size=8` in Python, `--batch-size 8` as a flag.

    Args:
        name: of the argument; an option of a table has the table's name before it
            ("windows.horizon", "model.hidden"), one of the training loop stands alone; one of
            reading newer data is in the table "options" of Python.
        value: what to give it; None names the option alone. True and False stand for a flag and its
            negation, () for an empty list.
        flag: of the command line, if it has another name there, without its dashes.
    """
    if _flags_are_named:
        name = name.removeprefix("options.")
        *tables, last = (flag or name.replace("_", "-")).split(".")
        negation = "no-" if value is False else "empty-" if value == () else ""
        dashed = "--" + ".".join([*tables, negation + last])
        if name.startswith("model.") and isinstance(value, bool):
            return f"--{name.replace('_', '-')} {str(value).lower()}"  # it takes no negation
        if value is None or isinstance(value, bool) or value == ():
            return dashed
        values = value if isinstance(value, tuple) else (value,)
        text = ",".join(map(str, values))
        text = shlex.quote(text) if " " in text else text
        return f"{dashed}{'=' if text.startswith('-') else ' '}{text}"  # not taken for a flag
    if name.startswith("options."):
        name, value = "options", {name.removeprefix("options."): value}
    if name.startswith("model."):
        name = f"model_options[{name.removeprefix('model.')!r}]"
    return name if value is None else f"{name}={value!r}"
