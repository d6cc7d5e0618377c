"""Columns of two levels, sensors and channels, whose order their names tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of, shorten
from pgti.errors import DataError, option
from pgti.ingestion.axes import CHANNEL_NAMES, SENSOR_NAMES, Axes
from pgti.ingestion.options import IngestOptions

__all__ = ["ColumnLevels", "arrange_levels", "check_single_level"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ColumnLevels:
    """Sensors and channels of columns of two levels.

    Attributes:
        node_ids: the sensors, in order of appearance.
        channels: the channels, in order of appearance.
        order: column of each sensor's channels, sensor by sensor, [N C].
    """

    node_ids: tuple[str, ...]
    channels: tuple[str, ...]
    order: NDArray[np.int64]


def arrange_levels(
    labels: Sequence[tuple[str, ...]],
    names: Sequence[str | None],
    name: str,
    options: IngestOptions,
) -> ColumnLevels:
    """Which level has the sensors, and which column belongs to which of them.

    Args:
        labels: of each column, one for each level.
        names: of the levels; None or empty for one without.
        name: what messages call the table.
        options: `axes` may say the order: time,sensor,channel or time,channel,sensor.

    Raises:
        DataError: if there are not two levels, their order is not certain, or a sensor lacks a
            channel.
    """
    num_levels = len(labels[0])
    if num_levels != 2:
        raise DataError(f"{name} has {num_levels} levels of columns: sensor, channel is the rule")
    level = _level_of_sensors(labels, names, name, options)
    nodes, channels = (
        tuple(dict.fromkeys(label[place] for label in labels)) for place in (level, 1 - level)
    )
    places: dict[tuple[str, ...], int] = {label: i for i, label in enumerate(labels)}
    pairs = ((node, channel)[:: 1 - 2 * level] for node, channel in product(nodes, channels))
    order = [places.get(pair, -1) for pair in pairs]
    if min(order) < 0 or len(order) != len(labels):
        raise DataError(
            f"{name} has {count_of(len(labels), 'column')} for {count_of(len(nodes), 'sensor')} "
            f"and {len(channels)} channels: each sensor must have each channel once"
        )
    return ColumnLevels(node_ids=nodes, channels=channels, order=np.array(order, dtype=np.int64))


def check_single_level(name: str, options: IngestOptions) -> None:
    """Refuse axes that do not suit a table whose rows are times and whose columns are sensors.

    Raises:
        DataError: naming them.
    """
    if options.axes and Axes(options.axes).time != (0,):
        raise DataError(
            f"{option('axes', options.axes)} is for arrays: leave it out, the rows of {name} are "
            f"times (or sensors, with {option('transpose', value=True)})"
        )


def _level_of_sensors(
    labels: Sequence[tuple[str, ...]],
    names: Sequence[str | None],
    name: str,
    options: IngestOptions,
) -> int:
    if options.axes:
        axes = Axes(options.axes)
        if axes.time != (0,) or axes.channel is None or len(axes.sensors) != 1:
            raise DataError(
                f"axes is {','.join(options.axes)} and {name} has two levels of columns: the rule "
                "is time,sensor,channel or time,channel,sensor"
            )
        return 0 if axes.channel == 2 else 1
    roles = [_role(each) for each in names]
    if sorted(filter(None, roles)) in (["channel", "sensor"], ["sensor"], ["channel"]):
        return 0 if roles[0] == "sensor" or roles[1] == "channel" else 1
    found = [shorten(list(dict.fromkeys(label[place] for label in labels))) for place in (0, 1)]
    titles = [f"{each or 'one without a name'}" for each in names]
    ways = " or ".join(
        option("axes", order)
        for order in (("time", "sensor", "channel"), ("time", "channel", "sensor"))
    )
    raise DataError(
        f"{name} has two levels of columns, {titles[0]} ({found[0]}) and {titles[1]} ({found[1]}), "
        f"and nothing says which are the sensors: name the levels sensor and channel, or pass "
        f"{ways}"
    )


def _role(title: str | None) -> str | None:
    plain = (title or "").strip().lower()
    if plain in SENSOR_NAMES:
        return "sensor"
    return "channel" if plain in CHANNEL_NAMES else None
