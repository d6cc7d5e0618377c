"""Run a command, and report an error as one line and an exit code.

0: done; 2: wrong input; 128 + n: stopped by signal n; 1: any other error. Of several ranks one
reports the error: rank 0, if it can.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import TYPE_CHECKING, get_origin

import cyclopts

from pgti.cli.output import format_default, log
from pgti.errors import ConfigError, Interrupted, PeerError, PgtiError, name_flags

if TYPE_CHECKING:
    from pgti.distributed import Launch

__all__ = ["main", "run_command", "split_lists"]

_DEBUG = "--debug"
_FOR_RANKS = ("train", "evaluate")
_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_HELP = {"--help", "-h"}
_STOPPING = ("SIGTERM", "SIGHUP", "SIGUSR1")
_COMMANDS = (
    "datasets",
    "fetch",
    "ingest",
    "info",
    "simulate",
    "models",
    "train",
    "evaluate",
    "predict",
    "study",
    "plan",
)


def _app() -> cyclopts.App:
    app = cyclopts.App(
        name="pgti",
        help="Train and evaluate spatiotemporal graph neural networks on sensor series of any "
        "length: index-batching stores the series once and gathers windows from it.",
        version=version("pgti"),
        help_epilogue="Every command accepts --debug, which shows the traceback of an error.",
        config=split_lists,
        default_parameter=cyclopts.Parameter(negative_iterable=(), show_default=format_default),
    )
    for name in _COMMANDS:
        # By name, so that a command imports only what it needs.
        app.command(f"pgti.cli.{name}:{name}_command", name=name)
    return app


def split_lists(
    app: cyclopts.App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection
) -> None:
    """Split the comma-separated values of every option that takes a list."""
    del app, commands
    for argument in arguments:
        if get_origin(argument.hint) is tuple:
            argument.tokens = [
                token.evolve(value=part.strip(), index=index)
                for token in argument.tokens
                for index, part in enumerate(token.value.split(","))
            ]


def _import_commands(app: cyclopts.App) -> None:
    """Import every command, whose docstrings the help shows."""
    for command in app.subapps:
        _import_commands(command)


def run_command(tokens: Sequence[str]) -> int:
    """Run the command line `tokens` and return the exit code."""
    debug = _DEBUG in tokens
    app = _app()
    if not _HELP.isdisjoint(tokens) or not tokens:
        _import_commands(app)
    try:
        _refuse_ranks(tokens)
        arguments = [token for token in tokens if token != _DEBUG]
        with name_flags():
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (Exception, KeyboardInterrupt) as error:  # also an error of this program
        if debug:
            raise
        launch = _find_launch()
        code, message = _describe_error(error)
        # Before the ranks have connected, those of a machine fail alike.
        if not getattr(error, "is_reported", launch is not None and launch.local_rank > 0):
            log(message, rank=0 if launch is None else launch.rank)
        return code
    return 0


def _describe_error(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error."""
    message = " ".join(str(error).split())
    if isinstance(error, Interrupted):
        return 128 + error.signal_number, message
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped"
    if isinstance(error, (PgtiError, cyclopts.CycloptsError, OSError)):
        return 1 if isinstance(error, PeerError) else 2, f"error: {message}"
    what = f"{type(error).__name__}: {message}"
    return 1, f"internal error: {what[:500]}; --debug shows the traceback"


def _find_launch() -> "Launch | None":
    """This process's rank among several; None for a single process or an unclear environment."""
    if not any(name in os.environ for name in _RANK_VARIABLES):
        return None
    from pgti.distributed import find_launch  # noqa: PLC0415 - imports torch

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
    """End the command with an exception, so that partial output is removed."""
    del frame
    raise Interrupted(f"stopped by {signal.Signals(number).name}", number)


def main() -> None:
    """Run the command line of this process and exit."""
    for name in _STOPPING:
        number = getattr(signal, name, None)  # not every system has them all
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
            signal.signal(number, _stop)
    sys.exit(run_command(sys.argv[1:]))
