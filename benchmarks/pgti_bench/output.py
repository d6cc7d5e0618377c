"""How commands print measurements."""

from collections.abc import Sequence
from pathlib import Path

from pgti.cli.output import log
from pgti.run.results import Machine, Spread
from pgti_bench.plot import Chart, write_plot

__all__ = ["binary_size", "finish", "milliseconds", "number", "times"]


def milliseconds(spread: Spread) -> tuple[str, str]:
    """The median of a spread of seconds, and its range."""
    return (
        f"{1e3 * spread.median:,.1f}",
        f"{1e3 * spread.minimum:,.1f} to {1e3 * spread.maximum:,.1f}",
    )


def number(spread: Spread | None, scale: float = 1.0, digits: int = 1) -> str:
    """The median of a spread and its range, divided by `scale`."""
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
    """Bytes in GiB, MiB or KiB."""
    if num_bytes is None:
        return "-"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if num_bytes >= size - size // 40:
            return f"{num_bytes / size:,.2f} {unit}"
    return f"{num_bytes} B"


def finish(
    title: str,
    machine: Machine,
    left_out: Sequence[str],
    plot: Path | None = None,
    charts: Sequence[Chart] = (),
) -> None:
    """Log the machine and what was left out, and write the charts if there is a file for them."""
    log(machine.summary)
    for line in left_out:
        log(f"left out: {line}")
    if plot is not None:
        write_plot(plot, title, charts, machine, left_out)
        log(f"the plot is in {plot}")
