"""Readings in a request, as tables that `run.forecast` takes."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from pgti.errors import ConfigError
from pgti.serve.arrow_streams import MEDIA_TYPE as ARROW
from pgti.serve.arrow_streams import read_stream
from pgti.serve.problems import RequestError, describe_invalid
from pgti.serve.schemas import ForecastRequest, Reading, ReadingsTable

__all__ = ["ForecastInputs", "parse_inputs"]

JSON = "application/json"

_MAX_KEYS = 100  # of an object
_COMMAS = 5  # of a reading with its channel, one of them in its id


class _NamedTable:
    """A table that messages call by the name of its class."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


_Readings = type("table", (_NamedTable,), {})  # "row 3 of the table has ..."
_Future = type("future table", (_NamedTable,), {})


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastInputs:
    """What a request gives `run.forecast`.

    Attributes:
        readings: a table; None for the run's store.
        future: values known in advance, likewise.
        options: how to read them.
        is_own_layout: whether the server laid out the table, of which no note need speak.
    """

    readings: Any = None
    future: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    is_own_layout: bool = False


def parse_inputs(
    content: bytes, media_type: str, channels: Sequence[str], max_readings: int
) -> ForecastInputs:
    """What a request gives to forecast from.

    Args:
        content: of the body.
        media_type: of the body.
        channels: of the run, one of which needs no name.
        max_readings: rows x sensors x channels at most.

    Raises:
        RequestError: if the body is of another type, damaged, or has too many readings.
    """
    kind = media_type.partition(";")[0].strip().lower()
    if not content and kind in ("", JSON, ARROW):
        return ForecastInputs()
    if kind == ARROW:
        # The times of a long table, and the sensors, are values of it, too.
        return ForecastInputs(readings=_Readings(read_stream(content, 3 * max_readings)))
    if kind != JSON:
        raise RequestError(
            415,
            f"the Content-Type is {kind[:100]!r}: send {JSON} or {ARROW}",
            {"Accept-Post": JSON},
        )
    _check_json(content, max_readings)
    try:
        request = ForecastRequest.model_validate_json(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        status = 400 if errors[0]["type"] == "json_invalid" else 422
        raise RequestError(status, describe_invalid(errors)) from None
    return _inputs_of(request, channels, max_readings)


def _check_json(content: bytes, max_readings: int) -> None:
    """Refuse what the parser takes memory for, and a name that an object has twice.

    Raises:
        RequestError: saying what it is.
    """
    if content.count(b",") > _COMMAS * max_readings:
        raise _too_many("the values of the body", max_readings)
    with suppress(ValueError, RecursionError):  # no JSON: the parser says where
        json.loads(content, object_pairs_hook=_check_keys, parse_float=len, parse_int=len)


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > _MAX_KEYS:
        raise RequestError(422, f"an object has {len(pairs):,} entries: at most {_MAX_KEYS} are")
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(422, f"an object has {twice[:100]!r} twice: give each name once")


def _inputs_of(
    request: ForecastRequest, channels: Sequence[str], max_readings: int
) -> ForecastInputs:
    given = {} if request.options is None else request.options.model_dump(exclude_none=True)
    if request.readings is None and request.future is None:
        if given:
            raise ConfigError(
                "options say how readings are read, and there are none: leave them out"
            )
        return ForecastInputs()
    tables = {
        name: _long_table(name, given_readings, channels, max_readings)
        for name in ("readings", "future")
        if (given_readings := getattr(request, name)) is not None
    }
    # Options are those of the readings, or without any those of the future.
    given["transpose"] = False  # as the run's source may have been
    given["long"] = tuple(next(iter(tables.values())).column_names)
    named = {"readings": _Readings, "future": _Future}
    wrapped = {name: named[name](table) for name, table in tables.items()}
    return ForecastInputs(**wrapped, options=given, is_own_layout=True)


def _long_table(
    name: str, given: Sequence[Reading] | ReadingsTable, channels: Sequence[str], max_readings: int
) -> pa.Table:
    """A row for each time and sensor, and a column for each channel."""
    if isinstance(given, ReadingsTable):
        times, sensors, columns = _of_table(name, given, channels, max_readings)
    else:
        times, sensors, columns = _of_records(name, given, channels, max_readings)
    titles = ["time", "sensor"]
    while set(titles) & set(columns):
        titles = [f"{title}_" for title in titles]
    return pa.table([times, sensors, *columns.values()], names=[*titles, *columns])


def _only_channel(name: str, channels: Sequence[str]) -> str:
    if len(channels) != 1:
        raise ConfigError(
            f"{name} name no channel and the run has {', '.join(channels)}: say which each is"
        )
    return channels[0]


def _of_table(
    name: str, given: ReadingsTable, channels: Sequence[str], max_readings: int
) -> tuple[Any, Any, dict[str, Any]]:
    names = given.channels or [_only_channel(name, channels)]
    if len(set(names)) < len(names):
        raise ConfigError(f"{name}.channels name a channel twice: give each once")
    shape = len(given.times), len(given.sensors), len(names)
    if shape[0] * shape[1] * shape[2] > max_readings:
        raise _too_many(name, max_readings)
    try:
        values = np.array(given.values, dtype=np.float64)
    except (TypeError, ValueError):  # rows of different lengths
        values = np.empty(0)
    if values.shape == shape[:2] and len(names) == 1:
        values = values[..., None]
    if values.shape != shape:
        raise ConfigError(
            f"{name}.values must have a row for each of the {shape[0]} times and in it a value for "
            f"each of the {shape[1]} sensors, or {shape[2]} of them in a list where there are "
            "several channels"
        )
    places = np.arange(shape[0], dtype=np.int32), np.arange(shape[1], dtype=np.int32)
    times = pa.DictionaryArray.from_arrays(
        np.repeat(places[0], shape[1]), pa.array(given.times, pa.string())
    )
    ids = pa.array(map(str, given.sensors), pa.string())
    sensors = pa.DictionaryArray.from_arrays(np.tile(places[1], shape[0]), ids)
    flat = values.reshape(-1, shape[2])
    return times, sensors, {each: pa.array(flat[:, k]) for k, each in enumerate(names)}


def _of_records(
    name: str, given: Sequence[Reading], channels: Sequence[str], max_readings: int
) -> tuple[Any, Any, dict[str, Any]]:
    if not given:
        raise ConfigError(f"{name} are empty: give some, or leave them out")
    if len(given) > max_readings:
        raise _too_many(name, max_readings)
    names = list(dict.fromkeys(each.channel for each in given))
    named = {each: _only_channel(name, channels) if each is None else each for each in names}
    columns: dict[str, list[float | None]] = {each: [] for each in named.values()}
    if len(columns) == 1:
        times, sensors = [each.time for each in given], [str(each.sensor) for each in given]
        columns[next(iter(columns))] = [each.value for each in given]
        return _as_arrays(times, sensors, columns)
    if len(given) * len(columns) > max_readings:
        raise _too_many(name, max_readings)
    keys: list[tuple[str, str]] = []
    counts: dict[tuple[str, str, str], int] = {}
    rows: dict[tuple[str, str, int], int] = {}
    for each in given:
        time, sensor, channel = each.time, str(each.sensor), named[each.channel]
        # A reading that is there twice has a row of its own, of which the library speaks.
        repeat = counts.get((time, sensor, channel), 0)
        counts[time, sensor, channel] = repeat + 1
        row = rows.setdefault((time, sensor, repeat), len(rows))
        if row == len(keys):
            keys.append((time, sensor))
            for values in columns.values():
                values.append(None)
        columns[channel][row] = each.value
    times, sensors = ([key[place] for key in keys] for place in (0, 1))
    return _as_arrays(times, sensors, columns)


def _as_arrays(
    times: list[str], sensors: list[str], columns: dict[str, list[float | None]]
) -> tuple[Any, Any, dict[str, Any]]:
    """The columns of a long table as Arrow's arrays."""
    return (
        pa.array(times, pa.string()),
        pa.array(sensors, pa.string()),
        {each: pa.array(values, pa.float64()) for each, values in columns.items()},
    )


def _too_many(name: str, max_readings: int) -> RequestError:
    return RequestError(
        413, f"{name} are more than {max_readings:,} values: send the newest rows alone"
    )
