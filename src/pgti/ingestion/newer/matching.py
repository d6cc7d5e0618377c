"""Newer readings of a series: which of its sensors and channels they are of, by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of, shorten
from pgti.errors import ConfigError, DataError, option
from pgti.ingestion.arrays.axes_guards import hint_at_axes, note_square_array
from pgti.ingestion.readings import Chunk, Readings

__all__ = ["MatchedReadings", "SourceChannels", "match_readings"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceChannels:
    """What the channels of a series were called in its source, and how they were read.

    Attributes:
        names: of the series' channels.
        sources: what the source called each of them, () where it had no names.
        scale: factor from raw values to readings, none, one for all channels or one for each.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()

    def find(self, name: str) -> int | None:
        """Position of the channel that a source calls `name`; its own name is the second choice."""
        for names in (self.sources, self.names):
            if name in names:
                return names.index(name)
        return None

    def describe(self) -> str:
        """The channels, with their names in the source where those differ."""
        sources = self.sources or self.names
        pairs = zip(sources, self.names, strict=True)
        return ", ".join(own if own == source else f"{source} ({own})" for source, own in pairs)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class MatchedReadings:
    """Readings of the sensors and channels of a series, in its order.

    Attributes:
        readings: those; an absent sensor is missing.
        channels: position in the source of each channel, -1 for one that it lacks.
        absent: sensors of the series that the source lacks.
        extra: sensors of the source that the series lacks.
        notes: what was put right or left out, in one line each.
    """

    readings: Readings
    channels: tuple[int, ...]
    absent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def match_readings(
    readings: Readings,
    node_ids: tuple[str, ...],
    channels: SourceChannels,
    given: Mapping[str, Any] | None = None,
    *,
    series: str = "run",
    optional: tuple[str, ...] = (),
) -> MatchedReadings:
    """Choose the sensors and the channels of a series among those of newer readings, by name.

    Args:
        readings: the newer ones, as their source has them.
        node_ids: sensors of the series.
        channels: channels of the series.
        given: options of `IngestOptions` that the user gave; `channels` names those of the source.
        series: what messages call the series: a "run", or a "store" that the readings are added to.
        optional: channels that the source may lack; their readings are missing then.

    Raises:
        ConfigError: if the channels that the user names are not one for each.
        DataError: if no sensor is one of the series, an id repeats, or a channel cannot be told.
    """
    chosen, left_out = _match_channels(readings, channels, given or {}, series, optional)
    places, notes = _match_sensors(readings, node_ids, series)
    if left_out:
        notes.append(
            f"{readings.name} has the {_plural('channel', left_out)}, which the {series} does not "
            "use: left out"
        )
    known, ids = set(node_ids), readings.node_ids or node_ids
    return MatchedReadings(
        readings=_select(readings, places, chosen, node_ids, channels.names),
        channels=chosen,
        absent=tuple(each for each, place in zip(node_ids, places, strict=True) if place < 0),
        extra=tuple(each for each in ids if each not in known),
        notes=tuple(notes),
    )


def _match_channels(
    readings: Readings,
    channels: SourceChannels,
    given: Mapping[str, Any],
    series: str,
    optional: tuple[str, ...],
) -> tuple[tuple[int, ...], list[str]]:
    """Position in the source of each channel of the series, -1 if absent; names of the others."""
    named, num_channels = tuple(given.get("channels", ())), readings.num_channels
    if named and len(named) != num_channels:
        raise ConfigError(
            f"channels has {count_of(len(named), 'value')} ({', '.join(named)}) and "
            f"{readings.name} has {count_of(num_channels, 'channel')}: give one each"
        )
    names = named or readings.channels
    if names is None:
        return _by_position(readings, channels, series), []
    find: Callable[[str], int | None] = channels.find
    if named:
        find = dict(zip(channels.names, range(len(channels.names)), strict=True)).get
    places: dict[int, int] = {}
    left_out = []
    for place, name in enumerate(names):
        channel = find(name)
        if channel is None:
            left_out.append(name)
        elif channel in places:
            raise DataError(
                f"{names[places[channel]]} and {name} of {readings.name} are both the channel "
                f"{channels.names[channel]} of the {series}: name the channels with "
                f"{option('channels')}"
            )
        else:
            places[channel] = place
    missing = [name for channel, name in enumerate(channels.names) if channel not in places]
    if not set(missing) <= set(optional):
        has = f"{readings.name} has the {_plural('channel', names)}"
        hint = f"; name the channels of the source with {option('channels')}"
        raise DataError(
            f"{has} and the {series} needs {channels.describe()}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing{hint if left_out else ''}"
        )
    return tuple(places.get(channel, -1) for channel in range(len(channels.names))), left_out


