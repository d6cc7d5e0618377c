"""`pgti bench`: measurements on the user's own machine, one sub-command each."""

import cyclopts

__all__ = ["bench_app"]


def bench_app() -> cyclopts.App:
    """The sub-commands of `pgti bench`."""
    return cyclopts.App(
        name="bench",
        help="Measure memory and speed on this machine, in alternation with the peers where they "
        "are installed (make bench-pgt).",
    )
