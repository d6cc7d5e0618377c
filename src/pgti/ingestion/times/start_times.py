"""Times of rows whose source has none: from the start and the interval that the user gives."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pgti.display import count_of
from pgti.errors import ConfigError, option
from pgti.ingestion.instants import FIRST_SECOND, LAST_SECOND, parse_start
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings
from pgti.ingestion.times.rules import daily_rule
from pgti.store import StoreWriter, TimeAxis, format_interval
from pgti.store.codec import Values

__all__ = ["finish_without_times", "with_interval"]


def with_interval(options: IngestOptions, readings: Readings) -> IngestOptions:
    """The options with the interval that the source itself gives, if it does.

    Raises:
        ConfigError: if the user gives another.
    """
    seconds = readings.interval_seconds
    if seconds is None or options.interval_seconds == seconds:
        return options
    own = format_interval(seconds)
    if options.interval is not None:
        raise ConfigError(
            f"interval is {options.interval} and the rows of {readings.name} are {own} apart, as "
            f"it says: leave {option('interval')} out"
        )
    return replace(options, interval=own)


def finish_without_times(
    options: IngestOptions, writer: StoreWriter, future: Callable[[TimeAxis], Values]
) -> None:
    """Complete a store with the start and interval that the user gives, if any.

    Rows that are whole days apart are days of the zone's clock.

    Args:
        options: start, interval and zone.
        writer: that has the rows of the series.
        future: gives what is known after the last row.

    Raises:
        ConfigError: if they cannot be used.
    """
    start, interval = _start_without_times(options, writer.num_steps), options.interval_seconds
    if start is None or interval is None:
        writer.finish(interval_seconds=interval, future=future)
        return
    first = np.array([start], dtype=np.int64)
    rule = daily_rule(first, interval, options.time_zone)
    seconds = None
    if rule is not None:
        times = rule.after(start - 1, writer.num_steps, options.time_zone)
        seconds = times if (np.diff(times) != interval).any() else None
    writer.finish(
        start=np.datetime64(start, "s"),
        interval_seconds=interval,
        seconds=seconds,
        time_rule=None if rule is None else rule.to_plain(),
        future=future,
    )


def _start_without_times(options: IngestOptions, num_steps: int) -> int | None:
    """The start that the user gives for a source without times, in epoch seconds."""
    if options.gaps != "error":
        raise ConfigError(
            f"gaps is {options.gaps!r} and the source has no times: leave {option('gaps')} out"
        )
    if options.start is None:
        return None
    if options.interval_seconds is None:
        raise ConfigError(
            f"start is {options.start} without an interval: add {option('interval', '5min')}"
        )
    start = parse_start(options.start, options.time_zone)
    last = start + (num_steps - 1) * options.interval_seconds
    if not FIRST_SECOND <= start <= last <= LAST_SECOND:
        raise ConfigError(
            f"{count_of(num_steps, 'row')} from {options.start} at an interval of "
            f"{options.interval} would leave the years 1 to 9999: correct {option('start')} or "
            f"{option('interval')}"
        )
    return start
