"""Measurements as people read them."""

from collections.abc import Sequence
from pathlib import Path

from pgti.bench import Machine, Spread
from pgti.bench.plot import Chart, write_plot
from pgti.cli.output import log

__all__ = ["binary_size", "finish", "milliseconds", "number", "times"]


def milliseconds(spread: Spread) -> tuple[str, str]:
    """A spread of seconds: its median, and its extremes."""
    return (
        f"{1e3 * spread.median:,.1f}",
        f"{1e3 * spread.minimum:,.1f} to {1e3 * spread.maximum:,.1f}",
    )


def number(spread: Spread | None, scale: float = 1.0, digits: int = 1) -> str:
    """The median of a spread, and its extremes."""
    if spread is None:
        return "-"
    median, low, high = (
        f"{value / scale:,.{digits}f}" for value in (spread.median, spread.minimum, spread.maximum)
    )
    return f"{median} ({low} to {high})"


def times(spread: Spread | None) -> str:
    """The median of a spread of ratios."""
    return "-" if spread is None else f"{spread.median:,.2f} x"


def binary_size(num_bytes: int | None) -> str:
    """Bytes in GiB."""
    return "-" if num_bytes is None else f"{num_bytes / 2**30:,.2f} GiB"


def finish(
    title: str,
    machine: Machine,
    left_out: Sequence[str],
    plot: Path | None,
    charts: Sequence[Chart],
) -> None:
    """Name the machine and what was left out, and draw the charts if there is a file for them."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    log(f"on {machine.cpu}, {machine.cores} cores, {machine.threads} threads; {versions}")
    for line in left_out:
        log(f"left out: {line}")
    if plot is not None:
        write_plot(plot, title, charts, machine, left_out)
        log(f"the plot is in {plot}")
