"""What glibc's malloc does with the memory of tensors that are freed.

The tensors of a training step are large and are freed at its end. By default glibc maps large
blocks one by one and unmaps them when they are freed, so that each step faults in its pages again:
up to half of the time of a large step. Blocks that the process retains cost no faults but fragment:
before glibc 2.38 a freed block could seldom serve an aligned request of the same size.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

__all__ = ["MallocPolicy", "can_trim", "malloc_policy", "trim_malloc"]

MallocPolicy = Literal["retain", "default", "trim"]
"""What becomes of freed memory: retained for the next step (fastest, largest), returned to the
system at once ("trim": slowest, exactly as large as the tensors), or what glibc does by default,
which is in between."""

# malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

_NEVER_TRIM = 2**31 - 1
_TRIM_BYTES = 1 << 20
_DEFAULT_MMAP_MAX = 65536
_DEFAULT_MMAP_THRESHOLD = 32 << 20  # what glibc's own adjustment comes to with large tensors
_DEFAULT_TRIM_THRESHOLD = 2 * _DEFAULT_MMAP_THRESHOLD

_USER_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


@contextmanager
def malloc_policy(policy: MallocPolicy) -> Iterator[bool]:
    """Set glibc's malloc policy inside the block; afterwards free memory returns to the system.

    An allocator that environment variables configure or replace is left alone.

    Yields:
        Whether the policy holds: it does not where the C library is not glibc.
    """
    library = None if policy == "default" else _glibc()
    if library is None:
        yield policy == "default"
        return
    if policy == "retain":
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    else:
        library.mallopt(_M_MMAP_THRESHOLD, _TRIM_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
    try:
        yield True
    finally:
        # glibc no longer adjusts a threshold that was set: these are what it would have come to.
        library.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        library.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_MMAP_THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        library.malloc_trim(0)


def can_trim() -> bool:
    """Whether `malloc_policy("trim")` holds in this process."""
    return _glibc() is not None


def trim_malloc() -> None:
    """Return the holes that freed tensors left to the system, where the C library is glibc."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and the environment does not configure its allocator."""
    if platform.libc_ver()[0] != "glibc":
        return None
    if any(name.startswith(_USER_SETTINGS) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
