"""Rules that the times of a series follow where they are not a fixed interval apart.

Calendar months (quarters, years), and times of the wall clock that repeat every day or every week:
working days, hours of service, and days of 23 or 25 hours.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError, DataError
from pgti.options import convert_fields, parse_config
from pgti.store.clock import SECONDS_PER_DAY, true_seconds, wall_seconds

__all__ = ["CycleRule", "MonthRule", "TimeRule", "format_interval"]

MONDAY = 4 * SECONDS_PER_DAY
"""1970-01-05, a Monday: the first day of cycle 0."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class TimeRule(ABC):
    """A rising sequence of times of the wall clock without beginning or end.

    A series follows a rule where each of its times is one of the rule's; those that it lacks are
    holes. Times are epoch seconds; with a zone true ones, and the rule is that of its wall clock.
    """

    kind: ClassVar[str]

    @abstractmethod
    def after(self, second: int, count: int, time_zone: str | None) -> NDArray[np.int64]:
        """The rule's first `count` times after a time, int64 [count]."""

    @abstractmethod
    def before(self, second: int, count: int, time_zone: str | None) -> NDArray[np.int64]:
        """The rule's last `count` times before a time, rising, int64 [count]."""

    @abstractmethod
    def holds(self, seconds: NDArray[np.int64], time_zone: str | None) -> bool:
        """Whether each of these times is one of the rule's."""

    @abstractmethod
    def lacks(self, seconds: NDArray[np.int64], time_zone: str | None) -> NDArray[np.bool_]:
        """Whether the rule has a time between each of its times given and the next.

        Args:
            seconds: times of the rule, rising, int64 [T].
            time_zone: of the wall clock.

        Returns:
            bool [T - 1].
        """

    @abstractmethod
    def describe(self) -> str:
        """The rule in a few words, such as "every 10min, Mon-Fri 06:00-23:50"."""

    def to_plain(self) -> dict[str, Any]:
        """The rule as plain values, which `from_plain` reads."""
        assert isinstance(self, MonthRule | CycleRule)
        plain = asdict(self)
        if isinstance(self, CycleRule):
            plain["spans"] = [list(span) for span in self.spans]
        return {"kind": self.kind, **plain}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "TimeRule":
        """The rule that `to_plain` described.

        Raises:
            DataError: if the values do not describe a rule.
        """
        options = {name: value for name, value in plain.items() if name != "kind"}
        kinds: dict[Any, type[MonthRule | CycleRule]] = {
            each.kind: each for each in (MonthRule, CycleRule)
        }
        try:
            if plain.get("kind") not in kinds:
                raise ConfigError(f"kind is {plain.get('kind')!r}, not one of {', '.join(kinds)}")
            return parse_config(kinds[plain.get("kind")], options)
        except ConfigError as error:
            raise DataError(f"the rule of the times cannot be read: {error}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class MonthRule(TimeRule):
    """The same day of every month, or of every few months.

    Attributes:
        months: months from a time to the next: 1, 3 for quarters, 12 for years.
        month: of the year that has a time, from January as 0; below `months`, the others follow.
        day: of the month, 1..31; a shorter month has its last day, so that 31 is its end.
        second: of the day.

    Raises:
        ConfigError: if a value is outside its range.
    """

    kind: ClassVar[str] = "months"

    months: int
    month: int = 0
    day: int = 1
    second: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        for name, value, low, high in (
            ("months", self.months, 1, 1200),
            ("month", self.month, 0, self.months - 1),
            ("day", self.day, 1, 31),
            ("second", self.second, 0, SECONDS_PER_DAY - 1),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}: it must lie between {low} and {high}")

    def after(self, second: int, count: int, time_zone: str | None) -> NDArray[np.int64]:
        """The rule's first `count` times after a time, int64 [count]."""
        first = int(self._numbers(np.array([second]), time_zone)[0])
        times = self._times(np.arange(first, first + count + 1), time_zone)
        return times[times > second][:count]

    def before(self, second: int, count: int, time_zone: str | None) -> NDArray[np.int64]:
        """The rule's last `count` times before a time, rising, int64 [count]."""
        last = int(self._numbers(np.array([second]), time_zone)[0])
        times = self._times(np.arange(last - count, last + 1), time_zone)
        times = times[times < second]
        return times[len(times) - count :]

    def holds(self, seconds: NDArray[np.int64], time_zone: str | None) -> bool:
        """Whether each of these times is one of the rule's."""
        times = self._times(self._numbers(seconds, time_zone), time_zone)
        return np.array_equal(times, seconds)

    def lacks(self, seconds: NDArray[np.int64], time_zone: str | None) -> NDArray[np.bool_]:
        """Whether the rule has a time between each of its times given and the next."""
        return np.diff(self._numbers(seconds, time_zone)) > 1

    def describe(self) -> str:
        """The rule in a few words."""
        names = {1: "month", 3: "quarter", 12: "year"}
        every = f"every {names.get(self.months, f'{self.months} months')}"
        day = "the last day" if self.day == 31 else f"day {self.day}"
        clock = f" at {_clock(self.second)}" if self.second else ""
        return f"{every}, on {day} of the month{clock}"

    def _numbers(self, seconds: NDArray[np.int64], time_zone: str | None) -> NDArray[np.int64]:
        """Number of the rule's last month that begins by each time."""
        wall = wall_seconds(seconds, time_zone).astype("datetime64[s]")
        return (wall.astype("datetime64[M]").astype(np.int64) - self.month) // self.months

    def _times(self, numbers: NDArray[np.int64], time_zone: str | None) -> NDArray[np.int64]:
        months = (numbers * self.months + self.month).astype("datetime64[M]")
        firsts = months.astype("datetime64[D]").astype(np.int64)
        ends = (months + 1).astype("datetime64[D]").astype(np.int64)
        days = np.minimum(firsts + self.day, ends) - 1
        return true_seconds(days * SECONDS_PER_DAY + self.second, time_zone)


@dataclass(frozen=True, kw_only=True, slots=True)
class CycleRule(TimeRule):
    """Times of the wall clock that repeat in cycles of days, counted from a Monday.

    Within a span rows are an interval apart in true time, so that it has more or fewer of them
    where clocks change; each span begins by the wall clock. A rule of single times, such as that of
    working days, has spans of one time each.

    Attributes:
        days: of a cycle: 7, or 1 where all days are alike.
        interval_seconds: from a row of a span to the next.
        spans: first and last time of each stretch of rows, in seconds from the cycle's beginning;
            rising, and apart.

    Raises:
        ConfigError: if a value is outside its range, or spans overlap.
    """

    kind: ClassVar[str] = "cycle"

    days: int
    interval_seconds: int
    spans: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        convert_fields(self)
        if self.days < 1 or self.interval_seconds < 1:
            raise ConfigError(
                f"days is {self.days} and interval_seconds {self.interval_seconds}: they must be "
                "at least 1"
            )
        ends = [-1, *(end for span in self.spans for end in span), self.days * SECONDS_PER_DAY]
        steps = np.diff(ends)
        if not self.spans or (steps[::2] <= 0).any() or (steps[1::2] < 0).any():
            raise ConfigError(f"the spans {self.spans} must rise, within a cycle of {self.days} d")

    @classmethod
    def of_offsets(cls, days: int, interval_seconds: int, offsets: NDArray[np.int64]) -> Self:
        """The rule of times in a cycle, those that are an interval apart joined to spans.

        Times a day or more apart follow the wall clock one by one.

        Args:
            days: of a cycle.
            interval_seconds: from a row to the next.
            offsets: the times in seconds from the cycle's beginning, rising, int64.
        """
        begins = np.ones(len(offsets), dtype=np.bool_)
        if interval_seconds < SECONDS_PER_DAY:
            begins[1:] = np.diff(offsets) != interval_seconds
        firsts, lasts = offsets[begins], offsets[np.append(begins[1:], True)]
        spans = tuple(zip(firsts.tolist(), lasts.tolist(), strict=True))
        return cls(days=days, interval_seconds=interval_seconds, spans=spans)

    @property
    def num_times(self) -> int:
        """Times of a cycle without clock changes."""
        return sum((last - first) // self.interval_seconds + 1 for first, last in self.spans)

    def cycles_of(self, seconds: NDArray[np.int64], time_zone: str | None) -> NDArray[np.int64]:
        """Number of the cycle that each time lies in."""
        return (wall_seconds(seconds, time_zone) - MONDAY) // (self.days * SECONDS_PER_DAY)

    def times_in(self, cycles: NDArray[np.int64], time_zone: str | None) -> NDArray[np.int64]:
        """All times of rising cycles, rising, int64."""
        begins = MONDAY + cycles * (self.days * SECONDS_PER_DAY)
        spans = np.array(self.spans, dtype=np.int64)
        wall = (begins[:, None, None] + spans).reshape(-1, 2)
        firsts = true_seconds(wall[:, 0], time_zone)
        lasts = true_seconds(wall[:, 1], time_zone, "shift_backward")
        lasts = np.where(wall[:, 0] == wall[:, 1], firsts, lasts)
        counts = np.maximum(0, (lasts - firsts) // self.interval_seconds + 1)
        inside = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        times: NDArray[np.int64] = np.repeat(firsts, counts) + inside * self.interval_seconds
        # Where clocks go back, a span may reach into the next.
        return times if (times[1:] > times[:-1]).all() else np.unique(times)

    def after(self, second: int, count: int, time_zone: str | None) -> NDArray[np.int64]:
        """The rule's first `count` times after a time, int64 [count]."""
        first = int(self.cycles_of(np.array([second]), time_zone)[0])
        # One cycle more for the rest of this one, and one for hours that clocks skip.
        stop = first + count // self.num_times + 3
        times = self.times_in(np.arange(first, stop), time_zone)
        return times[times > second][:count]

    def before(self, second: int, count: int, time_zone: str | None) -> NDArray[np.int64]:
        """The rule's last `count` times before a time, rising, int64 [count]."""
        last = int(self.cycles_of(np.array([second]), time_zone)[0])
        times = self.times_in(np.arange(last - count // self.num_times - 2, last + 1), time_zone)
        times = times[times < second]
        return times[len(times) - count :]

    def holds(self, seconds: NDArray[np.int64], time_zone: str | None) -> bool:
        """Whether each of these times is one of the rule's."""
        times, places = self._find(seconds, time_zone)
        return np.array_equal(times[np.minimum(places, len(times) - 1)], seconds)

    def lacks(self, seconds: NDArray[np.int64], time_zone: str | None) -> NDArray[np.bool_]:
        """Whether the rule has a time between each of its times given and the next."""
        return np.diff(self._find(seconds, time_zone)[1]) > 1

    def _find(
        self, seconds: NDArray[np.int64], time_zone: str | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rule's times in the cycles of times given and the next ones; where these are."""
        cycles = np.unique(self.cycles_of(seconds, time_zone))
        times = self.times_in(np.union1d(cycles, cycles + 1), time_zone)
        return times, np.searchsorted(times, seconds)

    def describe(self) -> str:
        """The rule in a few words."""
        every = f"every {format_interval(self.interval_seconds)}"
        if self.interval_seconds >= SECONDS_PER_DAY and len(self.spans) == 1:
            return f"{every} at {_clock(self.spans[0][0] % SECONDS_PER_DAY)}"
        hours: dict[int, list[str]] = {}
        for first, last in self._joined_spans():
            day, begin = divmod(first, SECONDS_PER_DAY)
            if last - first >= SECONDS_PER_DAY:
                until = f"{_DAYS[last // SECONDS_PER_DAY % 7]} {_clock(last % SECONDS_PER_DAY)}"
                hours.setdefault(day, []).append(f"{_clock(begin)} to {until}")
            elif first == last:
                hours.setdefault(day, []).append(_clock(begin))
            else:
                until = _clock(last % SECONDS_PER_DAY)
                hours.setdefault(day, []).append(f"{_clock(begin)}-{until}")
        texts = {day: ", ".join(each) for day, each in hours.items()}
        if self.days != 7:
            return f"{every}, {'; '.join(texts.values())}"
        groups: dict[str, list[int]] = {}
        for day, text in texts.items():
            groups.setdefault(text, []).append(day)
        parts = [
            f"{_days(days)}{'' if text == '00:00' else f' {text}'}" for text, days in groups.items()
        ]
        return f"{every}, {'; '.join(parts)}"

    def _joined_spans(self) -> list[tuple[int, int]]:
        """The spans, those that touch across the end of the cycle as one."""
        spans, length = list(self.spans), self.days * SECONDS_PER_DAY
        touches = spans[0][0] + length - spans[-1][1] == self.interval_seconds
        if touches and len(spans) > 1 and spans[-1][0] < spans[-1][1]:
            first, last = spans[-1][0], spans[0][1] + length
            return [*spans[1:-1], (first, last)]
        return spans


def _days(days: list[int]) -> str:
    """Names of days of the week: "Mon-Fri", "Mon, Wed"."""
    if len(days) > 2 and days[-1] - days[0] == len(days) - 1:
        return f"{_DAYS[days[0]]}-{_DAYS[days[-1]]}"
    return ", ".join(_DAYS[day] for day in days)


def _clock(second: int) -> str:
    """Seconds of a day as the clock shows them: "06:00"."""
    time = datetime.fromtimestamp(second, UTC).time()
    return time.isoformat("seconds" if time.second else "minutes")


def format_interval(seconds: int) -> str:
    """The shortest way to write an interval, such as "5min"."""
    for unit, size in (("d", SECONDS_PER_DAY), ("h", 3_600), ("min", 60)):
        if seconds % size == 0 and seconds:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
