"""What errors are broken down by: sensor, hour and weekday of the target, range of its value."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.copies import to_device
from pgti.errors import ConfigError
from pgti.shapes import BHNC
from pgti.store import SECONDS_PER_DAY, TimeAxis

__all__ = [
    "BREAKDOWNS",
    "WEEKDAYS",
    "BreakdownName",
    "Breakdowns",
    "GroupsOfBatch",
    "RangeEdges",
    "breakdown_bytes",
    "breakdown_frame",
    "check_ranges",
    "choose_edges",
]

BreakdownName = Literal["sensor", "hour", "weekday", "hour-of-week", "range"]
BREAKDOWNS: tuple[BreakdownName, ...] = get_args(BreakdownName)

RangeEdges: TypeAlias = Sequence[float] | Mapping[str, Sequence[float]]
"""Values at which one range of the target ends and the next begins: of the only target channel, or
of each by name."""

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SCORE_BYTES = 45
_STEP_BYTES = 200  # 126 of tensors, measured; the rest inside of matrix products
_SHARES = (0.1, 0.5, 0.9)  # of the training targets below each edge, where none are given


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupsOfBatch:
    """The group of each target of a batch, on the device.

    Attributes:
        times: "hour-of-week", or without hours "weekday": group of each window's target,
            int64 [B, H], on the host.
        members: of those: 1 where a window's target is in a group, float64 [H, G, B].
        ranges: range of each target, uint8 [H, B, N, C]; None without ranges.
    """

    times: Mapping[BreakdownName, NDArray[np.int64]]
    members: Mapping[BreakdownName, Tensor]
    ranges: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Breakdowns:
    """The groups of an evaluation.

    Hours and weekdays are those of the target's time on the series' wall clock. A series without
    times has neither, one with a day or more between rows has no hours, and one with more than a
    day no weekdays.

    Attributes:
        node_ids: identifier of each sensor.
        time_axis: time of each row.
        input_steps: rows between a window's start and its first target, L.
        channels: name of each target.
        units: unit of each target, "" where unknown.
        edges: of the ranges of each target, increasing; empty for a target without ranges.
    """

    node_ids: tuple[str, ...]
    time_axis: TimeAxis
    input_steps: int
    channels: tuple[str, ...]
    units: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]

    @property
    def names(self) -> tuple[BreakdownName, ...]:
        """What errors are broken down by."""
        axis, found = self.time_axis, ["sensor"]
        interval = axis.interval_seconds if axis.is_dated else None
        if interval is not None and interval < SECONDS_PER_DAY:
            found += ["hour", "hour-of-week"]
        if interval is not None and interval <= SECONDS_PER_DAY:
            found.append("weekday")
        if any(self.edges):
            found.append("range")
        return tuple(name for name in BREAKDOWNS if name in found)

    @property
    def summed(self) -> tuple[BreakdownName, ...]:
        """The breakdowns whose sums are accumulated: those of the week's hours give two others."""
        names = self.names
        derived = ("hour", "weekday") if "hour-of-week" in names else ()
        return tuple(name for name in names if name not in derived)

    def labels(self, name: BreakdownName, channel: int) -> tuple[str | int, ...]:
        """What the groups are called; ranges are those of one target, by its position."""
        if name == "sensor":
            return self.node_ids
        if name == "hour":
            return tuple(range(24))
        if name == "weekday":
            return WEEKDAYS
        if name == "hour-of-week":
            return tuple(f"{day} {hour:02d}:00" for day in WEEKDAYS for hour in range(24))
        return _range_labels(self.edges[channel], self.units[channel])

    def num_groups(self, name: BreakdownName) -> int:
        """Groups, the most of any target."""
        if name == "range":
            return 1 + max(map(len, self.edges))
        return len(self.labels(name, 0))

    def of_batch(self, starts: NDArray[np.int64], targets: BHNC) -> GroupsOfBatch:
        """The groups of a batch's targets; nothing waits for a GPU.

        Args:
            starts: first row of each window, [B], on the host.
            targets: in original units; any number where missing.
        """
        times: dict[BreakdownName, NDArray[np.int64]] = {}
        members: dict[BreakdownName, Tensor] = {}
        rows_BH = starts[:, None] + self.input_steps + np.arange(targets.shape[1])
        for name in self.summed:
            if name not in ("hour-of-week", "weekday"):
                continue
            times[name] = groups_BH = self._time_groups(name, rows_BH)
            groups = to_device(groups_BH.T.copy(), targets.device)
            numbers = torch.arange(self.num_groups(name), device=targets.device)
            members[name] = (groups[:, None] == numbers[:, None]).double()
        ranges = self._ranges(targets) if "range" in self.names else None
        return GroupsOfBatch(times=times, members=members, ranges=ranges)

    def _time_groups(self, name: BreakdownName, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        days = self.time_axis.day_of_week(rows)
        if name == "weekday":
            return days
        seconds = self.time_axis.at(rows).astype(np.int64) % SECONDS_PER_DAY
        return 24 * days + seconds // 3600

    def _ranges(self, targets: BHNC) -> Tensor:
        """How many edges each target has reached: a target at an edge is in the range above it."""
        count = self.num_groups("range") - 1
        padded = np.array([[*edges, *[math.inf] * (count - len(edges))] for edges in self.edges])
        if targets.dtype == torch.float32:
            # A float32 reaches an edge if it reaches the next float32 above it.
            above = padded.astype(np.float32)
            padded = np.where(above < padded, np.nextafter(above, np.float32(np.inf)), above)
        thresholds = to_device(padded.T.copy(), targets.device)
        ranges = torch.zeros(targets.shape, dtype=torch.uint8, device=targets.device)
        for threshold in thresholds:
            ranges += targets >= threshold
        return ranges.transpose(0, 1).contiguous()


def _range_labels(edges: Sequence[float], unit: str) -> tuple[str, ...]:
    if not edges:
        return ()
    texts = [f"{edge:.12g}" for edge in edges]
    behind = f" {unit}" if unit else ""
    between = (f"{low} to {high}{behind}" for low, high in pairwise(texts))
    return (f"under {texts[0]}{behind}", *between, f"{texts[-1]}{behind} and over")


def breakdown_bytes(horizon: int, num_scores: int = 0) -> int:
    """Bytes that sums by group take for a while, for each target channel of a window's sensor.

    The ranges of all steps, and float64 numbers of a step at a time (`ForecastMetrics.update`).

    Args:
        horizon: H.
        num_scores: what is summed for quantiles, beside the errors.
    """
    return 2 * horizon + _STEP_BYTES + _SCORE_BYTES * num_scores


def breakdown_frame(
    splits: Mapping[str, Mapping[str, Any]], breakdown: str, model: str, metrics: Sequence[str]
) -> pd.DataFrame:
    """A breakdown as a table: a row for each split, forecaster, channel and group.

    Args:
        splits: contents of a report, which have the breakdown in "by".
        breakdown: its name.
        model: what the model is called.
        metrics: their names.
    """
    parts = []
    for split, content in splits.items():
        for channel, groups in content["by"][breakdown].items():
            for name, errors in groups.items():
                if name == "names":
                    continue
                forecaster = model if name == "model" else name
                place = {"split": split, "forecaster": forecaster, "channel": channel}
                parts.append(pd.DataFrame({**place, breakdown: groups["names"], **errors}))
    frame = pd.concat(parts, ignore_index=True)
    if breakdown != "sensor":
        frame = frame[frame["count"] > 0].reset_index(drop=True)
    texts = ("split", "forecaster", "channel", *(() if breakdown == "hour" else (breakdown,)))
    return frame.astype(dict.fromkeys(texts, "str") | dict.fromkeys(metrics, "float64"))


def check_ranges(ranges: RangeEdges, channels: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """The edges of each target as given; none for a target that is not named.

    Raises:
        ConfigError: if a name is no target, there are several and none is named, or edges are not
            finite numbers that increase.
    """
    if not isinstance(ranges, Mapping):
        if len(channels) > 1:
            raise ConfigError(
                f"ranges are {ranges!r} and there are {len(channels)} targets "
                f"({', '.join(channels)}): name the one that they are of"
            )
        ranges = {channels[0]: ranges}
    for name in ranges:
        if name not in channels:
            raise ConfigError(
                f"ranges name {name!r}: the targets of this run are {', '.join(channels)}"
            )
    return tuple(_check_edges(name, ranges.get(name, ())) for name in channels)


def _check_edges(name: str, edges: object) -> tuple[float, ...]:
    try:
        numbers = tuple(float(edge) for edge in edges)  # type: ignore[attr-defined] # refused below
    except (TypeError, ValueError):
        numbers = (math.nan,)
    increasing = all(low < high for low, high in pairwise(numbers))
    if isinstance(edges, str) or not increasing or not all(map(math.isfinite, numbers)):
        raise ConfigError(
            f"ranges of {name} are {edges!r}: they must be finite numbers that increase, such as "
            "30, 50"
        )
    return numbers


def choose_edges(quantiles: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """Edges of ranges from the readings of training: a tenth below, half, a tenth above.

    They have as few digits as their distance allows, and where many readings are equal there are
    fewer.

    Args:
        quantiles: of the observed readings of one channel, evenly spaced from the smallest to the
            largest, [Q].
    """
    places = np.linspace(0, 1, len(quantiles))
    low, *_, high = chosen = np.interp(_SHARES, places, quantiles.astype(np.float64)).tolist()
    if not low < high:
        return ()
    digits = 1 - math.floor(math.log10(high - low))
    rounded = sorted({round(edge, digits) for edge in chosen})
    return tuple(edge for edge in rounded if edge > quantiles[0])
