"""Randomness as a function of (seed, purpose, index): no generator outlives the thing it is for."""

from enum import IntEnum

import numpy as np

__all__ = ["Purpose", "generator"]


class Purpose(IntEnum):
    """What random numbers are drawn for. The numbers are part of what a seed means."""

    STRETCH = 0
    DAY = 1
    TRAITS = 2
    ROAD = 3


def generator(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """A counter-based generator for one thing, such as day 3; the purpose sets the counter."""
    key = np.array([seed, index], dtype=np.uint64)
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
