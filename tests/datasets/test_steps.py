"""Steps from readings as published to readings as stored, in pieces of any size."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pgti.datasets.steps import (
    average_intervals,
    clock_to_times,
    concatenate,
    mask_zeros,
    select_nodes,
    unstandardize,
)
from pgti.errors import DataError
from pgti.ingestion import Chunk, Readings

from .published_files import clocked as with_clock

EVERY = pytest.mark.parametrize("rows", [1, 2, 3, 7, 1000])


def readings(
    values: NDArray[Any], seconds: NDArray[np.int64] | None = None, *, rows: int = 3
) -> Readings:
    """An opened source of values [T, N, C] that comes in chunks of some rows."""

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        assert budget_bytes > 0
        for first in range(0, len(values), rows):
            part = slice(first, first + rows)
            times = None if seconds is None else seconds[part]
            yield Chunk(values=values[part].copy(), seconds=times)

    ids = tuple(f"s{node}" for node in range(values.shape[1]))
    return Readings(
        name="the source",
        num_rows=len(values),
        num_nodes=values.shape[1],
        num_channels=values.shape[2],
        node_ids=ids,
        chunks=chunks,
    )


def read(source: Readings) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """All values and times."""
    chunks = list(source.chunks(1 << 20))
    values = np.concatenate([chunk.values for chunk in chunks])
    assert values.shape[1:] == (source.num_nodes, source.num_channels)
    assert source.num_rows in (None, len(values))
    seconds = [chunk.seconds for chunk in chunks if chunk.seconds is not None]
    return values, np.concatenate(seconds) if seconds else None


def epoch(times: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Epoch seconds."""
    return np.asarray(times.as_unit("s").asi8, dtype=np.int64)


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_time_of_day_becomes_the_times(rows: int, dtype: type) -> None:
    """Days pass at midnight, and an hour without rows shows."""
    times = pd.date_range("2017-03-10T21:00", "2017-03-13T02:00", freq="5min")
    skipped = (times >= "2017-03-12T02:00") & (times < "2017-03-12T03:00")
    times = times[~skipped]
    speeds = np.random.default_rng(0).random((len(times), 4))
    source = readings(with_clock(speeds, times, dtype), rows=rows)
    values, seconds = read(clock_to_times(source, int(epoch(times)[0])))
    np.testing.assert_array_equal(values[..., 0], speeds.astype(dtype))
    np.testing.assert_array_equal(seconds, epoch(times))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clock: clock[4].__setitem__(1, 0.5), "row 4 of the source has .* the same for all"),
        (lambda clock: clock[3].__setitem__(slice(None), 1.0), "row 3 of the source has 1.0"),
        (lambda clock: clock[3].__setitem__(slice(None), -0.25), "row 3 of the source has -0.25"),
        (lambda clock: clock[3].__setitem__(slice(None), np.nan), "row 3 of the source has nan"),
        (lambda clock: clock[2].__setitem__(slice(None), 0.1234567), "row 2 .* a whole second"),
        (lambda clock: clock.__iadd__(0.5), "row 0 .* is 43200 seconds after midnight and 0 were"),
    ],
)
def test_what_is_no_time_of_day_is_refused(
    change: Callable[[NDArray[Any]], object], message: str
) -> None:
    """A standardised clock, one that sensors do not share, or one that begins elsewhere."""
    times = pd.date_range("2012-03-01", periods=8, freq="5min")
    values = with_clock(np.ones((8, 3)), times)
    change(values[..., 1])
    with pytest.raises(DataError, match=message):
        read(clock_to_times(readings(values), int(epoch(times)[0])))


@EVERY
@pytest.mark.parametrize("seconds", [900, 3600])
def test_averages_are_those_of_pandas(rows: int, seconds: int) -> None:
    """As the authors' notebooks make them: `resample("15min").mean().round(0)`."""
    rng = np.random.default_rng(2)
    times = pd.date_range("2019-01-01T00:05", periods=200, freq="5min")
    times = times[(rng.random(200) < 0.9) & ~((times.hour == 5) & (times.minute < 30))]
    values = rng.integers(0, 90, (len(times), 5)).astype(float)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[20:60, 0] = np.nan
    expected = pd.DataFrame(values, index=times).resample(f"{seconds}s").mean().round(0)
    has_rows = pd.Series(1, index=times).resample(f"{seconds}s").count() > 0
    expected = expected[has_rows]
    got, got_seconds = read(
        average_intervals(readings(values[..., None], epoch(times), rows=rows), seconds)
    )
    np.testing.assert_array_equal(got[..., 0], expected.to_numpy())
    np.testing.assert_array_equal(got_seconds, epoch(pd.DatetimeIndex(expected.index)))
    assert np.isnan(got).any()
    assert (np.asarray(got) % 1)[~np.isnan(got)].max() == 0


@EVERY
def test_averages_of_rows_out_of_order_are_refused(rows: int) -> None:
    """Two rows of one time would pass for one interval."""
    seconds = np.array([0, 300, 600, 600, 900], dtype=np.int64)
    with pytest.raises(DataError, match="a row of 1970-01-01T00:10:00 follows one of 1970-01-01T0"):
        read(average_intervals(readings(np.ones((5, 2, 1)), seconds, rows=rows), 900))
    with pytest.raises(DataError, match="the source has no times"):
        read(average_intervals(readings(np.ones((5, 2, 1)), rows=rows), 900))


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_come_back_from_their_standardised_form(rows: int, dtype: type) -> None:
    """Whole counts exactly, zeros included; what was not whole stays as it was."""
    counts = np.random.default_rng(3).integers(0, 900, (40, 6)).astype(float)
    counts[7] = 0
    counts[9] += 0.25
    mean, deviation = counts.mean(), counts.std()
    scaled = np.stack([(counts - mean) / deviation, np.zeros_like(counts)], -1).astype(dtype)
    values, _ = read(unstandardize(readings(scaled, rows=rows), mean, deviation))
    tolerance = 1e-3 if dtype is np.float32 else 1e-9
    np.testing.assert_allclose(values[9, :, 0], counts[9], atol=tolerance)
    whole = np.delete(np.arange(40), 9)
    np.testing.assert_array_equal(values[whole, :, 0], counts[whole])
    assert not np.signbit(values[7]).any()


def test_zeros_of_the_first_channel_alone_are_missing() -> None:
    """A road without cars has an occupancy of 0."""
    values = np.array([[[0.0, 0.0], [3.0, 0.0]], [[2.0, 1.0], [0.0, 0.5]]])
    marked, _ = read(mask_zeros(readings(values)))
    expected = values.copy()
    expected[[0, 1], [0, 1], 0] = np.nan
    np.testing.assert_array_equal(marked, expected)


def test_some_sensors_in_the_order_asked_for() -> None:
    """Columns are chosen by position, and get the ids that are given."""
    values = np.arange(24.0).reshape(3, 4, 2)
    chosen = select_nodes(readings(values), np.array([2, 0]), ("c", "a"))
    np.testing.assert_array_equal(read(chosen)[0], values[:, [2, 0]])
    assert chosen.node_ids == ("c", "a")


def test_years_follow_one_another() -> None:
    """The rows of the second come after those of the first, of the same sensors."""
    first, second = readings(np.ones((4, 2, 1))), readings(np.zeros((3, 2, 1)))
    both = concatenate([first, second], "both")
    assert both.num_rows == 7
    np.testing.assert_array_equal(read(both)[0][:, 0, 0], [1, 1, 1, 1, 0, 0, 0])
    with pytest.raises(DataError, match="has other sensors than"):
        concatenate([first, readings(np.ones((3, 3, 1)))], "both")
