"""Memory of a process."""

import os
import subprocess
import sys

import pytest

from pgti.memory import PeakMemory, pss_bytes

MIB = 1 << 20
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone reports PSS")


@only_linux
def test_the_pss_of_a_process_is_that_of_the_kernel() -> None:
    """Of this process and of another; one that has ended has none."""
    here = pss_bytes()
    assert here is not None
    assert here == pytest.approx(pss_bytes(os.getpid()), abs=8 * MIB)
    with subprocess.Popen(["sleep", "100"]) as other:
        size = pss_bytes(other.pid)
        assert size is not None
        assert 0 < size < here
        other.kill()
    assert pss_bytes(other.pid) is None


@only_linux
def test_the_peak_is_that_of_the_block() -> None:
    """What was taken and freed before its end counts."""
    with PeakMemory() as memory:
        before = memory.peak_bytes
        block = b"x" * (100 * MIB)
        memory._measure()
        del block
    assert before is not None
    assert memory.peak_bytes is not None
    assert 90 * MIB < memory.peak_bytes - before < 130 * MIB
