"""Options for reading a source: what it does not describe itself."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from pgti.display import count_of
from pgti.errors import ConfigError, option, require_whole_number
from pgti.ingestion.instants import parse_interval, parse_start
from pgti.options import convert_fields, require_number
from pgti.store.time_axis import is_zone

__all__ = [
    "OF_READINGS",
    "Aggregate",
    "Duplicates",
    "EdgeValues",
    "FilesKind",
    "Gaps",
    "GraphKind",
    "IngestOptions",
]

Gaps: TypeAlias = Literal["error", "fill", "keep"]
Duplicates: TypeAlias = Literal["error", "first", "last", "mean"]
Aggregate: TypeAlias = Literal["mean", "sum", "last"]
FilesKind: TypeAlias = Literal["times", "sensors", "channels"]
EdgeValues: TypeAlias = Literal["weight", "distance"]
GraphKind: TypeAlias = Literal["matrix", "edges", "coordinates"]

OF_READINGS = frozenset(
    ("values", "channels", "scale", "missing", "interval", "time_zone", "time_format", "gaps",
     "delimiter", "header", "timestamps", "ids", "long", "files", "duplicates", "axes", "transpose",
     "encoding", "decimal", "time_columns", "resample", "aggregate", "ignore")
)  # fmt: skip
"""What a store remembers of how it was read: all options of readings but units and start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestOptions:
    """How to read the readings and the graph.

    Attributes:
        values: Arrays (npz), tables or datasets (HDF5) or variables (MATLAB, NetCDF, Zarr) that
            hold the readings. Several arrays [T, N] become channels. By default the only candidate.
        channels: Name of each channel. By default the names in the source, else "value".
        units: Unit of each channel.
        scale: Factor from raw values to readings, one for all channels or one each. Where 1/scale
            is a whole number, raw values are divided by it, so that 645 * 0.1 is exactly 64.5.
        missing: Raw values, numbers or text, that mean "missing". NaN always does.
        long: Columns (time, sensor, value, ...) of a long table, which has a row for each time and
            sensor; several columns of values become channels.
        ignore: Columns of a table to leave out, by title, or by number from 1 without a header.
        files: What each of several files holds: "times" (rows that others continue), "sensors" (one
            sensor, whose columns are channels) or "channels" (one channel). By default what their
            times, columns and names show.
        duplicates: What to do where a time and a sensor occur twice: "error" refuses the source;
            "first", "last" and "mean" choose among the rows in their order.
        axes: Names of the two to four axes of an array, in its order: time (or day and slot, which
            are joined), sensor, channel; others (row, column; latitude, longitude) together make
            the sensors. Of a table whose columns have two levels, time,sensor,channel or
            time,channel,sensor.
        transpose: Whether the rows of a table or a matrix are sensors and its columns are times.
        start: Wall-clock time of the first row, ISO 8601, for a source without times.
        interval: Time between rows, such as "5min", for a source without times.
        time_zone: IANA name of the zone of wall-clock times; times with an offset are shown on
            its clock. By default the zone of the source, if it has one.
        time_format: Format of the times in a table, as for `strptime`. By default ISO 8601, or
            what the times show.
        time_columns: Columns that hold the times; the text of several is joined (date, time). By
            default those whose titles and cells show it.
        resample: Interval, such as "5min", onto whose grid rows are aggregated.
        aggregate: How `resample` makes one reading of several, one for all channels or one each:
            "mean", "sum" or "last".
        gaps: What to do where rows are missing between two times: "error" refuses the source,
            unless its times follow a rule without exception (months, working days, service hours);
            "fill" inserts rows of missing readings; "keep" stores the time of each row.
        delimiter: Character between the cells of a text file. Auto-detected by default.
        encoding: Encoding of the text in a file, such as "cp1252". By default that of its byte
            order mark, else UTF-8.
        decimal: Decimal sign of the numbers in a text file, "." or ","; the other one may stand
            between thousands. By default what the cells show, else ".".
        header: Whether the first line of a text file holds sensor ids. Auto-detected by default.
        timestamps: Whether the first column of a text file or a Parquet table holds times.
            Auto-detected by default.
        ids: Array of sensor ids (1-D) in an npz, HDF5 or MATLAB source, or column of ids in a
            transposed table or a table of coordinates. By default the first array of a usual name
            (node_ids, sensor_ids, ids, ...) that has the right length.
        known_future: Channels whose values are known for times to come (a calendar of events, a
            weather forecast).
        categorical: Static features whose values are categories, although they look like numbers.
        exact: Whether the store keeps every digit of the readings where float32 would round them.
        graph_delimiter: Character between the cells of a text file of the graph. Auto-detected by
            default.
        graph_kind: Kind of graph in a graph file. Auto-detected by default.
        graph_values: Array of an npz that holds the adjacency matrix. By default the only square
            one.
        edges: Arrays or columns (source, target) or (source, target, weight) of an edge list.
        edge_values: Whether edge values are weights, or distances that a thresholded Gaussian
            kernel turns into weights. By default what the name of their column or array says
            (weight; cost, distance, edge_miles, ...), and weights where none is above 1. It is
            required where larger values could be either.
        threshold: Smallest kernel weight that makes an edge in a table of distances. Edges given
            as arrays, and those to nearest neighbours, all stay, with at least this weight.
        sigma: Width of the kernel in the unit of the distances. By default their standard
            deviation.
        coordinates: Arrays or columns (latitude, longitude) in degrees.
        neighbours: Number of nearest sensors that each sensor is joined with, for a graph built
            from coordinates.
        budget_bytes: Memory for one chunk of readings.
        overwrite: Replace an existing store, once the new one is complete.

    Raises:
        ConfigError: if a value cannot be used.
    """

    values: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    missing: tuple[float | str, ...] = ()
    long: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    files: FilesKind | None = None
    duplicates: Duplicates = "error"
    axes: tuple[str, ...] = ()
    transpose: bool = False
    start: str | None = None
    interval: str | None = None
    time_zone: str | None = None
    time_format: str | None = None
    time_columns: tuple[str, ...] = ()
    resample: str | None = None
    aggregate: tuple[Aggregate, ...] = ()
    gaps: Gaps = "error"
    delimiter: str | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None
    header: bool | None = None
    timestamps: bool | None = None
    ids: str | None = None
    known_future: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    exact: bool = False
    graph_delimiter: str | None = None
    graph_kind: GraphKind | None = None
    graph_values: str | None = None
    edges: tuple[str, ...] = ()
    edge_values: EdgeValues | None = None
    threshold: float = 0.1
    sigma: float | None = None
    coordinates: tuple[str, ...] = ()
    neighbours: int | None = None
    budget_bytes: int = 32 << 20
    overwrite: bool = False

    def __post_init__(self) -> None:
        convert_fields(self)
        if self.time_zone is not None and not is_zone(self.time_zone):
            raise ConfigError(
                f"the time zone {self.time_zone!r} is not known: give an IANA name such as "
                "America/Los_Angeles"
            )
        if self.interval is not None:
            parse_interval(self.interval)
        if self.start is not None:
            parse_start(self.start, self.time_zone)
        if self.resample is not None:
            parse_interval(self.resample)
        if (self.resample is None) != (not self.aggregate):
            raise ConfigError(
                f"{option('resample')} and {option('aggregate')} go together: give both, such as "
                f"{option('resample', '5min')} and {option('aggregate', 'mean')} (or sum, or last)"
            )
        if self.time_format == "":
            raise ConfigError(
                f"{option('time_format')} is empty: write a format such as %d/%m/%Y %H:%M, or "
                "leave it out"
            )
        self._check_numbers()
        self._check_names()

    def of_readings(self) -> dict[str, Any]:
        """The options of readings that were given, by name, as a store remembers them."""
        known = ((each.name, each.default) for each in fields(self) if each.name in OF_READINGS)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, default in known
            if (value := getattr(self, name)) != default
        }

    @property
    def interval_seconds(self) -> int | None:
        """The interval in seconds, or None."""
        return None if self.interval is None else parse_interval(self.interval)

    def _check_numbers(self) -> None:
        for factor in self.scale:
            if not math.isfinite(factor) or factor == 0:
                raise ConfigError(f"the scale {factor} must be finite and not zero")
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"the threshold {self.threshold} must be at least 0 and below 1")
        if self.sigma is not None:
            require_number("sigma", self.sigma, above_zero=True)
        for name, value in (("neighbours", self.neighbours), ("budget_bytes", self.budget_bytes)):
            if value is not None:
                require_whole_number(name, value, 1)

    def _check_names(self) -> None:
        for what, names, sizes, rule in (
            ("edges", self.edges, range(4), "source,target or source,target,weight"),
            ("coordinates", self.coordinates, (0, 2), "latitude,longitude"),
        ):
            if len(names) not in sizes:
                raise ConfigError(
                    f"{what} names {count_of(len(names), 'array')} ({', '.join(names)}): the rule "
                    f"is {rule}"
                )
        if self.long and (len(self.long) < 3 or self.transpose):
            problem = f"names {count_of(len(self.long), 'column')}"
            raise ConfigError(
                f"{option('long')} "
                f"{'and transpose exclude each other' if self.transpose else problem} "
                f"({', '.join(self.long)}): the rule is time,sensor,value, then more values, which "
                "become channels"
            )
        for delimiter in (self.delimiter, self.graph_delimiter):
            if delimiter is None or _could_delimit(delimiter):
                continue
            raise ConfigError(
                f"the delimiter {delimiter!r} must be one ASCII character that does not occur "
                "in numbers or quotes, such as ; or a tab"
            )
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            raise ConfigError(
                f"the encoding {self.encoding!r} is not known: name one such as utf-8, cp1252 "
                "(Western Europe), gb18030 (Chinese) or cp932 (Japanese)"
            )
        for what, names in (("values", self.values), ("channels", self.channels)):
            for name in names:
                if names.count(name) > 1 or not name:
                    raise ConfigError(f"{what} names {name!r} twice or not at all: {names}")


def _is_text_encoding(name: str) -> bool:
    try:
        "0".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def _could_delimit(text: str) -> bool:
    return len(text) == 1 and text.isascii() and not text.isalnum() and text not in '\r\n\0".+-_'
