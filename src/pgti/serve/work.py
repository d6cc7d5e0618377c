"""Forecasts in one thread, so that the server answers while a model computes."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pgti.serve.metrics import ServeMetrics
from pgti.serve.problems import RequestError

__all__ = ["Worker"]

_T = TypeVar("_T")


class Worker:
    """One thread that works for requests in the order in which they came.

    Args:
        max_waiting: requests at once, the one that is worked for included.
        metrics: that show how many there are.
    """

    def __init__(self, max_waiting: int, metrics: ServeMetrics) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="pgti-forecast")
        self._max_waiting, self._metrics = max_waiting, metrics
        self._num_waiting = 0

    def enter(self) -> "_Place":
        """A place in the queue.

        Raises:
            RequestError: if there is none.
        """
        if self._num_waiting >= self._max_waiting:
            raise RequestError(
                503,
                f"{self._num_waiting} requests wait for forecasts: try again in a second",
                {"Retry-After": "1"},
            )
        return _Place(self)

    def start(self, work: Callable[[], object]) -> "Future[object]":
        """Work for the server itself, before what requests ask."""
        return self._threads.submit(work)

    def stop(self) -> None:
        """Drop what waits, and end when what is computed is done."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def count(self, change: int) -> None:
        """Note that a request came or went."""
        self._num_waiting += change
        self._metrics.waiting.set(self._num_waiting)


class _Place:
    """A request in the queue; its place is free once its work has ended, not just its client."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._future: Future[Any] | None = None

    def __enter__(self) -> "_Place":
        self._worker.count(1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._future is None or self._future.done():
            self._worker.count(-1)
            return
        loop = asyncio.get_running_loop()

        def leave(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._worker.count, -1)

        self._future.add_done_callback(leave)

    async def run(self, work: Callable[[], _T], seconds: float) -> _T:
        """What `work` returns, called in the thread.

        Raises:
            RequestError: if it takes longer; work that has not begun is dropped.
        """
        self._future = future = self._worker._threads.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), max(seconds, 0.0))
        except TimeoutError:
            raise RequestError(
                503,
                "the forecast was not ready in time: try again, or send fewer readings",
                {"Retry-After": "5"},
            ) from None
