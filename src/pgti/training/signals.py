"""Turning the first SIGTERM or SIGINT into a request that the loop honours between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

__all__ = ["StopSignals"]


class StopSignals:
    """While entered, SIGTERM and SIGINT set `received` instead of ending the process.

    A second SIGINT raises KeyboardInterrupt at once, for who cannot wait. Outside the main
    thread, where Python admits no handlers, nothing is installed. The previous handlers come back
    on leaving.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.received = number
