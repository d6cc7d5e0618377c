"""What people call the columns of long tables, in lower case and with _ for blanks."""

import re

__all__ = [
    "COUNTS",
    "DESCRIPTIONS",
    "MAYBE_SENSORS",
    "PEMS_STATION",
    "SENSORS",
    "STEPS",
    "TIMES",
    "is_description",
    "plain_title",
]

TIMES = frozenset((
    "time", "timestamp", "timestamps", "datetime", "date_time", "date", "day", "ds", "dt",
    "ts", "time_stamp", "utc", "time_utc", "utc_time", "timestamp_utc", "datetime_utc",
    "date_utc", "local_time", "time_local", "datetime_local", "observed_at", "measured_at",
    "recorded_at", "measurement_time", "observation_time", "reading_time", "valid_time",
    "phenomenontime", "fint", "tstp", "date_from", "datefrom", "period",
))  # fmt: skip
STEPS = frozenset((
    "step", "steps", "t", "time_idx", "time_index", "time_step", "timestep", "tick",
))  # fmt: skip
SENSORS = frozenset((
    "unique_id", "item_id", "series_id", "ts_id", "sensor", "sensor_id", "sensorid",
    "sensor_name", "station", "station_id", "stationid", "station_code", "station_name",
    "site", "site_id", "siteid", "site_code", "node", "node_id", "nodeid", "detector",
    "detector_id", "detectorid", "detid", "det_id", "meter", "meter_id", "meterid", "lclid",
    "entity_id", "vds", "vds_id", "loop_id", "segment_id", "link_id", "linkid", "road_id",
    "edge_id", "geo_id", "location_id", "locationid", "device", "device_id", "deviceid",
    "mote", "moteid", "mote_id", "building_id", "counter_id", "gauge", "gauge_id", "stop_id",
    "zone_id", "turbid", "turbine_id", "buoy", "buoy_id", "well_id", "plant_id", "feeder_id",
    "idema",
))  # fmt: skip
"""They say so alone."""
MAYBE_SENSORS = frozenset((
    "id", "series", "location", "variable", "name", "code", "key", "object_id", "item",
))  # fmt: skip
"""They may also number rows, or say something else: the rows must agree."""
DESCRIPTIONS = frozenset((
    "lat", "lon", "lng", "long", "latitude", "longitude", "altitude", "elevation", "height",
    "year", "month", "hour", "minute", "second", "weekday", "day_of_week", "dayofweek", "row",
    "column", "row_id", "column_id", "lane", "lanes",
))  # fmt: skip
"""Numbers that describe a sensor or a time, and are no readings."""
COUNTS = frozenset(("", "index", "unnamed:_0", "row", "rownum", "row_number", "dyna_id", "no"))
"""They number the rows where their cells do."""
PEMS_STATION = (
    "timestamp", "station", "district", "freeway", "direction", "lane_type", "length",
    "samples", "observed", "flow", "occupancy", "speed",
)  # fmt: skip
"""First columns of the station files of the PeMS clearinghouse, which have no header."""


_FLAG = re.compile(r"(.*_)?(flags?|qc|quality|valid|is_[a-z_]+|station_?id|sensor_?id)")
_OF_DATES = frozenset((
    "dow", "doy", "yr", "mnth", "mon", "hr", "min", "sec", "week", "season", "quarter", "day",
    "weekend", "holiday", "workingday", "day_of_month", "day_of_year", "week_of_year", "dayofyear",
    "hour_of_day", "minute_of_day", "time_of_day", "instant", "total", "sum", "all", "id", "obs",
    "serial", "jd", "julian_date", "julian_day", "decimal_year", "rownum", "row_number", "line",
))  # fmt: skip


def plain_title(title: str) -> str:
    """A title without case, blanks and units."""
    return re.sub(r"[\s\-./]+", "_", re.sub(r"[(\[].*?[)\]]", "", title).strip().casefold())


def is_description(title: str) -> bool:
    """Whether a column of numbers describes a time, a sensor or other columns by its title."""
    plain = plain_title(title)
    return plain in DESCRIPTIONS | _OF_DATES or _FLAG.fullmatch(plain) is not None
