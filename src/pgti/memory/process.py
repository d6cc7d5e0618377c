"""Peak memory of this process, as PSS: shared pages counted once over those who share them."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PeakMemory", "pss_bytes"]

_PROC = Path("/proc")
_INTERVAL_SECONDS = 0.25
_LARGEST_SHARE = 0.01  # of the time: the system walks through all pages of the process at each look


def pss_bytes(process: int | str = "self") -> int | None:
    """Proportional set size of a process in bytes; None where the system does not tell.

    Args:
        process: its id, or self.
    """
    try:
        rollup = _PROC / str(process) / "smaps_rollup"
        lines = rollup.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)


class PeakMemory:
    """Watches the PSS from a thread while the `with` block runs.

    Attributes:
        peak_bytes: the largest seen; None where the system does not tell.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pgti-memory", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        pause = _INTERVAL_SECONDS
        while not self._done.wait(pause):
            began = time.perf_counter()
            self._look()
            pause = max(_INTERVAL_SECONDS, (time.perf_counter() - began) / _LARGEST_SHARE)

    def _look(self) -> None:
        seen = pss_bytes()
        if seen is not None:
            self.peak_bytes = max(seen, self.peak_bytes or 0)
