"""Retaining freed memory, or returning it to the system."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pgti.memory import malloc_policy, trim_malloc

_STATUS = Path("/proc/self/statm")
on_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not _STATUS.exists(), reason="needs glibc on Linux"
)


@pytest.fixture(autouse=True)
def default_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the tests says nothing about the allocator."""
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)


@on_glibc
def test_freed_memory_is_retained_or_returned() -> None:
    """In a process of its own: holes that other tests left in the heap would serve the tensors."""
    command = [sys.executable, "-W", "error", "-c", _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


_SCRIPT = """
import torch
from pathlib import Path
from pgti.memory import malloc_policy

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

size = 100 << 20
before = resident()
with malloc_policy("trim") as holds:
    assert holds
    tensors = [torch.ones(1 << 19) for _ in range(50)]  # 2 MiB each
    assert resident() > before + size * 9 // 10
    del tensors
    assert resident() < before + size // 10, "freed memory is not returned"
with malloc_policy("retain") as holds:
    assert holds
    tensors = [torch.ones(1 << 19) for _ in range(50)]
    del tensors
    assert resident() > before + size * 9 // 10, "freed memory is not retained"
assert resident() < before + size // 10, "it is retained for longer than the block"
"""


def test_the_default_changes_nothing() -> None:
    """And always holds."""
    with malloc_policy("default") as holds:
        assert holds


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_the_users_choice_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whoever sets up the allocator by the environment is left alone."""
    monkeypatch.setenv(name, "2")
    with malloc_policy("retain") as holds:
        assert not holds
    trim_malloc()


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others, such as musl, have no such switches."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with malloc_policy("trim") as holds:
        assert not holds
    trim_malloc()
