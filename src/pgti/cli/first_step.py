"""How long a user waits from the command to the beginning and the end of the first step."""

import os
import time
from pathlib import Path

from pgti.cli.output import log
from pgti.forecasting import AbstractObserver
from pgti.forecasting.observers import Record

__all__ = ["FirstStep"]

_PROC = Path("/proc")
_STARTED_FIELD = 19  # of /proc/self/stat behind the name: clock ticks from boot to the start


class FirstStep(AbstractObserver):
    """Notes when training begins, and when its first optimiser step is done.

    Attributes:
        began_after: seconds from the start of the process (of the observer, where the system does
            not tell) to the beginning of the first step; None until then.
        done_after: seconds to its end.
    """

    def __init__(self) -> None:
        self.began_after: float | None = None
        self.done_after: float | None = None
        self._is_training = False
        self._began = time.monotonic() - (_age_of_process() or 0.0)

    def begin(self, label: str, num_windows: int, done: int = 0) -> None:
        """A pass begins; the first is over training windows."""
        # A run that goes on may have nothing left to do but its validation.
        self._is_training = label != "evaluating"
        if self.began_after is None and self._is_training:
            self.began_after = time.monotonic() - self._began

    def advance(self, num_windows: int) -> None:
        """Windows are done for the first time: those of a step."""
        if self.done_after is None and self._is_training:
            self.done_after = time.monotonic() - self._began

    def record(self, record: Record) -> None:
        """Nothing to note."""

    def close(self) -> None:
        """Nothing to free."""

    def tell(self) -> None:
        """Say it, if a step was taken."""
        if self.began_after is not None and self.done_after is not None:
            log(
                f"the first optimiser step began {self.began_after:.1f} s after the command and "
                f"took {self.done_after - self.began_after:.1f} s"
            )


def _age_of_process() -> float | None:
    """Seconds since this process was started, interpreter and imports included; Linux tells."""
    try:
        stat = (_PROC / "self/stat").read_text(encoding="utf-8", errors="replace")
        uptime = float((_PROC / "uptime").read_text(encoding="ascii").split()[0])
        started = int(stat.rpartition(")")[2].split()[_STARTED_FIELD])
        return max(0.0, uptime - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return None
