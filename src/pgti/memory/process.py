"""Memory of a process as PSS: pages that processes share count once, divided among them."""

import threading
import time
from typing import Self

import psutil

__all__ = ["PeakMemory", "pss_bytes"]

_INTERVAL_SECONDS = 0.25
_MAX_TIME_FRACTION = 0.01  # for each measurement the system walks through all pages of the process


def pss_bytes(process: int | None = None) -> int | None:
    """Proportional set size of a process in bytes; None where the system does not report it.

    Args:
        process: its id; this process if not given.
    """
    try:
        pss: int = psutil.Process(process).memory_full_info().pss
    except (psutil.Error, OSError, AttributeError):  # it has ended; Linux alone has PSS
        return None
    return pss


class PeakMemory:
    """Measures the PSS of this process from a thread while the `with` block runs.

    Attributes:
        peak_bytes: the largest seen; None where the system does not report it.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pgti-memory", daemon=True)

    def __enter__(self) -> Self:
        self._measure()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._measure()

    def _watch(self) -> None:
        pause = _INTERVAL_SECONDS
        while not self._done.wait(pause):
            began = time.perf_counter()
            self._measure()
            pause = max(_INTERVAL_SECONDS, (time.perf_counter() - began) / _MAX_TIME_FRACTION)

    def _measure(self) -> None:
        seen = pss_bytes()
        if seen is not None:
            self.peak_bytes = max(seen, self.peak_bytes or 0)
