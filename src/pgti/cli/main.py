"""Run a command, and report an error as one line and an exit code.

0: done; 2: wrong input; 128 + n: stopped by signal n; 1: any other error. Of several ranks one
reports the error: rank 0, if it can.

This module imports little: a signal is answered as soon as `main` runs.
"""

import io
import os
import re
import signal
import sys
from collections.abc import MutableMapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pgti.display import clipped
from pgti.errors import ConfigError, Interrupted, PeerError, PgtiError, machine_fault, name_flags

if TYPE_CHECKING:
    from pgti.distributed import Launch

__all__ = ["main", "run_command"]

_DEBUG, _QUIET = "--debug", "--quiet"
_FOR_RANKS = ("train", "evaluate", "backtest")
_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                     "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS")  # fmt: skip
_MAX_THREADS = 4096
_NUMBER = re.compile(r" *[0-9]{1,9} *")
_IMPORTING = "<frozen importlib._bootstrap>"


def run_command(tokens: Sequence[str]) -> int:
    """Run the command line `tokens` and return the exit code."""
    from pgti.cli.app import build_app
    from pgti.cli.output import log, silence

    debug = _DEBUG in tokens
    arguments = [token for token in tokens if token not in (_DEBUG, _QUIET)]
    try:
        _check_threads(os.environ)
        _check_command(arguments)
        _refuse_ranks(arguments)
        app = build_app(next(iter(arguments), None))
        with name_flags(), silence(_QUIET in tokens):
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (Exception, KeyboardInterrupt) as error:  # also an error of this program
        if debug:
            raise
        launch = _find_launch()
        code, message = _describe_error(error)
        # Before the ranks have connected, those of a machine fail alike.
        if not getattr(error, "is_reported", launch is not None and launch.local_rank > 0):
            log(message, rank=0 if launch is None else launch.rank, is_error=True)
        return code
    return 0


def _check_threads(environment: MutableMapping[str, str]) -> None:
    """Refuse numbers of threads that libraries would answer by a traceback of their import.

    An empty one is taken away: it stands for none, and they warn of it.

    Raises:
        ConfigError: naming the variable, its value and the rule.
    """
    for name in _THREAD_VARIABLES:
        text = environment.get(name)
        if text is not None and not text.strip():
            del environment[name]
        elif text is not None and not (_NUMBER.fullmatch(text) and 0 < int(text) <= _MAX_THREADS):
            raise ConfigError(
                f"the environment says {name}={text[:40]!r}: it must be a whole number from 1 to "
                f"{_MAX_THREADS}, or not be set"
            )


def _check_command(tokens: Sequence[str]) -> None:
    """Refuse a command that does not exist.

    Raises:
        ConfigError: with the nearest one, and all of them.
    """
    from pgti.cli.app import COMMANDS

    known = [name for group in COMMANDS.values() for name in group]
    command = next(iter(tokens), "-")
    if command.startswith("-") or command in known:
        return
    close = get_close_matches(command, known, n=1)
    nearest = f"; did you mean {close[0]!r}?" if close else "."
    raise ConfigError(
        f"there is no command {command!r}{nearest} The commands are {', '.join(known)}"
    )


def _describe_error(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error."""
    from cyclopts import CycloptsError, UnknownOptionError, UnusedCliTokensError

    message = clipped(" ".join(str(error).split()))
    if isinstance(error, UnusedCliTokensError):
        message = (
            f"no option takes {', '.join(error.unused_tokens or ())}: join the values of one by "
            "commas (--missing=0,-1), and put a pattern of files in quotes ('new/*.csv')"
        )
    if isinstance(error, UnknownOptionError):
        message = _renamed(error.token.keyword or "") or message
    if isinstance(error, Interrupted):
        return 128 + error.signal_number, message
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped"
    if isinstance(error, (PgtiError, CycloptsError, OSError)):
        return 1 if isinstance(error, PeerError) else 2, f"error: {message}"
    if isinstance(error, MemoryError):
        return 2, f"error: {machine_fault(error)}"
    what = f"{type(error).__name__}: {message}"
    return 1, f"internal error: {what[:500]}; --debug shows the traceback"


def _renamed(flag: str) -> str:
    """What is wrong with a flag of an option of the windows that has another name now, else ""."""
    from pgti.batching import WindowConfig

    table, _, name = flag.partition(".")
    new = WindowConfig.renamed.get(name.removeprefix("no-").replace("-", "_"))
    return (
        f"{flag} is {table}.{name.startswith('no-') * 'no-'}{new} now: use that name" if new else ""
    )


def _find_launch() -> "Launch | None":
    """This process's rank among several; None for a single process or an unclear environment."""
    if not any(name in os.environ for name in _RANK_VARIABLES):
        return None
    from pgti.distributed import find_launch

    try:
        launch = find_launch(os.environ)
    except ConfigError:
        return None
    return launch if launch.world_size > 1 else None


def _refuse_ranks(tokens: Sequence[str]) -> None:
    """Refuse to run a single-process command on several ranks.

    Raises:
        ConfigError: naming the command and the number of processes.
    """
    launch = _find_launch()
    if launch is not None and tokens and tokens[0] not in _FOR_RANKS:
        raise ConfigError(
            f"{tokens[0]} was launched as {launch.world_size} processes: run it as one, without "
            "torchrun"
        )


def _stop(number: int, frame: FrameType | None) -> None:
    """End the command with an exception, so that partial output is removed.

    During an import the process ends at once: a library may swallow an exception there.
    """
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            _end(number)
        frame = frame.f_back
    raise Interrupted(_stopped_by(number), number)


def _end(number: int, _frame: FrameType | None = None) -> None:
    """End the process; of several ranks the first says why."""
    if all(os.environ.get(name, "0") == "0" for name in _RANK_VARIABLES):
        os.write(2, f"pgti: {_stopped_by(number)}\n".encode())
    os._exit(128 + number)


def _stopped_by(number: int) -> str:
    return "stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def _open_outputs() -> None:
    """Let standard output and error exist, and lose nothing that is written to them in silence."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # closed by the shell: else a file gets its number, and what libraries write to it
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - stays open
        elif isinstance(getattr(stream, "buffer", None), io.RawIOBase):  # it drops half a text
            stream = open(  # noqa: SIM115 - the same
                stream.fileno(), "w", 1, stream.encoding, stream.errors, closefd=False
            )
        setattr(sys, name, stream)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a file


def main() -> None:
    """Run the command line of this process and exit."""
    for name in _STOPPING:
        number = getattr(signal, name, None)  # not every system has them all
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
            signal.signal(number, _stop)
    _open_outputs()
    code = run_command(sys.argv[1:])
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, _end)  # what ends with the process would print a traceback
    sys.exit(code)
