"""Times of rows."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgti.errors import ConfigError, DataError
from pgti.store import (
    CycleRule,
    MonthRule,
    TimeAxis,
    TimeRule,
    calendar_features,
    default_calendar,
)


def axis(start: str = "2025-10-01T00:00", steps: int = 600, interval: int = 300) -> TimeAxis:
    seconds = int(np.datetime64(start, "s").astype(np.int64))
    return TimeAxis(num_steps=steps, start_seconds=seconds, interval_seconds=interval)


def test_regular_times_go_on_past_the_end() -> None:
    """Row r is start + r intervals, also beyond the series."""
    times = axis().at(np.array([0, 1, 700]))
    assert times.astype(str).tolist() == [
        "2025-10-01T00:00:00",
        "2025-10-01T00:05:00",
        "2025-10-03T10:20:00",
    ]


def test_calendar_matches_pandas() -> None:
    """Time of day and day of week are those of an independent calendar."""
    rows = np.arange(3000)
    index = pd.date_range("2025-10-01", periods=3000, freq="5min")
    features = calendar_features(axis(), ("time-of-day", "day-of-week"), rows)
    minutes = (index.hour * 60 + index.minute).to_numpy()
    np.testing.assert_allclose(features[:, 0], minutes / 1440, rtol=1e-6)
    np.testing.assert_allclose(features[:, 1], index.day_of_week.to_numpy() / 7, rtol=1e-6)


def test_week_bins_count_from_monday() -> None:
    """Bin 0 is Monday 00:00 and a week has as many bins as intervals."""
    monday = axis("2025-10-06T00:00")
    assert monday.num_week_bins == 2016
    assert monday.week_bins(np.array([0, 1, 2015, 2016])).tolist() == [0, 1, 2015, 0]


def test_row_of_finds_the_first_row_not_earlier() -> None:
    """A time between two rows belongs to the later one; one past the end to num_steps."""
    times = axis()
    assert times.row_of(np.datetime64("2025-10-01T00:05")) == 1
    assert times.row_of(np.datetime64("2025-10-01T00:06")) == 2
    assert times.row_of(np.datetime64("2024-01-01")) == 0
    assert times.row_of(np.datetime64("2030-01-01")) == 600


def test_irregular_times_are_kept() -> None:
    """With the time of each row stored, gaps stay gaps."""
    seconds = np.array([0, 300, 900, 1200], dtype=np.int64)
    times = TimeAxis(num_steps=4, start_seconds=0, interval_seconds=300, seconds=seconds)
    assert times.seconds_at(np.array([2, 3, 5])).tolist() == [900, 1200, 1800]
    assert times.row_of(np.datetime64(600, "s")) == 2


def test_zoned_times_follow_the_wall_clock() -> None:
    """Across the end of summer time, features follow the local clock as pandas gives it."""
    start = int(np.datetime64("2025-11-02T05:00", "s").astype(np.int64))
    times = TimeAxis(
        num_steps=200, start_seconds=start, interval_seconds=600, time_zone="America/Los_Angeles"
    )
    rows = np.arange(200)
    index = pd.date_range("2025-11-02T05:00", periods=200, freq="10min", tz="UTC")
    local = index.tz_convert("America/Los_Angeles").tz_localize(None)
    np.testing.assert_array_equal(times.at(rows), local.to_numpy().astype("datetime64[s]"))


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("first_utc", ["2025-11-02T05:00", "2025-11-02T09:05", "2025-03-09T05:00"])
def test_row_of_is_the_first_row_in_order_across_clock_changes(
    first_utc: str, regular: bool
) -> None:
    """For any wanted time, no earlier row shows it or later, where the clock goes back or on."""
    start = int(np.datetime64(first_utc, "s").astype(np.int64))
    seconds = start + 600 * np.arange(100)
    if not regular:
        seconds = np.delete(seconds, [21, 22, 23, 24, 30])
    times = TimeAxis(
        num_steps=len(seconds),
        start_seconds=start,
        interval_seconds=600,
        time_zone="America/Los_Angeles",
        seconds=None if regular else seconds,
    )
    wall = times.at(np.arange(len(seconds)))
    first = wall[0] - np.timedelta64(90, "m")
    for wanted in first + np.arange(0, 1300, 5).astype("timedelta64[m]"):
        expected = next((row for row, at in enumerate(wall) if at >= wanted), len(wall))
        assert times.row_of(wanted) == expected, wanted


def test_row_of_a_time_that_is_shown_twice_is_its_first_pass() -> None:
    """On 2025-11-02, 01:30 comes at 08:30 and at 09:30 UTC; a later start sees only the second."""
    for first_utc, row in (("2025-11-02T05:00", 21), ("2025-11-02T09:10", 2)):
        start = int(np.datetime64(first_utc, "s").astype(np.int64))
        times = TimeAxis(
            num_steps=100,
            start_seconds=start,
            interval_seconds=600,
            time_zone="America/Los_Angeles",
        )
        assert times.row_of(np.datetime64("2025-11-02T01:30")) == row


def test_undated_series_have_one_week_bin_and_no_calendar() -> None:
    """Without times there is nothing to compute and asking for it says what to do."""
    times = TimeAxis(num_steps=10)
    assert not times.is_dated
    assert times.num_week_bins == 1
    assert times.week_bins(np.arange(3)).tolist() == [0, 0, 0]
    assert default_calendar(times) == ()
    with pytest.raises(ConfigError, match="start and interval"):
        times.at(np.array([0]))
    with pytest.raises(ConfigError, match="start and interval"):
        times.row_of(np.datetime64("2025-11-02"))


def test_default_calendar_needs_several_readings_a_day() -> None:
    """Five-minute series get the time of day; daily ones do not."""
    assert default_calendar(axis()) == ("time-of-day",)
    assert default_calendar(axis(interval=86_400)) == ()
    assert default_calendar(axis(), day_of_week=True) == ("time-of-day", "day-of-week")
    assert default_calendar(axis(interval=86_400), day_of_week=True) == ("day-of-week",)
    assert default_calendar(axis(interval=7 * 86_400), day_of_week=True) == ()


def test_unknown_feature_is_refused() -> None:
    """The message lists the features that there are."""
    with pytest.raises(ConfigError, match="time-of-day, day-of-week"):
        calendar_features(axis(), ("moon-phase",), np.arange(2))


def test_contradictions_are_refused() -> None:
    """A start needs an interval, and stored times must match the rows."""
    with pytest.raises(DataError, match="no interval"):
        TimeAxis(num_steps=3, start_seconds=0)
    with pytest.raises(DataError, match="at least one second"):
        TimeAxis(num_steps=3, start_seconds=0, interval_seconds=0)
    with pytest.raises(DataError, match="2 times for 3 rows"):
        TimeAxis(num_steps=3, start_seconds=0, interval_seconds=1, seconds=np.arange(2))
    with pytest.raises(DataError, match="seconds that increase"):
        TimeAxis(
            num_steps=2, start_seconds=0, interval_seconds=1, seconds=np.zeros(2, dtype=np.int64)
        )


def dated(seconds: list[int], rule: TimeRule | None = None, interval: int = 300) -> TimeAxis:
    """Rows at these times."""
    return TimeAxis(
        num_steps=len(seconds),
        start_seconds=seconds[0],
        interval_seconds=interval,
        seconds=np.array(seconds, dtype=np.int64),
        rule=rule,
    )


def test_holes_are_longer_than_the_interval_or_the_rule() -> None:
    """Where nothing says how long a step is, none is too long."""
    rows = [*range(0, 6000, 300), *range(9000, 15_000, 300)]
    assert dated(rows).continues
    assert dated(rows).holes.tolist() == [19]
    assert dated(rows).describe().endswith("irregular, mostly every 5min, 1 hole")
    assert not dated(rows[::7]).continues
    assert dated(rows[::7]).holes.tolist() == []
    assert axis().holes.tolist() == []
    assert axis().continues
    assert not TimeAxis(num_steps=3).continues
    hours = CycleRule(days=1, interval_seconds=300, spans=((3600, 7200),))
    served = hours.after(0, 13 * 20, None).tolist()
    assert dated(served, hours).holes.tolist() == []
    assert dated([*served[:13], *served[26:]], hours).holes.tolist() == [12]


def test_a_step_has_a_length_where_it_is_always_the_same() -> None:
    """Also the days of a clock, and rows of service hours; months and working days have none."""
    days = CycleRule(days=1, interval_seconds=86_400, spans=((0, 0),))
    work = CycleRule.of_offsets(7, 86_400, 86_400 * np.arange(5))
    for rule, interval, expected in (
        (days, 86_400, 86_400),
        (work, 86_400, None),
        (MonthRule(months=1), 31 * 86_400, None),
        (CycleRule(days=1, interval_seconds=300, spans=((0, 7200),)), 300, 300),
    ):
        assert dated(rule.after(0, 30, None).tolist(), rule, interval).step_seconds == expected
    assert axis().step_seconds == 300
    assert dated([0, 100, 900, 901, 905]).step_seconds is None


def test_a_series_without_rows_begins_at_its_start() -> None:
    """What follows it are the times of the rule from the start on."""
    work = CycleRule.of_offsets(7, 86_400, 86_400 * np.arange(5))
    start = int(np.datetime64("2024-01-05", "s").astype(np.int64))
    empty = TimeAxis(num_steps=0, start_seconds=start, interval_seconds=86_400, rule=work)
    days = empty.next_seconds(3).astype("datetime64[s]").astype("datetime64[D]").astype(str)
    assert days.tolist() == ["2024-01-05", "2024-01-08", "2024-01-09"]


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"kind": "moons"}, "kind is 'moons', not one of months, cycle"),
        ({"kind": "months", "months": 0}, "months is 0"),
        ({"kind": "months", "months": 1, "day": 32}, "day is 32"),
        ({"kind": "months", "moths": 1}, "moths is not an option"),
        ({"kind": "cycle", "days": 7, "interval_seconds": 0, "spans": [[0, 0]]}, "at least 1"),
        ({"kind": "cycle", "days": 7, "interval_seconds": 60, "spans": []}, "must rise"),
        ({"kind": "cycle", "days": 1, "interval_seconds": 60, "spans": [[9, 0]]}, "must rise"),
        ({"kind": "cycle", "days": 1, "interval_seconds": 60, "spans": [[0, 86_400]]}, "must rise"),
    ],
)
def test_rules_that_cannot_be_read(plain: dict[str, Any], message: str) -> None:
    """A damaged description is refused by its value."""
    with pytest.raises(DataError, match=message):
        TimeRule.from_plain(plain)
