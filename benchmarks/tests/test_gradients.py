"""What GPUs wait for gradients, as estimated."""

import pytest

from pgti_bench.gradients import exposed_seconds

MIB = 2**20


def test_a_ring_sends_nearly_twice_the_bytes() -> None:
    whole, best = exposed_seconds(150_000_000, 8, 150e9)
    assert whole == pytest.approx(30e-6 + 2 * 7 / 8 * 1e-3)
    assert best == pytest.approx(30e-6 + 2 * 7 / 8 * 25 * MIB / 150e9)


def test_one_bucket_leaves_nothing_to_overlap() -> None:
    whole, best = exposed_seconds(25 * MIB, 64, 60e9)
    assert whole == best
