"""`pgti bench`: measurements on the user's own machine, one sub-command each."""

import cyclopts

from pgti.cli.bench_epoch import bench_epoch_command
from pgti.cli.bench_loader import bench_loader_command
from pgti.cli.bench_memory import bench_memory_command
from pgti.cli.bench_step import bench_step_command

__all__ = ["bench_app"]


def bench_app() -> cyclopts.App:
    """The sub-commands of `pgti bench`."""
    app = cyclopts.App(
        name="bench",
        help="Measure memory and speed on this machine; step and loader in alternation with PGT "
        "too, where it is installed (make bench-pgt).",
    )
    app.command(bench_memory_command, name="memory")
    app.command(bench_loader_command, name="loader")
    app.command(bench_step_command, name="step")
    app.command(bench_epoch_command, name="epoch")
    return app
