"""The order of windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import GlobalShuffle, Sequential


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


def test_sequential_is_time_order() -> None:
    """Evaluation goes through the windows as they come."""
    assert Sequential().epoch(5, 9).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_refuses_bad_seeds(seed: object) -> None:
    """A seed is a whole number that fits in 64 bits."""
    with pytest.raises(ConfigError, match="seed is"):
        GlobalShuffle(seed)  # type: ignore[arg-type]


GOLDEN = [4, 2, 7, 8, 5, 1, 6, 3, 0, 9]
