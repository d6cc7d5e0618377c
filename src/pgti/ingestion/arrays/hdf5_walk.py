"""A walk through an HDF5 file in a process of its own, from which the library may not come back.

Damaged descriptions make HDF5 run in a circle, which no signal of Python's interrupts, or end the
process. What it reads there it reads again afterwards, when it is known to come back.
"""

import contextlib
import faulthandler
import functools
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from pgti.errors import DataError
from pgti.ingestion.arrays.hdf5_chunks import read_box

__all__ = ["check_walk"]

_SECONDS, _SECONDS_OF_TEXT, _INDEX_SECONDS = 1.0, 1e-4, 20.0  # of computing
_MAX_WAIT = 60  # for all, where another thread holds a lock
_MAX_KIB, _TOO_LARGE = 1 << 18, 3
_REASONS = {
    signal.SIGPROF: "have no end",
    **dict.fromkeys(
        (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),
        "end the HDF5 library",
    ),
}


def check_walk(path: Path) -> None:
    """Refuse a file whose descriptions end the library, or have no end.

    Raises:
        DataError: if a child process does not come back, or takes a lot of memory.
        OSError: if there is no such file.
    """
    if sys.platform == "linux":  # elsewhere libraries do not survive a fork
        stat = path.stat()
        _check_walk(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _check_walk(path: Path, *version: int) -> None:
    del version
    try:
        child = _fork()
    except OSError:  # no more processes: it is read without a check
        return
    if not child:
        _walk_and_exit(path)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    reason = None
    if os.WIFSIGNALED(status):
        reason = _REASONS.get(signal.Signals(os.WTERMSIG(status)))
    elif os.WEXITSTATUS(status) == _TOO_LARGE:
        reason = f"take more than {_MAX_KIB >> 10} MiB to read"
    if reason is not None:
        raise DataError(
            f"{path.name} cannot be read as HDF5: the descriptions in it {reason}; copy it again"
        )


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child calls HDF5 alone
        return os.fork()


def _walk_and_exit(path: Path) -> None:
    import resource  # noqa: PLC0415 - not everywhere

    is_large = False
    with contextlib.suppress(BaseException):
        faulthandler.disable()
        for number in (signal.SIGPROF, signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(_MAX_WAIT)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        at_rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with contextlib.suppress(BaseException):
            _walk(path)
        is_large = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_rest > _MAX_KIB
    os._exit(_TOO_LARGE if is_large else 0)


def _walk(path: Path) -> None:
    """Read attributes, texts of any length and indexes of chunks, as readers of the file do."""
    import h5py  # noqa: PLC0415 - an optional library

    def visit(_: str, item: Any) -> None:
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        for name in item.attrs:
            with contextlib.suppress(Exception):
                item.attrs[name]
        if not isinstance(item, h5py.Dataset):
            return
        with contextlib.suppress(Exception):
            if item.chunks is not None:
                signal.setitimer(signal.ITIMER_PROF, _INDEX_SECONDS)
                item.id.get_num_chunks()
            if item.dtype.kind == "O":
                signal.setitimer(signal.ITIMER_PROF, _SECONDS + _SECONDS_OF_TEXT * item.size)
                read_box(item)
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)

    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems_links(lambda *_: None)
        file.visititems(visit)
