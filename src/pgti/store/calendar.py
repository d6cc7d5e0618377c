"""Calendar features: known for every row, past or future, and computed when a batch is made."""

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError
from pgti.store.time_axis import SECONDS_PER_DAY, TimeAxis

__all__ = ["CALENDAR_FEATURES", "calendar_features", "default_calendar"]

CALENDAR_FEATURES = ("time-of-day", "day-of-week")


def calendar_features(
    time_axis: TimeAxis, names: tuple[str, ...], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Features of the given rows: float32, the shape of `rows` with F = len(names) appended.

    `time-of-day` is the share of the day that has passed, in [0, 1), as in DCRNN's data;
    `day-of-week` is Monday 0 to Sunday 6, divided by 7.

    Raises:
        ConfigError: if there is no such feature, or the series has no times.
    """
    features = np.empty((*rows.shape, len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        if name == "time-of-day":
            features[..., position] = time_axis.time_of_day(rows)
        elif name == "day-of-week":
            features[..., position] = time_axis.day_of_week(rows) / np.float32(7)
        else:
            raise ConfigError(
                f"there is no calendar feature {name!r}: it is one of "
                f"{', '.join(CALENDAR_FEATURES)}"
            )
    return features


def default_calendar(time_axis: TimeAxis, *, day_of_week: bool = False) -> tuple[str, ...]:
    """The features that fit a series: the time of day where several readings make a day.

    Args:
        time_axis: of the series.
        day_of_week: the day of the week too, where every day has a reading.
    """
    interval = time_axis.interval_seconds
    if not time_axis.is_dated or interval is None or interval > SECONDS_PER_DAY:
        return ()
    of_day = ("time-of-day",) if interval < SECONDS_PER_DAY else ()
    return (*of_day, "day-of-week") if day_of_week else of_day
