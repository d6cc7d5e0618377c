"""The axes of an array by name: which are time, which sensors, and which the channels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pgti.errors import ConfigError, DataError, option

__all__ = [
    "CHANNEL_NAMES",
    "LATITUDE_NAMES",
    "LONGITUDE_NAMES",
    "SENSOR_NAMES",
    "TIME_PARTS",
    "Axes",
    "grid_ids",
]

TIME_NAMES = ("time", "times", "timestep", "timesteps", "timestamp", "step", "steps", "t")
SENSOR_NAMES = (
    *("sensor", "sensors", "node", "nodes", "station", "stations", "detector", "detectors"),
    *("meter", "meters", "site", "sites", "location", "locations", "segment", "segments"),
    *("sensor_id", "node_id", "station_id", "id", "unique_id", "item_id", "ticker", "n"),
)
CHANNEL_NAMES = (
    *("channel", "channels", "feature", "features", "variable", "variables", "attribute"),
    *("attributes", "measure", "measurement", "quantity", "metric", "field", "price", "c"),
)
LATITUDE_NAMES = ("lat", "latitude", "lats", "latitudes")
LONGITUDE_NAMES = ("lon", "longitude", "long", "lng", "lons", "longitudes")
TIME_PARTS = ("week", "day", "hour", "slot")
"""Axes that are time together, from the slowest: [day, slot] is one row after another of a day."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What each axis of an array is.

    Attributes:
        names: of the axes, in the order of the array.

    Raises:
        ConfigError: if no axis is time, two are the same, or none is left for the sensors.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        shown = ",".join(self.names)
        if not 2 <= len(self.names) <= 4 or not all(self.names):
            raise ConfigError(
                f"axes names {len(self.names)} axes ({shown}): the rule is 2 to 4, such as "
                f"{option('axes', 'sensor,time')} or {option('axes', 'time,row,column,channel')}"
            )
        lowered = [name.lower() for name in self.names]
        for what, known in (("time", TIME_NAMES), ("channel", CHANNEL_NAMES)):
            if sum(name in known for name in lowered) > 1:
                raise ConfigError(f"axes names two axes of {what}s ({shown}): there must be one")
        if len(set(lowered)) < len(lowered):
            raise ConfigError(f"axes names an axis twice ({shown}): each needs its own name")
        if not self.time:
            raise ConfigError(
                f"axes is {shown} and none of them is time: call it time, or day and slot where "
                "the days are an axis of their own"
            )
        if any(name in TIME_NAMES for name in lowered) and any(n in TIME_PARTS for n in lowered):
            raise ConfigError(
                f"axes is {shown}, with time and a part of it: name either time, or "
                f"{', '.join(TIME_PARTS)}"
            )
        if not self.sensors:
            raise ConfigError(f"axes is {shown}, which leaves no axis for the sensors: name it")

    @staticmethod
    def usual(num_axes: int) -> "Axes":
        """[time, sensor] or [time, sensor, channel]."""
        return Axes(("time", "sensor", "channel")[:num_axes])

    @property
    def time(self) -> tuple[int, ...]:
        """Positions of the axes of time, from the slowest."""
        lowered = [name.lower() for name in self.names]
        whole = [place for place, name in enumerate(lowered) if name in TIME_NAMES]
        parts = [lowered.index(name) for name in TIME_PARTS if name in lowered]
        return tuple(whole or parts)

    @property
    def channel(self) -> int | None:
        """Position of the axis of channels, if there is one."""
        found = [i for i, name in enumerate(self.names) if name.lower() in CHANNEL_NAMES]
        return found[0] if found else None

    @property
    def sensors(self) -> tuple[int, ...]:
        """Positions of the axes whose cells are the sensors, in the order of the array."""
        others = (*self.time, self.channel)
        return tuple(place for place in range(len(self.names)) if place not in others)

    @property
    def is_usual(self) -> bool:
        """Whether the order is [time, sensor] or [time, sensor, channel]."""
        ends = () if self.channel is None else (self.channel,)
        return (*self.time, *self.sensors, *ends) == tuple(range(len(self.names)))

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse an array with another number of axes.

        Raises:
            DataError: giving its shape.
        """
        if len(shape) != len(self.names):
            raise DataError(
                f"{name} has shape {shape}, which is {len(shape)}-D, and axes names "
                f"{len(self.names)} ({','.join(self.names)}): name each axis once"
            )

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Steps, sensors and channels of an array of a shape."""
        num_channels = 1 if self.channel is None else shape[self.channel]
        num_steps, num_nodes = (
            math.prod(shape[place] for place in places) for places in (self.time, self.sensors)
        )
        return num_steps, num_nodes, num_channels


def grid_ids(labels: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Ids of the cells of a grid, the last axis fastest: "3,7" for row 3 and column 7.

    Args:
        labels: of the places along each axis.
    """
    return tuple(",".join(cell) for cell in product(*labels))
