"""The command line: `pgti-bench COMMAND`, or `python -m pgti_bench COMMAND`.

Exit code 0 on success; 2 if an argument is wrong or a benchmark cannot run; 1 if results that must
be equal differ, and for internal errors.
"""

import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

import cyclopts

from pgti.cli.app import split_lists
from pgti.cli.output import format_default, log
from pgti.errors import PgtiError
from pgti_bench.errors import DifferenceError

__all__ = ["COMMANDS", "main", "run_command"]

COMMANDS = {
    "step": (
        "pgti_bench.step.command:step_command",
        "Time a training step of pgti, its matrix products alone, and PGT's step, interleaved.",
    ),
    "loader": (
        "pgti_bench.loader.command:loader_command",
        "Time how batches are made: every batching of pgti, PGT's loader and a copy of memory.",
    ),
    "formats": (
        "pgti_bench.formats:formats_command",
        "Ingest a large file of every format within a memory limit, and report memory and time.",
    ),
    "memory": (
        "pgti_bench.memory.command:memory_command",
        "Compute the memory of data sets by formula, and measure that of pgti's commands on them.",
    ),
    "epoch": (
        "pgti_bench.epoch:epoch_command",
        "Time an epoch of pgti train with each batching, interleaved, as separate processes.",
    ),
    "scaling": (
        "pgti_bench.scaling.command:scaling_command",
        "Run the paper's scaling study: measured with local ranks, modelled up to 128.",
    ),
    "equivalence": (
        "pgti_bench.equivalence:equivalence_command",
        "Train models with materialised windows and with index-batching, and compare every bit.",
    ),
    "ingest": (
        "pgti_bench.ingest:ingest_command",
        "Time how fast a wide .npy file becomes a store, beside a plain copy of the file.",
    ),
    "tables": (
        "pgti_bench.tables:tables_command",
        "Time how fast tables in text are read, beside pandas and polars, on one thread each.",
    ),
    "forecast": (
        "pgti_bench.forecast:forecast_command",
        "Time a forecast from a table in memory, and what the network takes of it.",
    ),
    "serve": (
        "pgti_bench.serve:serve_command",
        "Load a server on loopback: latency, requests a second, and memory before and after.",
    ),
    "append": (
        "pgti_bench.append:append_command",
        "Time how long it takes to append one row to stores of several lengths.",
    ),
    "history": (
        "pgti_bench.history:history_command",
        "Make batches with history from the series and from materialised windows, interleaved.",
    ),
    "ranks": (
        "pgti_bench.ranks:ranks_command",
        "Compare training on one rank and on two, each with one thread: speed, or private memory.",
    ),
    "gradients": (
        "pgti_bench.gradients:gradients_command",
        "Compare sums of gradients over ranks, and estimate what they cost on GPUs.",
    ),
    "space": (
        "pgti_bench.space:space_command",
        "Measure training steps of DCRNN whose sensors are split over ranks, each of one thread.",
    ),
    "models": (
        "pgti_bench.models:models_command",
        "Train every model for two steps within a memory limit, and report memory and time.",
    ),
    "official": (
        "pgti_bench.official.command:official_command",
        "Time a training step of every model beside its function as the released code computes it.",
    ),
    "launches": (
        "pgti_bench.launch_table:launches_command",
        "Count the kernels that a GPU would start in a training step; needs no GPU.",
    ),
    "recipes": (
        "pgti_bench.recipe_hours:recipes_command",
        "Estimate how long recipes train on a GPU, by counting what their steps compute.",
    ),
    "gpu-check": (
        "pgti_bench.gpu_check.command:gpu_check_command",
        "Check correctness and measure speed on one GPU, in under 8 minutes.",
    ),
}
"""Where each command is, and the first sentence of its help, which is shown without an import."""


def _app(command: str | None) -> cyclopts.App:
    """With the whole help of `command`, and one sentence of each other."""
    app = cyclopts.App(
        name="pgti-bench",
        help="Measure pgti's speed and memory on this machine. The commands step and loader "
        "compare with PyTorch Geometric Temporal too if it is installed (make bench-pgt).",
        version=version("pgti-bench"),
        config=split_lists,
        default_parameter=cyclopts.Parameter(
            negative_iterable=(), negative_bool=(), show_default=format_default
        ),
        help_epilogue="Every command takes --debug, which shows the traceback of an error.",
    )
    for name, (target, text) in COMMANDS.items():
        app.command(target, name=name, help=None if name == command else text)
    return app


def run_command(tokens: Sequence[str]) -> int:
    """Run the command line `tokens` and return the exit code."""
    arguments = ["--model.name" if token == "--model" else token for token in tokens]
    app = _app(arguments[0] if arguments else None)
    try:
        app(
            [token for token in arguments if token != "--debug"],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except KeyboardInterrupt:
        log("stopped")
        return 130
    except (PgtiError, cyclopts.CycloptsError, OSError) as error:
        if "--debug" in tokens:
            raise
        log(f"error: {' '.join(str(error).split())}")
        return 1 if isinstance(error, DifferenceError) else 2
    return 0


def main() -> None:
    """Run the command line of this process and exit."""
    # An exception, so that child processes are ended and temporary files removed.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    sys.exit(run_command(sys.argv[1:]))
