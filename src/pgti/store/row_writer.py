"""What writers of a series have in common: the names, the checks, the statistics of the rows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of, printable
from pgti.errors import DataError
from pgti.graph import SensorGraph
from pgti.store.codec import Values
from pgti.store.covariates import as_future, check_known_future
from pgti.store.meta import StoreMeta
from pgti.store.rounding import LostDigits
from pgti.store.static_features import StaticFeatures
from pgti.store.statistics import Sizes, canonical
from pgti.store.time_axis import TimeAxis
from pgti.store.time_rule import TimeRule

__all__ = ["RowWriter", "canonical_pieces"]

_BLOCK_READINGS = 1 << 22
_MAX_NAME = 1 << 10


class RowWriter(ABC):
    """Takes the rows of a series in time order; `finish` completes it.

    Use it as a context manager.

    Args:
        name: what messages call the series.
        node_ids: identifier of each sensor, all different.
        channels: name of each channel, all different.
        graph: the sensor graph, with as many nodes as there are ids.
        units: unit of each channel; empty strings if not given.
        time_zone: IANA name of the zone of the times, or None for plain wall-clock times.
        read_options: how the source is read, see `StoreMeta`.
        exact: keep every digit: readings are float64 in place of float32.
        known_future: channels whose values are known in advance, F of them, not all.
        static: features of the sensors, of as many as there are ids.
        block_readings: readings that each row of `moments.npy` summarizes, about.

    Attributes:
        num_steps: rows written so far.
        lost: which digits of the source float32 has lost so far.

    Raises:
        DataError: if ids or channels repeat, or their numbers disagree.
    """

    def __init__(  # noqa: PLR0913 - what the description says
        self,
        name: str,
        *,
        node_ids: tuple[str, ...],
        channels: tuple[str, ...],
        graph: SensorGraph,
        units: tuple[str, ...] | None = None,
        time_zone: str | None = None,
        read_options: Mapping[str, Any] = MappingProxyType({}),
        exact: bool = False,
        known_future: tuple[str, ...] = (),
        static: StaticFeatures | None = None,
        block_readings: int = _BLOCK_READINGS,
    ) -> None:
        self._name = name
        self._node_ids = node_ids
        self._channels = channels
        self._graph = graph
        self._units = units if units is not None else ("",) * len(channels)
        self._time_zone = time_zone
        self._read_options = dict(read_options)
        self._known_future, self._static = known_future, static
        self._check()
        self._exact = exact
        self._num_missing = 0
        self.num_steps = 0
        self.lost = LostDigits(node_ids, channels)
        row_readings = len(node_ids) * len(channels)
        self._sizes = Sizes(
            num_nodes=len(node_ids),
            num_channels=len(channels),
            block_rows=max(1, block_readings // row_readings),
        )

    def _check(self) -> None:
        static = self._static
        categories = () if static is None else tuple(chain.from_iterable(static.categories))
        for what, names in (
            ("sensor id", self._node_ids),
            ("channel", self._channels),
            ("unit", self._units),
            ("static feature", () if static is None else (*static.names, *static.units)),
            ("category", categories),
        ):
            for name in names:
                if printable(name) != name or len(name) > _MAX_NAME:
                    raise DataError(
                        f"the {what} {name!r:.80} cannot be shown: it must have at most "
                        f"{_MAX_NAME:,} characters, none of which controls a terminal or ends a "
                        "line; rename it"
                    )
        for what, names in (("sensor id", self._node_ids), ("channel", self._channels)):
            if not names:
                raise DataError(f"there is no {what}: a store needs at least one")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"{what} {twice!r} occurs twice: each must be unique")
        if self._graph.num_nodes != len(self._node_ids):
            raise DataError(
                f"the graph has {count_of(self._graph.num_nodes, 'node')} and the readings "
                f"{count_of(len(self._node_ids), 'sensor')}: they must be the same"
            )
        check_known_future(self._known_future, self._channels)
        if self._static is not None and self._static.num_nodes != len(self._node_ids):
            raise DataError(
                f"there are static features of {count_of(self._static.num_nodes, 'sensor')} and "
                f"{count_of(len(self._node_ids), 'sensor')}: give those of each"
            )
        if len(self._units) != len(self._channels):
            raise DataError(
                f"{count_of(len(self._units), 'unit')} for "
                f"{count_of(len(self._channels), 'channel')}: give one for each"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def append(self, values: NDArray[np.floating]) -> None:
        """Append rows [rows, N, C] in original units; NaN means missing.

        Raises:
            DataError: if the shape is wrong or a reading is infinite.
            StoreError: if writing fails.
        """
        for readings in canonical_pieces(
            values, self._sizes, self.num_steps, self.lost, exact=self._exact
        ):
            self._write(readings)
            self.num_steps += len(readings)
            self._num_missing += int(np.isnan(readings).sum())

    @abstractmethod
    def _write(self, readings: Values) -> None:
        """Take a piece of canonical readings [rows, N, C]."""

    def finish(
        self,
        *,
        start: np.datetime64 | None = None,
        interval_seconds: int | None = None,
        seconds: NDArray[np.int64] | None = None,
        time_rule: dict[str, Any] | None = None,
        future: Values | Callable[[TimeAxis], Values] | None = None,
    ) -> StoreMeta:
        """Complete the series.

        Args:
            start: time of row 0, or None where times are unknown.
            interval_seconds: seconds between rows, or None.
            seconds: epoch seconds of every row, where the interval is not constant.
            time_rule: that the times follow, if they follow one.
            future: values of the channels known in advance after the last row, [rows, N, F], NaN
                for missing; or what gives them for the times of the rows.

        Returns:
            The description of the finished series.

        Raises:
            DataError: if there is no row or no observed reading, or the times contradict one
                another.
            StoreError: if writing fails.
        """
        if self.num_steps == 0:
            raise DataError("the source has no rows: a series needs at least one")
        if seconds is not None and len(seconds) != self.num_steps:
            raise DataError(
                f"{count_of(len(seconds), 'time')} for {count_of(self.num_steps, 'row')}: give one "
                "for each"
            )
        if seconds is not None and not (seconds[1:] > seconds[:-1]).all():
            raise DataError("the times of the rows do not increase: sort the rows by time")
        if self._num_missing == self.num_steps * len(self._node_ids) * len(self._channels):
            raise DataError("every reading of the source is missing: there is nothing to learn")
        if callable(future):
            future = future(self._time_axis(start, interval_seconds, seconds, time_rule))
        return self._complete(
            None if start is None else str(start.astype("datetime64[s]")),
            interval_seconds,
            None if seconds is None else seconds.astype("<i8"),
            time_rule,
            as_future(
                future,
                len(self._node_ids),
                len(self._known_future),
                np.dtype(np.float64 if self._exact else np.float32),
            ),
        )

    def _time_axis(
        self,
        start: np.datetime64 | None,
        interval_seconds: int | None,
        seconds: NDArray[np.int64] | None,
        time_rule: dict[str, Any] | None,
    ) -> TimeAxis:
        """The times of the rows."""
        return TimeAxis(
            num_steps=self.num_steps,
            start_seconds=None
            if start is None
            else int(start.astype("datetime64[s]").astype("i8")),
            interval_seconds=interval_seconds,
            time_zone=self._time_zone,
            seconds=seconds,
            rule=None if time_rule is None else TimeRule.from_plain(time_rule),
        )

    @abstractmethod
    def _complete(
        self,
        start: str | None,
        interval_seconds: int | None,
        seconds: NDArray[np.int64] | None,
        time_rule: dict[str, Any] | None,
        future: Values,
    ) -> StoreMeta:
        """Complete the series, whose times are consistent."""


def canonical_pieces(
    values: Values, sizes: Sizes, first_row: int, lost: LostDigits, *, exact: bool
) -> Iterator[Values]:
    """Rows [rows, N, C] in canonical pieces that fit the processor's cache.

    Args:
        values: readings in original units; NaN means missing.
        sizes: of the series.
        first_row: number of the first row.
        lost: counts the digits that float32 loses; it knows the N sensors and C channels.
        exact: whether the pieces are float64; else they are float32.

    Raises:
        DataError: if the shape is wrong or a reading is infinite.
    """
    node_ids, channels = lost.node_ids, lost.channels
    shape = (len(node_ids), len(channels))
    if values.ndim != 3 or values.shape[1:] != shape:
        raise DataError(
            f"readings of shape {values.shape} were given: the rule is [rows, "
            f"{count_of(shape[0], 'sensor')}, {count_of(shape[1], 'channel')}]"
        )
    # Encoding passes over its readings ten times.
    for first in range(0, len(values), sizes.piece_rows):
        piece = values[first : first + sizes.piece_rows]
        readings = canonical(piece, np.float64 if exact else np.float32)
        infinite = np.isinf(readings)
        if infinite.any():
            row, node, channel = (int(place) for place in np.argwhere(infinite)[0])
            raise DataError(
                f"the reading in row {first_row + first + row} of sensor {node_ids[node]!r}, "
                f"channel {channels[channel]!r}, is infinite: declare the value as missing or "
                "repair the source"
            )
        if exact:
            lost.look_for_large(readings)
        else:
            lost.compare(piece, readings, first_row + first)
        yield readings
