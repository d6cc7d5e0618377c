"""Transformations of readings, chunk by chunk: from published files to what a store holds."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingestion import Chunk, Readings

__all__ = [
    "average_intervals",
    "clock_to_times",
    "concatenate",
    "mask_zeros",
    "select_nodes",
    "unstandardize",
]

_SECONDS_PER_DAY = 86_400
_ALIGNED_SECONDS = 0.1  # a fraction of a day in float32 is off by 5 ms
_WHOLE = 1e-3  # a count that was standardised in float32 comes back closer than this

Values = NDArray[np.floating[Any]]
_Rows = tuple[Values, NDArray[np.int64]]  # and their times


def clock_to_times(readings: Readings, start_seconds: int) -> Readings:
    """Readings whose last channel is the time of day; it becomes the times of the rows.

    A row belongs to the next day where its time of day is before that of the row above, so rows
    that are missing within a day show.

    Args:
        readings: [T, N, C + 1]; the last channel a fraction of the day, the same for all sensors.
        start_seconds: wall-clock time of the first row, in epoch seconds as if UTC.

    Returns:
        Readings [T, N, C] with times.

    Raises:
        DataError: while reading, if a time of day is not a fraction of the day on a whole second,
            or the first one is not that of the start.
    """

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        midnight, last = start_seconds - start_seconds % _SECONDS_PER_DAY, None
        row = 0
        for chunk in readings.chunks(budget_bytes):
            of_day = _seconds_of_day(chunk.values[..., -1], readings, row)
            if last is None and of_day[0] != start_seconds % _SECONDS_PER_DAY:
                raise DataError(
                    f"{readings.row_labels(0)} is {of_day[0]} seconds after "
                    f"midnight and {start_seconds % _SECONDS_PER_DAY} were expected: these are not "
                    "the published readings"
                )
            before = of_day[0] if last is None else last
            days = np.cumsum(np.diff(of_day, prepend=before) < 0)
            seconds = midnight + days * _SECONDS_PER_DAY + of_day
            midnight, last = int(midnight + days[-1] * _SECONDS_PER_DAY), int(of_day[-1])
            row += len(of_day)
            yield Chunk(values=np.ascontiguousarray(chunk.values[..., :-1]), seconds=seconds)

    return replace(readings, num_channels=readings.num_channels - 1, channels=None, chunks=chunks)


def _seconds_of_day(fractions: Values, readings: Readings, first_row: int) -> NDArray[np.int64]:
    """Whole seconds after midnight of each row, from fractions of the day [rows, N]."""
    exact = fractions[:, 0].astype(np.float64) * _SECONDS_PER_DAY
    with np.errstate(invalid="ignore"):
        seconds = np.rint(exact)
        fits = (np.abs(exact - seconds) < _ALIGNED_SECONDS) & (seconds >= 0)
        fits &= (seconds < _SECONDS_PER_DAY) & (fractions == fractions[:, :1]).all(axis=1)
    readings.row_labels.refuse_where(
        ~fits,
        first_row,
        lambda row: (
            f"has {fractions[row, 0]} as its time of day: the rule is a fraction of the "
            "day on a whole second, from 0 to 1, the same for all sensors"
        ),
    )
    return seconds.astype(np.int64)


def mask_zeros(readings: Readings) -> Readings:
    """Readings whose first channel is missing where it is 0."""

    def mark(values: Values) -> Values:
        first = values[..., 0]
        first[first == 0] = np.nan
        return values

    return _map_values(readings, mark)


def select_nodes(
    readings: Readings, positions: NDArray[np.int64], ids: tuple[str, ...]
) -> Readings:
    """Readings of some sensors, in the order given.

    Args:
        readings: [T, N, C].
        positions: where in `readings` each sensor is.
        ids: their ids.
    """
    chosen = _map_values(readings, lambda values: np.ascontiguousarray(values[:, positions]))
    return replace(chosen, num_nodes=len(positions), node_ids=ids)


def unstandardize(readings: Readings, mean: float, deviation: float) -> Readings:
    """Counts from standardised ones, `(count - mean) / deviation`, in the first of the channels.

    Results within a thousandth of a whole number are rounded to it.
    """

    def undo(values: Values) -> Values:
        counts = values[..., :1].astype(np.float64) * deviation + mean
        whole = np.rint(counts) + 0.0  # and not -0
        return np.where(np.abs(counts - whole) < _WHOLE, whole, counts)

    return replace(_map_values(readings, undo), num_channels=1, channels=None)


def concatenate(parts: list[Readings], name: str) -> Readings:
    """Readings one after another.

    Raises:
        DataError: if their sensors differ.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.node_ids != first.node_ids or part.num_nodes != first.num_nodes:
            raise DataError(
                f"{part.name} has other sensors than {first.name}, or another order: files of "
                "several years must have the same"
            )

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for part in parts:
            yield from part.chunks(budget_bytes)

    sizes = [part.num_rows for part in parts if part.num_rows is not None]
    total = sum(sizes) if len(sizes) == len(parts) else None
    return replace(first, name=name, num_rows=total, chunks=chunks)


def average_intervals(readings: Readings, seconds: int) -> Readings:
    """Means over intervals of `seconds`, which begin at multiples of it, rounded to whole numbers.

    A mean is over the observed readings; without any it is missing. Halves are rounded to even.
    Intervals without rows are left out.

    Args:
        readings: [T, N, C] with times.
        seconds: the interval, a divisor of the day.
    """

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        rest: _Rows | None = None
        for chunk in readings.chunks(max(1, budget_bytes // 2)):
            values, times = _append(rest, chunk, readings)
            # The last interval may continue in the next chunk.
            cut = int(np.searchsorted(times // seconds, times[-1] // seconds))
            if cut:
                yield _means(values[:cut], times[:cut], seconds)
            rest = values[cut:].copy(), times[cut:]
        if rest is not None:
            yield _means(*rest, seconds)

    return replace(readings, num_rows=None, chunks=chunks)


def _append(rest: _Rows | None, chunk: Chunk, readings: Readings) -> _Rows:
    if chunk.seconds is None:
        raise DataError(f"{readings.name} has no times: means over intervals need them")
    values, seconds = chunk.values, chunk.seconds
    if rest is not None:
        values, seconds = np.concatenate([rest[0], values]), np.concatenate([rest[1], seconds])
    wrong = np.flatnonzero(np.diff(seconds) <= 0)
    if len(wrong):
        earlier, later = (np.datetime64(int(at), "s") for at in seconds[wrong[0] :][:2])
        raise DataError(
            f"in {readings.name} a row of {later} follows one of {earlier}: sort the rows by time, "
            "each time once"
        )
    return values, seconds


def _means(values: Values, times: NDArray[np.int64], seconds: int) -> Chunk:
    bins = times // seconds
    starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
    observed = ~np.isnan(values)
    counts = np.add.reduceat(observed, starts, axis=0, dtype=np.int64)
    sums = np.add.reduceat(np.where(observed, values, 0), starts, axis=0, dtype=np.float64)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return Chunk(values=np.rint(means) + 0.0, seconds=bins[starts] * seconds)


def _map_values(readings: Readings, change: Callable[[Values], Values]) -> Readings:
    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for chunk in readings.chunks(budget_bytes):
            yield Chunk(values=change(chunk.values), seconds=chunk.seconds)

    return replace(readings, chunks=chunks)
