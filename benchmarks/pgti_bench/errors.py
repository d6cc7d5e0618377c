"""What can go wrong in a benchmark, beside the errors of pgti itself."""

from pgti.errors import PgtiError

__all__ = ["BenchError", "DifferenceError"]


class BenchError(PgtiError):
    """A benchmark could not run: a process failed, or a library is not installed."""


class DifferenceError(PgtiError):
    """Two computations that must give the same bits did not."""
