"""Times that follow a rule other than an interval are known as such, and nothing else is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.ingestion.times.rules import most_common, recognize_rule
from pgti.store import CycleRule, MonthRule, SeriesStore, TimeAxis, TimeRule

DAY, WEEK = 86_400, 7 * 86_400


def dates(first: str, freq: str, periods: int, zone: str | None = None) -> pd.DatetimeIndex:
    return pd.date_range(first, freq=freq, periods=periods, tz=zone)


def hours(
    first: str, days: int, begin: str, end: str, freq: str = "10min", zone: str | None = None
) -> pd.DatetimeIndex:
    """The rows of service hours; an end before the beginning is on the next day."""
    rows: list[pd.Timestamp] = []
    for day in pd.date_range(first, periods=days):
        until = day + pd.Timedelta(f"{end}:00")
        if end < begin:
            until += pd.Timedelta("1D")
        rows.extend(pd.date_range(day + pd.Timedelta(f"{begin}:00"), until, freq=freq))
    return pd.DatetimeIndex(rows).tz_localize(zone)


def on_days(index: pd.DatetimeIndex, last: int) -> pd.DatetimeIndex:
    """The rows whose day of service is no later in the week than `last`, Monday 0."""
    return index[(index - pd.Timedelta("4h")).day_of_week <= last]


CASES = {
    "first of the month": (dates("2021-01-01", "MS", 60), "every month, on day 1 of the month"),
    "end of the month": (
        dates("2020-01-31", "ME", 60),
        "every month, on the last day of the month",
    ),
    "15th": (dates("2021-01-01", "MS", 40) + pd.Timedelta("14D"), "every month, on day 15"),
    "30th, or the end of February": (
        pd.DatetimeIndex([pd.Timestamp("2020-01-30") + pd.DateOffset(months=n) for n in range(40)]),
        "every month, on day 30",
    ),
    "quarters": (dates("2019-03-31", "QE-DEC", 24), "every quarter, on the last day"),
    "quarters at noon": (
        dates("2019-02-01", "QS-FEB", 24) + pd.Timedelta("12h"),
        "every quarter, on day 1 of the month at 12:00",
    ),
    "years": (dates("1990-01-01", "YS", 30), "every year, on day 1"),
    "ends of years": (dates("1990-12-31", "YE", 30), "every year, on the last day"),
    "months of a zone": (
        dates("2021-01-01", "MS", 40, "Europe/Rome"),
        "every month, on day 1 of the month",
    ),
    "business days": (dates("2009-12-28", "B", 200), "every 1d, Mon-Fri"),
    "business days of a zone": (
        dates("2024-01-01", "B", 300, "America/New_York"),
        "every 1d, Mon-Fri",
    ),
    "Mondays, Wednesdays and Fridays": (
        dates("2024-01-01", "C", 1).union(
            pd.bdate_range("2024-01-01", periods=90, freq="C", weekmask="Mon Wed Fri")
        ),
        "every 2d, Mon, Wed, Fri",
    ),
    "service hours": (hours("2024-03-06", 20, "06:00", "23:50"), "every 10min, 06:00-23:50"),
    "service hours over midnight": (
        hours("2024-03-06", 40, "06:00", "01:30"),
        "every 10min, 06:00-01:30",
    ),
    "service on weekdays": (
        on_days(hours("2024-03-06", 60, "06:00", "23:50"), 4),
        "every 10min, Mon-Fri 06:00-23:50",
    ),
    "service on weekdays over midnight": (
        on_days(hours("2024-03-06", 60, "06:00", "01:30"), 4),
        "every 10min, Mon-Fri 06:00-01:30",
    ),
    "market with a pause": (
        on_days(
            hours("2024-01-01", 60, "09:00", "11:25", "5min").union(
                hours("2024-01-01", 60, "12:30", "14:55", "5min")
            ),
            4,
        ),
        "every 5min, Mon-Fri 09:00-11:25, 12:30-14:55",
    ),
    "service hours across clock changes": (
        hours("2024-03-06", 300, "06:00", "23:50", zone="Europe/Rome"),
        "every 10min, 06:00-23:50",
    ),
    "days of 23 and 25 hours": (dates("2024-03-01", "D", 300, "Europe/Rome"), "every 1d at 00:00"),
    "days of 24 hours in a zone": (
        dates("2024-01-05", "D", 60, "Europe/Rome"),
        "every 1d at 00:00",
    ),
    "weeks of a zone": (
        dates("2024-03-01", "W-TUE", 60, "America/New_York") + pd.DateOffset(hours=7),
        "every 7d at 07:00",
    ),
    "noon and midnight of a zone": (
        pd.date_range("2024-03-01", periods=200, freq="12h").tz_localize("Europe/Rome"),
        "every 12h, 00:00, 12:00",
    ),
}


def frame(index: pd.DatetimeIndex) -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(len(index)) % 50 + 0.5, "b": 1.5}, index=index)


def stored(index: pd.DatetimeIndex) -> list[int]:
    """The seconds that a store has of these times."""
    true = index if index.tz is None else index.tz_convert("UTC").tz_localize(None)
    seconds: list[int] = true.as_unit("s").asi8.tolist()
    return seconds


@pytest.mark.parametrize("gaps", ["error", "keep"])
@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_rules_are_recognised(tmp_path: Path, case: str, naive: bool, gaps: str) -> None:
    """Whatever is said about gaps; the rows after the end are those of the longer source."""
    index, text = CASES[case]
    num_rows = len(index) * 4 // 5
    rows = index[:num_rows]
    options = IngestOptions(gaps=gaps)  # type: ignore[arg-type]
    if naive and index.tz is not None:
        options = IngestOptions(gaps=gaps, time_zone=str(index.tz))  # type: ignore[arg-type]
        rows = rows.tz_localize(None)
    store = ingest(frame(rows), tmp_path / "s", options)
    axis = SeriesStore.open(tmp_path / "s").time_axis
    assert axis.rule is not None
    assert text in axis.describe()
    assert axis.continues
    assert not len(axis.holes)
    assert axis.next_seconds(len(index) - num_rows).tolist() == stored(index[num_rows:])
    assert any(axis.rule.describe() in note for note in store.notes) != (axis.seconds is None)


@pytest.mark.parametrize("case", CASES)
def test_chunks_change_nothing(tmp_path: Path, case: str) -> None:
    """A source is read in pieces of a few rows, none of which shows the rule."""
    index, _ = CASES[case]
    whole = ingest(frame(index), tmp_path / "whole").time_axis.rule
    budget_bytes = 1 if len(index) <= 300 else 1 << 13
    ingest(frame(index), tmp_path / "s", budget_bytes=budget_bytes)
    assert SeriesStore.open(tmp_path / "s").time_axis.rule == whole


def test_business_days_with_holidays(tmp_path: Path) -> None:
    """Days that the markets are closed are holes of the rule, which is kept; no gap is allowed."""
    index = dates("2009-12-28", "B", 500)
    holidays = pd.to_datetime(["2010-04-02", "2010-04-05", "2010-12-24", "2011-01-03"])
    rows = index.difference(holidays)
    with pytest.raises(DataError, match=r"2010-01-01.*2010-01-04.*1d the source lacks 2 rows"):
        ingest(frame(rows), tmp_path / "s")
    store = ingest(frame(rows), tmp_path / "s", gaps="keep")
    axis = store.time_axis
    assert axis.rule == CycleRule.of_offsets(7, DAY, DAY * np.arange(5))
    before = rows[axis.holes]
    assert before.tolist() == list(pd.to_datetime(["2010-04-01", "2010-12-23", "2010-12-31"]))
    assert axis.next_seconds(3).tolist() == stored(dates("2011-11-25", "B", 4))[1:]
    assert (
        "missing in 3 places, first between 2010-04-01 00:00:00 and 2010-04-06" in store.notes[-1]
    )


def test_service_hours_with_a_long_outage(tmp_path: Path) -> None:
    """A month without any row says nothing against the hours that all other days have."""
    index = hours("2024-01-01", 120, "06:00", "23:50")
    index = index[(index < "2024-02-08 11:00") | (index > "2024-03-14 15:00")]
    index = index.delete([500, 3000, 3001])
    axis = ingest(frame(index), tmp_path / "s", gaps="keep").time_axis
    assert axis.rule == CycleRule(
        days=1, interval_seconds=600, spans=((6 * 3600, 24 * 3600 - 600),)
    )
    assert len(axis.holes) == 3
    assert str(axis.at(np.array([len(index)]))[0]) == "2024-04-30T06:00:00"


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(dates("2024-01-01", "5min", 20_000).delete(7_000), id="a row is missing"),
        pytest.param(dates("2024-01-01", "5min", 20_000).delete(range(100, 400)), id="a day"),
        pytest.param(
            dates("2024-01-01", "5min", 20_000).delete(range(10, 20_000, 288)),
            id="a logger restarts every day",
        ),
        pytest.param(dates("2024-01-01", "D", 100).delete([30, 31]), id="a weekend"),
        pytest.param(dates("2024-01-01", "B", 100).delete(50), id="a holiday"),
        pytest.param(dates("2024-01-01", "B", 15), id="three weeks are too few"),
        pytest.param(hours("2024-03-06", 6, "06:00", "23:50"), id="six days are too few"),
        pytest.param(
            on_days(hours("2024-03-06", 20, "06:00", "23:50"), 4), id="three weeks of service"
        ),
        pytest.param(dates("2021-01-31", "ME", 4), id="four months are too few"),
        pytest.param(
            dates("2024-03-30", "5min", 600, "Europe/Rome").delete(range(288, 300)),
            id="an hour is missing where clocks change",
        ),
        pytest.param(
            hours("2024-03-06", 60, "06:00", "23:50").union(dates("2024-04-03 02:00", "D", 1)),
            id="a stray row",
        ),
    ],
)
def test_a_few_missing_rows_are_no_rule(tmp_path: Path, index: pd.DatetimeIndex) -> None:
    """They are refused as ever, in a line that says where, at whatever size of a chunk."""
    for budget_bytes in (1 << 12, 1 << 25):
        with pytest.raises(DataError, match=r"line|row \d.*(lacks|not a whole number)"):
            ingest(frame(index), tmp_path / "s", budget_bytes=budget_bytes)
    assert not (tmp_path / "s").exists()


def test_a_large_source_is_refused_before_it_is_read_to_the_end(tmp_path: Path) -> None:
    """Weeks behind the first gap it is known that no rule explains it."""
    index = dates("2024-01-01", "5min", 100_000).delete(7_000)
    path = tmp_path / "a.csv"
    frame(index).to_csv(path)
    lines = path.read_text().splitlines()
    lines[50_000] = "not a time,1,2"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 7001 .*the source lacks 1 row"):
        ingest(path, tmp_path / "s", budget_bytes=1 << 16)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.02, 0.08, 0.3])
def test_rows_missing_at_random_are_no_rule(seed: int, share: float) -> None:
    """Five-minute rows of six weeks without single rows and whole hours: holes of the interval."""
    random = np.random.default_rng(seed)
    seconds = np.arange(6 * 2016, dtype=np.int64) * 300
    missing = random.random(len(seconds)) < share / 2
    missing |= np.repeat(random.random(len(seconds) // 36) < share / 2, 36)
    rows = seconds[~missing]
    assert recognize_rule(rows, None, with_holes=True) is None


def test_irregular_times_are_numbered_past_the_end(tmp_path: Path) -> None:
    """Less than nine steps of ten are alike: what comes next is not known, and it is said."""
    minutes = np.cumsum(np.random.default_rng(0).integers(1, 9, 300))
    index = pd.Timestamp("2024-01-01") + pd.to_timedelta(minutes, unit="min")
    store = ingest(frame(pd.DatetimeIndex(index)), tmp_path / "s", gaps="keep")
    axis = store.time_axis
    assert not axis.continues
    assert not len(axis.holes)
    assert "numbered, not dated" in store.notes[-1]
    assert axis.describe().endswith(", irregular")


@pytest.mark.parametrize("interval", ["1d", "7d"])
def test_days_of_a_zone_without_times_in_the_source(tmp_path: Path, interval: str) -> None:
    """Rows that are days apart from a start on are days of the clock."""
    options = IngestOptions(start="2024-03-20", interval=interval, time_zone="Europe/Rome")
    store = ingest(np.ones((200, 3)), tmp_path / "s", options)
    expected = pd.date_range("2024-03-20", freq=interval.upper(), periods=220)
    times = store.time_axis.at(np.arange(220))
    np.testing.assert_array_equal(times, expected.to_numpy().astype("datetime64[s]"))


ZONES = st.sampled_from(
    [None, "Europe/Rome", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
)
MONTHS = st.builds(
    lambda months, month, day, second: MonthRule(
        months=months, month=month % months, day=day, second=second
    ),
    st.sampled_from([1, 2, 3, 6, 12]),
    st.integers(0, 11),
    st.integers(1, 31),
    st.sampled_from([0, 12 * 3600, 24 * 3600 - 1]),
)


@st.composite
def weekly_rules(draw: st.DrawFn) -> CycleRule:
    """Some hours of some days of the week; at least an hour is left out between them."""
    interval = draw(st.sampled_from([300, 600, 900, 1800, 3600, DAY]))
    on = draw(st.sets(st.integers(0, 6), min_size=1, max_size=6))
    begin = draw(st.integers(4, 10)) * 3600
    length = draw(st.integers(0, 17)) * 3600 // interval
    offsets = [
        (day * DAY + begin + step * interval) % WEEK
        for day in on
        for step in range(length + 2 if interval < DAY else 1)
    ]
    return CycleRule.of_offsets(7, interval, np.array(sorted(set(offsets))))


@settings(deadline=None, max_examples=150)
@given(
    rule=st.one_of(MONTHS, weekly_rules()),
    zone=ZONES,
    start=st.datetimes(pd.Timestamp("1995-01-01"), pd.Timestamp("2030-01-01")),
    num_extra=st.integers(0, 300),
    count=st.integers(1, 200),
)
def test_what_comes_next_is_what_a_longer_source_has(
    rule: TimeRule, zone: str | None, start: pd.Timestamp, num_extra: int, count: int
) -> None:
    """For any rule: its rows show it, and the rows after the end are those that follow."""
    first = int(pd.Timestamp(start).timestamp())
    num_rows = 8 + num_extra
    if isinstance(rule, CycleRule):
        num_rows = 5 * rule.num_times + num_extra
    whole = rule.after(first, num_rows + count, zone)
    assert (np.diff(whole) > 0).all()
    assert rule.holds(whole, zone)
    assert not rule.lacks(whole, zone).any()
    rows = whole[:num_rows]
    interval = most_common(np.diff(rows))
    axis = TimeAxis(
        num_steps=num_rows,
        start_seconds=int(rows[0]),
        interval_seconds=interval,
        time_zone=zone,
        seconds=rows,
        rule=recognize_rule(rows, zone, with_holes=False),
    )
    if (np.diff(whole) == interval).all():
        return  # not a matter of rules
    assert axis.rule is not None
    assert axis.next_seconds(count).tolist() == whole[num_rows:].tolist()
    for row in (0, num_rows // 2, num_rows - 1):
        assert axis.row_of(axis.at(np.array([row]))[0]) <= row


@settings(deadline=None, max_examples=80)
@given(rule=st.one_of(MONTHS, weekly_rules()), zone=ZONES, seed=st.integers(0, 1000))
def test_a_rule_is_found_where_rows_are_missing(
    rule: TimeRule, zone: str | None, seed: int
) -> None:
    """One row of thirty at random, and a long outage: the same rule, and the right holes."""
    num_rows = 30 * rule.num_times if isinstance(rule, CycleRule) else 60
    whole = rule.after(1_700_000_000 + 86_400 * (seed % 400), num_rows + 50, zone)
    if len(set(np.diff(whole).tolist())) == 1:
        return  # an interval says all of it
    random = np.random.default_rng(seed)
    there = random.random(num_rows) >= 1 / 30
    outage = num_rows // 3
    there[outage : outage + num_rows // 10] = False
    there[-1] = True
    rows = whole[:num_rows][there]
    is_one_a_week = isinstance(rule, CycleRule) and rule.num_times == 1
    if is_one_a_week and (np.abs(np.diff(rows) - WEEK) <= 3600).mean() < 0.9:
        return  # a distance, which nine steps of ten must show
    found = recognize_rule(rows, zone, with_holes=True)
    assert found is not None
    axis = TimeAxis(
        num_steps=len(rows),
        start_seconds=int(rows[0]),
        interval_seconds=most_common(np.diff(rows)),
        time_zone=zone,
        seconds=rows,
        rule=found,
    )
    assert axis.next_seconds(50).tolist() == whole[num_rows:].tolist()
    expected = np.flatnonzero(np.diff(np.flatnonzero(there)) > 1)
    assert axis.holes.tolist() == expected.tolist()
