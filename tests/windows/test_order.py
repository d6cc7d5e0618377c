"""The order of windows."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import BlockShuffle, GlobalShuffle, Order, Sequential


@given(n=st.integers(0, 500), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10_000))
def test_each_window_once_and_always_the_same(n: int, seed: int, epoch: int) -> None:
    """An epoch uses every window exactly once, in an order that depends on nothing else."""
    order = GlobalShuffle(seed).epoch(n, epoch)
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(order, GlobalShuffle(seed).epoch(n, epoch))
    assert order.dtype == np.int64


def test_epochs_and_seeds_differ() -> None:
    """Another epoch or another seed gives another order."""
    first = GlobalShuffle(1).epoch(100, 0)
    assert (first != GlobalShuffle(1).epoch(100, 1)).any()
    assert (first != GlobalShuffle(2).epoch(100, 0)).any()


def test_golden_order() -> None:
    """NumPy does not promise its streams across versions: a change must be noticed."""
    assert GlobalShuffle(7).epoch(10, 3).tolist() == GOLDEN


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_the_order_has_its_own_numbers(seed: int) -> None:
    """Other things drawn with the key (seed, number), from counter 0 on, share nothing with it."""
    key = np.array([seed, 3], dtype=np.uint64)
    others = np.random.Generator(np.random.Philox(key=key)).permutation(50)
    assert (GlobalShuffle(seed).epoch(50, 3) != others).any()


@given(
    n=st.integers(0, 300),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 10_000),
    block_size=st.integers(1, 400),
)
def test_blocks_are_whole_and_shuffled(n: int, seed: int, epoch: int, block_size: int) -> None:
    """The windows are cut into blocks in time order; their firsts are what a global shuffle is."""
    order = BlockShuffle(seed, block_size).epoch(n, epoch)
    assert order.dtype == np.int64
    blocks = [list(range(n))[first : first + block_size] for first in range(0, n, block_size)]
    expected = [blocks[number] for number in GlobalShuffle(seed).epoch(len(blocks), epoch)]
    assert order.tolist() == [position for block in expected for position in block]
    np.testing.assert_array_equal(order, BlockShuffle(seed, block_size).epoch(n, epoch))


@given(n=st.integers(0, 300), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10_000))
def test_blocks_of_one_window_are_a_global_shuffle(n: int, seed: int, epoch: int) -> None:
    """The block size leads from one order to the other without a step."""
    np.testing.assert_array_equal(
        BlockShuffle(seed, 1).epoch(n, epoch), GlobalShuffle(seed).epoch(n, epoch)
    )


def test_an_order_has_no_state() -> None:
    """What was asked for before changes nothing, and the number of windows is not remembered."""
    order = BlockShuffle(7, 3)
    first = order.epoch(10, 4)
    first[:] = -1
    for n, epoch in ((11, 4), (10, 5), (100, 0)):
        order.epoch(n, epoch)
    np.testing.assert_array_equal(order.epoch(10, 4), BlockShuffle(7, 3).epoch(10, 4))
    assert (order.epoch(100, 0) != order.epoch(100, 1)).any()


def test_golden_blocks() -> None:
    """The order of a seed is the same with every version: 14 windows in blocks of 2."""
    assert BlockShuffle(7, 2).epoch(14, 3).tolist() == GOLDEN_BLOCKS


def test_a_block_may_be_longer_than_anything() -> None:
    """The epoch is then one block, and no array is as large as the block."""
    assert BlockShuffle(7, 2**62).epoch(5, 0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "8"])
def test_refuses_bad_block_sizes(size: object) -> None:
    """A block has a positive whole number of windows."""
    with pytest.raises(ConfigError, match="block size is"):
        BlockShuffle(0, size)  # type: ignore[arg-type]


def test_sequential_is_time_order() -> None:
    """Evaluation goes through the windows as they come."""
    assert Sequential().epoch(5, 9).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
@pytest.mark.parametrize("order", [GlobalShuffle, lambda seed: BlockShuffle(seed, 8)])
def test_refuses_bad_seeds(order: Callable[[object], Order], seed: object) -> None:
    """A seed is a whole number that fits in 64 bits."""
    with pytest.raises(ConfigError, match="seed is"):
        order(seed)


GOLDEN = [4, 2, 7, 8, 5, 1, 6, 3, 0, 9]
GOLDEN_BLOCKS = [10, 11, 12, 13, 8, 9, 4, 5, 6, 7, 0, 1, 2, 3]
