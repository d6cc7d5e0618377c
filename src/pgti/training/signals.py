"""Stop signals, which the training loop obeys between two steps."""

import signal
import threading
from types import FrameType
from typing import Self

__all__ = ["StopSignals"]

_STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)


class StopSignals:
    """While entered, SIGTERM, SIGINT and SIGUSR1 set `received` instead of ending the process.

    SLURM can send SIGUSR1 some time before a job's time limit. A second SIGINT raises
    KeyboardInterrupt at once. Outside the main thread, where Python allows no handlers, none is
    installed. Leaving restores the previous handlers.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.received = number
