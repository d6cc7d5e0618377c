"""Partitions, shares and holdings: everything once, whatever the number of ranks."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import (
    BlockShuffle,
    EvenSharding,
    GlobalShuffle,
    PartitionSharding,
    PartitionShuffle,
    even_part,
    plan_transfers,
    resident_rows,
)

WORLD_SIZES = st.integers(1, 17)
SIZES = st.integers(0, 300)
EPOCHS = st.integers(0, 40)
SHUFFLES = st.builds(
    PartitionShuffle,
    seed=st.integers(0, 5),
    partitions=st.integers(17, 24),
    block_size=st.integers(1, 12),
    rotation=st.sampled_from([0.0, 0.125, 0.5, 1.0]),
)


def batches(positions: np.ndarray, size: int) -> list[np.ndarray]:
    return [positions[first : first + size] for first in range(0, len(positions), size)]


@given(total=SIZES, parts=WORLD_SIZES)
def test_even_parts_are_consecutive_and_differ_by_one(total: int, parts: int) -> None:
    found = [even_part(total, parts, part) for part in range(parts)]
    assert [number for part in found for number in part] == list(range(total))
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 1


@given(order=SHUFFLES, num_windows=SIZES, epoch=EPOCHS)
def test_an_epoch_has_each_window_once(
    order: PartitionShuffle, num_windows: int, epoch: int
) -> None:
    positions = order.epoch(num_windows, epoch)
    assert sorted(positions.tolist()) == list(range(num_windows))
    again = PartitionShuffle(order.seed, order.partitions, order.block_size, order.rotation)
    assert np.array_equal(positions, again.epoch(num_windows, epoch))


@given(
    order=st.one_of(SHUFFLES, st.builds(GlobalShuffle, st.integers(0, 3))),
    num_windows=SIZES,
    epoch=EPOCHS,
    batch_size=st.integers(1, 70),
    world_size=WORLD_SIZES,
)
@settings(deadline=None)
def test_the_ranks_take_each_window_of_a_batch_once(
    order: PartitionShuffle | GlobalShuffle,
    num_windows: int,
    epoch: int,
    batch_size: int,
    world_size: int,
) -> None:
    """For both placements, at every world size, in every step, the last ragged one too."""
    for batch in batches(order.epoch(num_windows, epoch), batch_size):
        shares = [EvenSharding(rank, world_size) for rank in range(world_size)]
        if isinstance(order, PartitionShuffle):
            shares += [PartitionSharding(order, rank, world_size) for rank in range(world_size)]
        for first in range(0, len(shares), world_size):
            taken = [
                sharding.local_shard(batch, num_windows, epoch)
                for sharding in shares[first : first + world_size]
            ]
            assert sorted(np.concatenate(taken).tolist()) == sorted(batch.tolist())
            for sharding, mine in zip(shares[first:], taken, strict=False):
                assert len(mine) <= sharding.max_size(batch_size)
                assert np.array_equal(
                    mine, shares[first].shard(sharding.rank, batch, num_windows, epoch)
                )


@given(order=SHUFFLES, num_windows=st.integers(200, 400), batch_size=st.integers(24, 70))
def test_a_batch_takes_from_every_partition_alike(
    order: PartitionShuffle, num_windows: int, batch_size: int
) -> None:
    for batch in batches(order.epoch(num_windows, 3), batch_size)[:-1]:
        partitions = order.partition_of(batch, num_windows, 3)
        taken = np.bincount(partitions, minlength=order.partitions)
        expected = batch_size / order.partitions
        assert taken.min() >= np.floor(expected) - 1
        assert taken.max() <= np.ceil(expected) + 1


def test_one_partition_is_the_order_of_blocks() -> None:
    assert np.array_equal(
        PartitionShuffle(4, partitions=1, block_size=8).epoch(100, 2),
        BlockShuffle(4, block_size=8).epoch(100, 2),
    )


def test_windows_of_a_block_stay_together_within_a_partition() -> None:
    order = PartitionShuffle(0, partitions=4, block_size=5)
    positions = order.epoch(80, 1)
    inside = positions[order.partition_of(positions, 80, 1) == 2].reshape(-1, 5)
    assert (np.diff(inside, axis=1) == 1).all()


def test_rotation_gives_every_partition_every_window() -> None:
    """A quarter of a partition of 10 windows moves on in an epoch: 2 or 3, round and round."""
    order = PartitionShuffle(0, partitions=4, block_size=2, rotation=0.25)
    seen: set[int] = set()
    for epoch in range(20):
        mine = [p for run in order.positions_of(range(1), 40, epoch) for p in run]
        assert len(mine) == 10
        assert set(order.partition_of(np.array(mine), 40, epoch)) == {0}
        seen |= set(mine)
    assert seen == set(range(40))
    moved = [
        len(set(order.positions_of(range(1, 2), 40, epoch + 1)[0])
            - set(order.positions_of(range(1, 2), 40, epoch)[0]))
        for epoch in range(4)
    ]  # fmt: skip
    assert moved == [2, 3, 2, 3]


@given(
    order=SHUFFLES,
    num_windows=st.integers(30, 300),
    epoch=EPOCHS,
    world_size=WORLD_SIZES,
    stride=st.integers(1, 3),
    span=st.integers(2, 12),
    jumps=st.lists(st.tuples(st.integers(0, 299), st.integers(1, 40)), max_size=6),
)
@example(
    order=PartitionShuffle(0, partitions=17, block_size=1, rotation=0.125),
    num_windows=136,
    epoch=0,
    world_size=2,
    stride=3,
    span=2,
    jumps=[],
)
@settings(deadline=None)
def test_held_rows_are_those_of_the_windows_and_moves_complete_them(
    order: PartitionShuffle,
    num_windows: int,
    epoch: int,
    world_size: int,
    stride: int,
    span: int,
    jumps: list[tuple[int, int]],
) -> None:
    """What a rank takes in any batch lies in its rows; the moves bring all that is new, once.

    Also where windows were left out, so that their starts jump.
    """
    starts: range | np.ndarray = range(3, 3 + num_windows * stride, stride)
    if jumps:
        starts = np.array(starts)
        for window, rows in jumps:
            starts[window:] += rows
    sharding = PartitionSharding(order, 0, world_size)
    positions = order.epoch(num_windows, epoch)
    held = [resident_rows(sharding, rank, starts, range(span), epoch) for rank in range(world_size)]
    for rank, ranges in enumerate(held):
        rows = [row for each in ranges for row in each]
        assert len(set(rows)) == len(rows)
        windows = [int(starts[int(p)]) for p in sharding.shard(rank, positions, num_windows, epoch)]
        needed = {row for start in windows for row in range(start, start + span)}
        assert needed <= set(rows)
        skipped = sum(rows for _, rows in jumps)
        assert len(rows) <= len(windows) * stride + 2 * max(stride, span) + skipped
    wanted = [
        resident_rows(sharding, rank, starts, range(span), epoch + 1) for rank in range(world_size)
    ]
    moves = plan_transfers(held, wanted)
    for rank in range(world_size):
        arriving = [row for move in moves if move.target == rank for row in move.rows]
        before = {row for each in held[rank] for row in each}
        after = {row for each in wanted[rank] for row in each}
        assert len(set(arriving)) == len(arriving)
        assert set(arriving) == after - before
    for move in moves:
        assert any(set(move.rows) <= set(each) for each in held[move.source])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PartitionShuffle(0, 0, 8), "partitions is 0"),
        (lambda: PartitionShuffle(0, 4, 0), "block size is 0"),
        (lambda: PartitionShuffle(0, 4, 8, 1.5), "rotation is 1.5"),
        (lambda: EvenSharding(2, 2), "rank is 2: it must be less than the world size 2"),
        (
            lambda: PartitionSharding(PartitionShuffle(0, 4, 8), 0, 5),
            "partitions is 4 and there are 5",
        ),
    ],
)
def test_refusals(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
