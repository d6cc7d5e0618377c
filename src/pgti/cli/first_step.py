"""How long a user waits for the first optimizer step."""

import time

import psutil

from pgti.cli.output import log
from pgti.forecasting import Observer

__all__ = ["FirstStep"]


class FirstStep(Observer):
    """Measures how long a user waits for the first optimizer step.

    Attributes:
        began_after: seconds from the start of the process to the beginning of the first step, or
            None.
        done_after: seconds from the start of the process to its end, or None.
    """

    def __init__(self) -> None:
        self.began_after: float | None = None
        self.done_after: float | None = None
        self._is_training = False
        self._started = psutil.Process().create_time()

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """A pass begins: over training windows, unless a resumed run only has to be validated."""
        self._is_training = step is not None
        if self.began_after is None and self._is_training:
            self.began_after = time.time() - self._started

    def advance(self, num_windows: int, loss: object = None) -> None:
        """A step is done."""
        if self.done_after is None and self._is_training:
            self.done_after = time.time() - self._started

    def log(self) -> None:
        """Log both times, if a step was taken."""
        if self.began_after is not None and self.done_after is not None:
            log(
                f"the first optimizer step began {self.began_after:.1f} s after the command and "
                f"took {self.done_after - self.began_after:.1f} s"
            )
