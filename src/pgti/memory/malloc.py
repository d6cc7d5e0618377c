"""What the C library does with the memory of tensors that are freed.

The tensors of a training step are large and are freed at its end. glibc maps large blocks one by
one and gives them back when they are freed, so that each step faults in its pages anew: up to half
of the time of a large step. Blocks that stay with the process cost no faults, but lie in fragments:
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
"""What becomes of freed memory: kept for the next step (fastest, largest), given back at once
(slowest, exactly as large as the tensors), or what glibc does by itself, which is in between."""

# malloc.h of glibc.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MMAP_MAX = -4

_NEVER_TRIM = 2**31 - 1
_MAPPED_FROM = 1 << 20
_USUAL_MMAP_MAX = 65536
_USUAL_MMAP_THRESHOLD = 32 << 20  # what glibc's own adjustment comes to with large tensors
_USUAL_TRIM = 2 * _USUAL_MMAP_THRESHOLD

_USER_CHOICES = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


@contextmanager
def malloc_policy(becomes: MallocPolicy) -> Iterator[bool]:
    """Say what becomes of freed memory while the block runs; afterwards free memory is given back.

    Whoever has set up the allocator by environment variables, or loads another one, is left alone.

    Args:
        becomes: what to do with it.

    Yields:
        Whether it is done: it is not where the C library is not glibc.
    """
    library = None if becomes == "default" else _glibc()
    if library is None:
        yield becomes == "default"
        return
    if becomes == "retain":
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
    else:
        library.mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
        library.mallopt(_TRIM_THRESHOLD, _MAPPED_FROM)
    try:
        yield True
    finally:
        # A threshold that was set is no longer adjusted: these are what it would have come to.
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP_THRESHOLD)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        library.malloc_trim(0)


def can_trim() -> bool:
    """Whether `malloc_policy("trim")` does what it says in this process."""
    return _glibc() is not None


def trim_malloc() -> None:
    """Return the holes that freed tensors left to the system, where the C library is glibc."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and its allocator is nobody's choice yet."""
    if platform.libc_ver()[0] != "glibc":
        return None
    if any(name.startswith(_USER_CHOICES) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
