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
from pgti.cli.output import log
from pgti.errors import PgtiError
from pgti_bench.errors import DifferenceError

__all__ = ["COMMANDS", "main", "run_command"]

COMMANDS = {
    "step": "pgti_bench.step.command:step_command",
    "loader": "pgti_bench.loader.command:loader_command",
    "memory": "pgti_bench.memory.command:memory_command",
    "epoch": "pgti_bench.epoch:epoch_command",
    "scaling": "pgti_bench.scaling.command:scaling_command",
    "equivalence": "pgti_bench.equivalence:equivalence_command",
    "ingest": "pgti_bench.ingest:ingest_command",
    "forecast": "pgti_bench.forecast:forecast_command",
    "append": "pgti_bench.append:append_command",
    "ranks": "pgti_bench.ranks:ranks_command",
    "gradients": "pgti_bench.gradients:gradients_command",
    "space": "pgti_bench.space:space_command",
    "models": "pgti_bench.models:models_command",
    "launches": "pgti_bench.launch_table:launches_command",
    "gpu-check": "pgti_bench.gpu_check.command:gpu_check_command",
}


def _app() -> cyclopts.App:
    app = cyclopts.App(
        name="pgti-bench",
        help="Measure pgti's speed and memory on this machine. The commands step and loader "
        "compare with PyTorch Geometric Temporal too if it is installed (make bench-pgt).",
        version=version("pgti-bench"),
        config=split_lists,
        help_epilogue="Every command takes --debug, which shows the traceback of an error.",
    )
    for name, target in COMMANDS.items():
        app.command(target, name=name)
    return app


def run_command(tokens: Sequence[str]) -> int:
    """Run the command line `tokens` and return the exit code."""
    arguments = ["--model.name" if token == "--model" else token for token in tokens]
    app = _app()
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
