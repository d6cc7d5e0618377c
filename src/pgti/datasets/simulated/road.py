"""A road-like sensor graph: freeways that cross, with sensors along both driving directions."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pgti.datasets.simulated.random_processes import Purpose, generator
from pgti.graph import SensorGraph, from_distances

__all__ = ["road_graph"]

_SPACING_MILES = 0.5
_FREEWAY_GAP_MILES = 4.0  # between parallel freeways
_CARRIAGEWAY_MILES = 0.02  # from the middle of a freeway to either direction
_BEND_MILES = 0.3
_MAX_CORRIDOR_SENSORS = 60
_KERNEL_MILES = 1.0
_KERNEL_THRESHOLD = 0.1
_ORIGIN_LATITUDE, _ORIGIN_LONGITUDE = 34.0, -118.0
_MILES_PER_DEGREE = 69.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Corridor:
    """One driving direction of a freeway.

    Attributes:
        first_node: its sensors are numbered from here, in the driving direction.
        miles: position of each sensor along the drive, increasing (negative when driving back).
        east_west: whether it runs east-west rather than north-south.
        forward: 1.0 when it drives east or north, -1.0 otherwise.
        offset_miles: where its freeway lies across its direction.
    """

    first_node: int
    miles: NDArray[np.float64]
    east_west: bool
    forward: float
    offset_miles: float


def road_graph(num_sensors: int, seed: int) -> SensorGraph:
    """A directed graph of freeway sensors with coordinates.

    Each freeway has two corridors, one per driving direction; a corridor is a chain of up to 60
    sensors about half a mile apart. Freeways run east-west and north-south, and ramps join them
    where they cross. Edges point in the driving direction, to the next sensor, the one after it
    and over ramps; weights are the thresholded Gaussian kernel of the road distance.

    Args:
        num_sensors: at least 1.
        seed: the same seed gives the same graph.
    """
    corridors = _lay_out(num_sensors, seed)
    edges = [edge for corridor in corridors for edge in _chain(corridor)]
    for one, other in itertools.combinations(corridors, 2):
        if one.east_west != other.east_west:
            edges += _ramps(one, other)
    coordinates = np.concatenate([_coordinates(corridor) for corridor in corridors])
    if not edges:  # a single sensor
        return SensorGraph.from_edges(num_sensors, [], [], coordinates=coordinates)
    source, target, miles = zip(*edges, strict=True)
    graph = from_distances(
        num_sensors, source, target, miles, threshold=_KERNEL_THRESHOLD, sigma=_KERNEL_MILES
    )
    return replace(graph, coordinates=coordinates)


def _lay_out(num_sensors: int, seed: int) -> list[_Corridor]:
    rng = generator(seed, Purpose.ROAD)
    typical = min(_MAX_CORRIDOR_SENSORS, max(1, round(2 * math.sqrt(num_sensors))))
    num_corridors = max(1, round(num_sensors / typical))
    num_freeways = math.ceil(num_corridors / 2)
    length_miles = typical * _SPACING_MILES
    # An equal number of freeways (or one fewer) runs each way across one square region.
    across = math.ceil(num_freeways / 2)
    region_miles = max(length_miles, across * _FREEWAY_GAP_MILES)
    begins = rng.uniform(0.0, region_miles - length_miles, size=num_freeways)
    bounds = np.linspace(0, num_sensors, num_corridors + 1).astype(np.int64)
    corridors = []
    for index, (first, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        freeway = index // 2
        gaps = _SPACING_MILES * rng.uniform(0.6, 1.4, size=stop - first)
        miles = begins[freeway] + np.cumsum(gaps)
        backward = index % 2 == 1
        corridors.append(
            _Corridor(
                first_node=first,
                miles=-miles[::-1] if backward else miles,
                east_west=freeway % 2 == 0,
                forward=-1.0 if backward else 1.0,
                offset_miles=(freeway // 2 + 0.5) * region_miles / across,
            )
        )
    return corridors


def _chain(corridor: _Corridor) -> list[tuple[int, int, float]]:
    """Edges to the next sensor and to the one after it."""
    miles = corridor.miles
    first = corridor.first_node
    return [
        (first + node, first + node + hop, float(miles[node + hop] - miles[node]))
        for hop in (1, 2)
        for node in range(len(miles) - hop)
    ]


def _ramps(one: _Corridor, other: _Corridor) -> list[tuple[int, int, float]]:
    """Edges from the last sensor before a crossing to the first one behind it, both ways."""
    ends = []
    for along, across in ((one, other), (other, one)):
        crossing = along.forward * across.offset_miles
        behind = int(np.searchsorted(along.miles, crossing))
        if not 0 < behind < len(along.miles):
            return []
        before_miles = float(crossing - along.miles[behind - 1])
        behind_miles = float(along.miles[behind] - crossing)
        ends.append((along.first_node + behind, before_miles, behind_miles))
    (node_one, to_one, from_one), (node_other, to_other, from_other) = ends
    return [
        (node_one - 1, node_other, to_one + from_other),
        (node_other - 1, node_one, to_other + from_one),
    ]


def _coordinates(corridor: _Corridor) -> NDArray[np.float64]:
    """Latitude and longitude of each sensor: a gently bending line in the driving order."""
    along = corridor.forward * corridor.miles
    # Traffic keeps right: eastbound lies south of westbound, northbound east of southbound.
    keep_right = -corridor.forward if corridor.east_west else corridor.forward
    bend = _BEND_MILES * np.sin(along / 3.0)
    across = corridor.offset_miles + bend + keep_right * _CARRIAGEWAY_MILES
    east, north = (along, across) if corridor.east_west else (across, along)
    latitude = _ORIGIN_LATITUDE + north / _MILES_PER_DEGREE
    shrink = math.cos(math.radians(_ORIGIN_LATITUDE))
    longitude = _ORIGIN_LONGITUDE + east / (_MILES_PER_DEGREE * shrink)
    return np.stack([latitude, longitude], axis=1)
