"""Which rows of the series are resident on each rank, and which to transfer between epochs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pgti.windows.sharding import PartitionSharding
from pgti.windows.splits import Starts

__all__ = [
    "Placement",
    "Transfer",
    "plan_transfers",
    "resident_rows",
    "unite_ranges",
    "within",
    "without",
]

Placement = Literal["replicated", "partitioned"]
"""Whether every rank reads the whole series, or each its part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """Rows that one rank sends to another.

    Attributes:
        source: rank that has them.
        target: rank that wants them.
        rows: which rows.
    """

    source: int
    target: int
    rows: range


def resident_rows(
    sharding: PartitionSharding, rank: int, starts: Starts, extent: range, epoch: int
) -> tuple[range, ...]:
    """The rows that a rank's windows lie in: its own, and those that its last windows reach into.

    Args:
        sharding: which windows are whose.
        rank: whose rows.
        starts: window starts of the training split, rising.
        extent: rows that a window reads lie in it, relative to its start (`WindowSpec.reach`).
        epoch: which epoch.

    Returns:
        Rising ranges that do not touch.
    """
    owned = sharding.order.positions_of(sharding.partitions_of(rank), len(starts), epoch)
    # Rows between windows that lie apart belong to the window before: each row has an owner.
    firsts = [max(0, int(starts[each[0]]) + extent.start) for each in owned]
    ends = [int(starts[each[-1]]) + extent.stop for each in owned]
    following = [int(starts[each.stop]) if each.stop < len(starts) else 0 for each in owned]
    return unite_ranges(map(range, firsts, map(max, ends, following)))


def plan_transfers(
    held: Sequence[Sequence[range]], wanted: Sequence[Sequence[range]]
) -> tuple[Transfer, ...]:
    """The rows that each rank lacks, each from one rank that has it.

    Rank r receives from r + 1 first, then from r + 2 and so on, round to r - 1. Every rank computes
    the same transfers, so that no requests are sent.

    Args:
        held: the resident rows of each rank.
        wanted: the rows that should be resident.

    Returns:
        The transfers; rows that are resident nowhere are left out.
    """
    world_size = len(held)
    transfers = []
    for target, rows in enumerate(wanted):
        missing = without(rows, held[target])
        for step in range(1, world_size):
            if not missing:
                break
            source = (target + step) % world_size
            found = [each for piece in held[source] for each in within(missing, piece)]
            transfers += [Transfer(source=source, target=target, rows=each) for each in found]
            missing = without(missing, found)
    return tuple(transfers)


def without(rows: Iterable[range], removed: Iterable[range]) -> tuple[range, ...]:
    """The rows that are in none of the removed ranges, as rising ranges.

    >>> without([range(0, 10)], [range(2, 4), range(8, 20)])
    (range(0, 2), range(4, 8))
    """
    left = list(rows)
    for cut in removed:
        left = [
            part
            for each in left
            for part in (
                range(each.start, min(each.stop, cut.start)),
                range(max(each.start, cut.stop), each.stop),
            )
            if part
        ]
    return tuple(left)


def within(ranges: Iterable[range], limits: range) -> tuple[range, ...]:
    """The parts of the ranges that lie in `limits`.

    >>> within([range(0, 5), range(7, 9), range(20, 30)], range(3, 22))
    (range(3, 5), range(7, 9), range(20, 22))
    """
    parts = (range(max(r.start, limits.start), min(r.stop, limits.stop)) for r in ranges)
    return tuple(part for part in parts if part)


def unite_ranges(ranges: Iterable[range]) -> tuple[range, ...]:
    """Ranges in any order as rising ones that do not touch.

    >>> unite_ranges([range(4, 6), range(0, 4), range(8, 9)])
    (range(0, 6), range(8, 9))
    """
    union: list[range] = []
    for each in sorted(ranges, key=lambda rows: rows.start):
        if union and each.start <= union[-1].stop:
            union[-1] = range(union[-1].start, max(union[-1].stop, each.stop))
        else:
            union.append(each)
    return tuple(union)
