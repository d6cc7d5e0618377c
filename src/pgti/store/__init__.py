"""One copy of the series on disk: its format, its times, its statistics."""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.store.appender import StoreAppender as StoreAppender
    from pgti.store.calendar import CALENDAR_FEATURES as CALENDAR_FEATURES
    from pgti.store.calendar import calendar_features as calendar_features
    from pgti.store.calendar import default_calendar as default_calendar
    from pgti.store.calendar import holiday_feature as holiday_feature
    from pgti.store.meta import StoreMeta as StoreMeta
    from pgti.store.moments import Moments as Moments
    from pgti.store.scaler import Scaler as Scaler
    from pgti.store.store import SeriesStore as SeriesStore
    from pgti.store.store import open_store as open_store
    from pgti.store.target import check_target as check_target
    from pgti.store.time_axis import SECONDS_PER_DAY as SECONDS_PER_DAY
    from pgti.store.time_axis import TimeAxis as TimeAxis
    from pgti.store.time_axis import format_interval as format_interval
    from pgti.store.time_axis import parse_time as parse_time
    from pgti.store.time_rule import CycleRule as CycleRule
    from pgti.store.time_rule import MonthRule as MonthRule
    from pgti.store.time_rule import TimeRule as TimeRule
    from pgti.store.typical import TypicalReadings as TypicalReadings
    from pgti.store.typical import sum_by_bin as sum_by_bin
    from pgti.store.writer import MemoryWriter as MemoryWriter
    from pgti.store.writer import StoreWriter as StoreWriter
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
