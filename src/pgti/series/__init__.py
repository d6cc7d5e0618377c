"""One copy of the series on disk: its format, its times, its statistics."""

from pgti.series.calendar import CALENDAR_FEATURES as CALENDAR_FEATURES
from pgti.series.calendar import calendar_features as calendar_features
from pgti.series.calendar import default_calendar as default_calendar
from pgti.series.codec import MISSING_CODE as MISSING_CODE
from pgti.series.codec import Codec as Codec
from pgti.series.meta import FORMAT_VERSION as FORMAT_VERSION
from pgti.series.meta import StoreMeta as StoreMeta
from pgti.series.moments import Moments as Moments
from pgti.series.profile import Profile as Profile
from pgti.series.scaler import Scaler as Scaler
from pgti.series.slots import slot_sums as slot_sums
from pgti.series.store import SeriesStore as SeriesStore
from pgti.series.time_axis import SECONDS_PER_DAY as SECONDS_PER_DAY
from pgti.series.time_axis import TimeAxis as TimeAxis
from pgti.series.writer import StoreWriter as StoreWriter
