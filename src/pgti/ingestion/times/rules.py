"""Recognises the rule that the times of a source follow, if they are sure to follow one.

A rule is sure where the rows show it again and again: five months or more, or four weeks and three
of their borders for a pattern of the week, or seven days for a pattern of the day. Without holes
allowed, every row must be there. With them, rows that were missing at random would leave the same
hours out in every week with a chance of less than one in a thousand.
"""

import numpy as np
from numpy.typing import NDArray

from pgti.store.clock import SECONDS_PER_DAY, has_clock_changes, wall_seconds
from pgti.store.time_rule import MONDAY, CycleRule, MonthRule, TimeRule

__all__ = ["ENOUGH_ROWS", "ENOUGH_SECONDS", "daily_rule", "most_common", "recognize_rule"]

ENOUGH_ROWS = 8
ENOUGH_SECONDS = 35 * SECONDS_PER_DAY
"""So many rows over so long a time show every rule that they may follow without a hole."""

_MIN_MONTHS = 5
_MIN_CYCLES = {7: 4, 1: 7}  # by the days of a cycle
_MAX_MISSING = {7: 0.25, 1: 0.05}  # of the rule's times: in weeks that have any, in all days
_MIN_PAUSE_SECONDS = 3_600  # a shorter one that repeats is rather a logger that restarts
_MIN_PART_SECONDS = 3 * 3_600  # clocks jump over shorter parts of a day
_MAX_CHANCE = 1e-3
_MOSTLY = 0.9  # of the steps are the interval of days of the clock


def recognize_rule(
    seconds: NDArray[np.int64], time_zone: str | None, *, with_holes: bool
) -> TimeRule | None:
    """The rule that all times follow; None if there is none, or it is not sure.

    Args:
        seconds: times of all rows, rising, int64 [T].
        time_zone: zone of the wall clock, or None where the times are wall clock.
        with_holes: whether the source may lack times of the rule.
    """
    wall = wall_seconds(seconds, time_zone)
    candidates: list[TimeRule | None] = [
        _month_rule(wall, with_holes=with_holes),
        *(_cycle_rule(seconds, wall, days, time_zone, with_holes=with_holes) for days in (7, 1)),
    ]
    steps = np.diff(wall)
    interval = most_common(steps)
    if time_zone is not None and (steps == interval).mean() >= _MOSTLY:
        candidates.append(_daily_rule(wall, interval))
    for rule in candidates:
        if rule is None or not rule.holds(seconds, time_zone):
            continue
        if with_holes or not rule.lacks(seconds, time_zone).any():
            return rule
    return None


def daily_rule(
    seconds: NDArray[np.int64], interval_seconds: int, time_zone: str | None
) -> TimeRule | None:
    """The rule of rows that are whole days apart, where the clocks of the zone change.

    Days have 23 or 25 hours then, and the rows continue by the wall clock.

    Args:
        seconds: times of all rows, an interval apart, int64 [T].
        interval_seconds: from a row to the next.
        time_zone: zone of the wall clock, if any.
    """
    if interval_seconds % SECONDS_PER_DAY or not has_clock_changes(time_zone, int(seconds[-1])):
        return None
    rule = _daily_rule(wall_seconds(seconds[:1], time_zone), interval_seconds)
    return rule if rule is not None and rule.holds(seconds, time_zone) else None


def _daily_rule(wall: NDArray[np.int64], interval: int) -> TimeRule | None:
    """The rule of rows that are days, or a few equal parts of one, apart on the clock."""
    days = max(1, interval // SECONDS_PER_DAY)
    parts, rest = divmod(days * SECONDS_PER_DAY, interval)
    if rest or interval < _MIN_PART_SECONDS:
        return None
    first = int((wall[0] - MONDAY) % interval)
    spans = tuple((first + part * interval, first + part * interval) for part in range(parts))
    return CycleRule(days=days, interval_seconds=interval, spans=spans)


def _month_rule(wall: NDArray[np.int64], *, with_holes: bool) -> MonthRule | None:
    """The rule of rows on the same day of the month."""
    times = wall.astype("datetime64[s]")
    days = times.astype("datetime64[D]")
    numbers = times.astype("datetime64[M]").astype(np.int64)
    of_day = wall % SECONDS_PER_DAY
    steps = np.diff(numbers)
    if len(wall) < _MIN_MONTHS or (of_day != of_day[0]).any() or (steps <= 0).any():
        return None
    months = most_common(steps)
    share = float((steps == months).mean())
    if (steps % months).any() or share < (1 - _MAX_MISSING[7] if with_holes else 1):
        return None
    firsts = numbers.astype("datetime64[M]")
    of_month = (days - firsts.astype("datetime64[D]")).astype(np.int64) + 1
    ends = (firsts + 1).astype("datetime64[D]").astype(np.int64) - days.astype(np.int64) == 1
    return MonthRule(
        months=months,
        month=int(numbers[0] % months),
        day=31 if ends.all() else int(of_month.max()),
        second=int(of_day[0]),
    )


def _cycle_rule(
    seconds: NDArray[np.int64],
    wall: NDArray[np.int64],
    days: int,
    time_zone: str | None,
    *,
    with_holes: bool,
) -> CycleRule | None:
    """The rule of rows at the same times of every cycle of days, with pauses between them."""
    length = days * SECONDS_PER_DAY
    cycles, offsets = np.divmod(wall - MONDAY, length)
    num_cycles = min(int((wall[-1] - wall[0]) // length) + 1, len(np.unique(cycles)))
    if num_cycles < _MIN_CYCLES[days]:
        return None
    slots, counts = np.unique(offsets, return_counts=True)
    steps = np.diff([*slots, slots[0] + length])
    interval = int(steps.min())
    pauses = steps[steps != interval] - interval
    # Times that are not there in half of the cycles are strays, or of no cycle at all.
    if not len(pauses) or (pauses < _MIN_PAUSE_SECONDS).any() or (2 * counts < num_cycles).any():
        return None
    rule = CycleRule.of_offsets(days, interval, slots)
    if days > 1 and len(slots) % days == 0:  # all days may be alike
        of_day = slots.reshape(days, -1) - SECONDS_PER_DAY * np.arange(days)[:, None]
        if (of_day == of_day[0]).all():
            rule = CycleRule.of_offsets(1, interval, of_day[0])
    if with_holes and not _is_sure(rule, days, seconds, time_zone, num_cycles):
        return None
    return rule


def _is_sure(
    rule: CycleRule,
    days: int,
    seconds: NDArray[np.int64],
    time_zone: str | None,
    num_cycles: int,
) -> bool:
    """Whether the pauses of a rule are too many to be rows that are missing by chance."""
    active = np.unique(rule.cycles_of(seconds, time_zone))
    cycles = active
    if days == 1:
        cycles = np.arange(active[0], active[-1] + 1)
    elif rule.days == 1:
        weeks = np.unique(active // days) * days
        cycles = (weeks[:, None] + np.arange(days)).reshape(-1)
    if len(active) < (1 - _MAX_MISSING[days]) * len(cycles):
        return False
    expected = rule.times_in(cycles, time_zone)
    num_expected = int(((seconds[0] <= expected) & (expected <= seconds[-1])).sum())
    missing = max(0.0, 1 - len(seconds) / num_expected)
    places = days * SECONDS_PER_DAY // rule.interval_seconds
    return missing <= _MAX_MISSING[days] and places * missing**num_cycles <= _MAX_CHANCE


def most_common(steps: NDArray[np.int64]) -> int:
    """The most common of the steps, the smallest of those that are."""
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])
