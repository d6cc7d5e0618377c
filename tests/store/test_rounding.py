"""Which digits float32 loses: what is said, and what is ordinary rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.store.rounding import LostDigits
from pgti.store.statistics import canonical

GENERATOR = np.random.default_rng(11)
SPEEDS = np.round(GENERATOR.uniform(0, 80, (64, 5, 1)), 1)
METERS = 33_554_433 + GENERATOR.integers(1, 4, (64, 5, 1)).cumsum(axis=0).astype(np.float64)


def compare(values: np.ndarray, names: tuple[str, ...] = ("v",)) -> LostDigits:
    nodes = tuple(f"s{node}" for node in range(values.shape[1]))
    lost = LostDigits(nodes, names)
    lost.compare(values, canonical(values), 100)
    return lost


@pytest.mark.parametrize(
    "values",
    [
        SPEEDS,
        np.where(SPEEDS < 8, np.nan, SPEEDS),
        np.full((3, 2, 1), np.nan),
        np.round(GENERATOR.uniform(0, 9, (64, 5, 1)), 6),  # seven digits
        np.round(GENERATOR.uniform(20_000, 30_000, (64, 5, 1)), 2),
        GENERATOR.integers(-(2**24), 2**24, (64, 5, 1)).astype(np.float64),
        GENERATOR.integers(0, 2**24, (64, 5, 1)).astype(np.float64) * 1024,
        GENERATOR.uniform(0, 80, (64, 5, 1)),  # calculated: nobody wrote sixteen digits
        SPEEDS / 3,
        METERS.astype(np.float32),  # the source has no more
    ],
    ids=[
        "tenths",
        "gaps",
        "nothing",
        "7 digits",
        "7 more",
        "int",
        "1024s",
        "random",
        "thirds",
        "f4",
    ],
)
def test_ordinary_rounding_is_not_said(values: np.ndarray) -> None:
    """float32 stands for the decimal, or for the first seven digits of a calculated number."""
    assert compare(values).note("do") == ()


@pytest.mark.parametrize(
    ("values", "source", "stored"),
    [
        (METERS, "became 335544", None),
        (METERS.astype(np.int64), "became", None),
        (np.full((9, 1, 1), 2.0**31 - 1), "2147483647 became 2147483648", None),
        (np.full((9, 1, 1), 48.123456), "48.123456 became 48.123455", 9),
        (np.full((9, 1, 1), 1_013_253.78), "1013253.78 became 1013253.75", 9),
        (np.full((9, 1, 1), 0.123456789), "0.123456789 became 0.12345679", 9),
        (1e6 + np.sin(np.arange(64)).reshape(-1, 1, 1) / 50, "became", 63),
    ],
    ids=["meters", "int64", "2^31", "degrees", "cents", "nine decimals", "calculated, small steps"],
)
def test_lost_digits_are_counted(values: np.ndarray, source: str, stored: int | None) -> None:
    """The note counts them, with the largest difference and the first one."""
    lost = compare(values)
    error = np.abs(values.astype(np.float64) - canonical(values))
    assert lost.num_lost == (np.count_nonzero(error) if stored is None else stored)
    assert lost.largest == error.max()
    (note,) = lost.note("pass --exact")
    assert source in note
    assert note.endswith("pass --exact")


def test_only_what_is_lost_counts() -> None:
    """Tenths between numbers with six decimals are right; each channel has its own decimals."""
    values = np.concatenate([SPEEDS, SPEEDS], axis=-1)
    values[20:30, 2, 1] = 62.666667
    lost = compare(values, ("a", "b"))
    values[:4, 0, 1] = 0.000001  # the first rows have as many decimals
    fine = compare(values, ("a", "b"))
    assert fine.num_lost == 10
    assert "row 120, sensor 's2', channel 'b': 62.666667 became 62.666668" in fine.first
    assert lost.num_lost in (0, 10)  # unseen among the first rows


def test_notes_add_up_over_pieces() -> None:
    """Row numbers continue, and the first stays the first."""
    lost = compare(METERS)
    count, first = lost.num_lost, lost.first
    lost.compare(METERS, canonical(METERS), 164)
    assert (lost.num_lost, lost.first) == (2 * count, first)
    assert f"{2 * count:,} readings have" in lost.note("x")[0]


@settings(deadline=None, max_examples=200)
@given(
    decimals=st.integers(0, 9),
    digits=st.integers(1, 12),
    seed=st.integers(0, 1000),
    missing=st.booleans(),
)
def test_written_decimals_against_their_texts(
    decimals: int, digits: int, seed: int, missing: bool
) -> None:
    """A decimal is lost if its float32, written with as many places, is another text."""
    generator = np.random.default_rng(seed)
    whole = generator.integers(-(10**digits), 10**digits, (40, 3, 1))
    values = whole / 10.0**decimals
    texts = [f"{value:.{decimals}f}" for value in values.ravel()]
    places = [len(text.partition(".")[2].rstrip("0")) for text in texts]
    rounded = canonical(values).ravel()
    if missing:
        values[5:9] = np.nan
    numbers = zip(values.ravel(), rounded, texts, places, strict=True)
    lost = ties = 0
    for value, stored, text, place in numbers:
        is_tie = abs(abs(value - float(stored)) * 10.0**place - 0.5) < 1e-5
        ties += is_tie
        lost += not (is_tie or np.isnan(value)) and float(f"{stored:.{place}f}") != float(text)
    # Halfway between two decimals float32 stands for both of them, and float64 for neither side.
    assert lost <= compare(values).num_lost <= lost + ties