def _by_position(readings: Readings, channels: SourceChannels, series: str) -> tuple[int, ...]:
    """The channels of a source that does not name them, where there can be no doubt."""
    num_channels = len(channels.names)
    if readings.num_channels != num_channels or (num_channels > 1 and channels.sources):
        raise DataError(
            f"{readings.name} has {count_of(readings.num_channels, 'channel')} without names and "
            f"the {series} has {channels.describe()}: name them with {option('channels')}, in the "
            "order of the source"
        )
    return tuple(range(num_channels))


def _match_sensors(
    readings: Readings, node_ids: tuple[str, ...], series: str
) -> tuple[NDArray[np.int64], list[str]]:
    """Position in the source of each sensor of the series, -1 where it is absent; notes."""
    name, ids = readings.name, readings.node_ids
    if ids is None:
        if readings.num_nodes != len(node_ids):
            raise DataError(
                f"{name} has {count_of(readings.num_nodes, 'sensor')} without ids and the {series} "
                f"has {len(node_ids):,}: give as many, in the order of the {series}, or give "
                f"them ids{hint_at_axes(readings, len(node_ids))}"
            )
        return np.arange(len(node_ids), dtype=np.int64), note_square_array(readings)
    positions = {each: place for place, each in enumerate(ids)}
    if len(positions) != len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise DataError(f"sensor id {twice!r} occurs twice in {name}: each must be unique")
    places = np.array([positions.get(each, -1) for each in node_ids], dtype=np.int64)
    absent = [each for each in node_ids if each not in positions]
    known = set(node_ids)
    extra = [each for each in ids if each not in known]
    if len(absent) == len(node_ids):
        raise DataError(
            f"{name} has none of the {series}'s sensors: it has {shorten(ids)}, and they are "
            f"called {shorten(node_ids)}"
        )
    notes = []
    if (np.diff(places[places >= 0]) < 0).any():
        notes.append(
            f"{name} has its sensors in another order ({shorten(ids)}): they were put in that of "
            f"the {series}"
        )
    if absent:
        them, they_are = ("it", "it is") if len(absent) == 1 else ("them", "they are")
        rule = f"all readings of {them} are missing"
        if series == "store":
            rule = (
                f"what the store has of {them} stays as it is, and {they_are} missing in new rows"
            )
        near = _near_miss(absent, extra, series)
        notes.append(f"{name} lacks the {_plural('sensor', absent)}: {rule}{near}")
    if extra:
        notes.append(
            f"{name} has the {_plural('sensor', extra)}, which the {series} does not know: left out"
        )
    return places, notes


def _near_miss(absent: Sequence[str], extra: Sequence[str], series: str) -> str:
    """A hint where a sensor may only be written in another way, such as 007 and 7."""
    found = {_plain_id(each): each for each in extra}
    for each in absent:
        other = found.get(_plain_id(each))
        if other is not None:
            return f" (it has {other!r}, and the {series}'s sensor is called {each!r})"
    return ""


def _plain_id(text: str) -> str:
    plain = text.strip().casefold().removesuffix(".0")
    return plain.lstrip("0") or plain


def _plural(noun: str, names: Sequence[str]) -> str:
    return f"{noun if len(names) == 1 else noun + 's'} {shorten(names)}"


def _select(
    readings: Readings,
    places: NDArray[np.int64],
    channels: tuple[int, ...],
    node_ids: tuple[str, ...],
    names: tuple[str, ...],
) -> Readings:
    """The readings of the sensors at `places`, missing where that is -1, and of the channels."""
    same_sensors = np.array_equal(places, np.arange(readings.num_nodes))
    same_channels = channels == tuple(range(readings.num_channels))
    selected = replace(
        readings,
        num_nodes=len(node_ids),
        num_channels=len(names),
        node_ids=node_ids,
        channels=names,
        graph=None,
    )
    if same_sensors and same_channels:
        return selected

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        for chunk in readings.chunks(budget_bytes):
            values = chunk.values
            if not same_channels:
                values = values[..., list(channels)]
                values[..., np.array(channels) < 0] = np.nan
            if not same_sensors:
                values = np.take(values, places, axis=1)
                values[:, places < 0] = np.nan
            yield replace(chunk, values=values)

    return replace(selected, chunks=chunks)
