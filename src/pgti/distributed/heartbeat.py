"""Liveness and progress of every rank, so that a failure can be named by its rank."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import TypeVar

from torch._C._distributed_c10d import Store

from pgti.errors import Interrupted, PeerError

__all__ = ["Heartbeat"]

Found = TypeVar("Found")

_INTERVAL_SECONDS = 1.0
_SILENT_SECONDS = 3 * _INTERVAL_SECONDS  # without a heartbeat
_PATIENCE_SECONDS = 30.0  # the same, while nothing has failed: a busy machine stalls for seconds
_STORE_SECONDS = 5.0  # for the store to answer
_LONGEST_TEXT = 500
_COMPARED_TEXT = 400
_CONSEQUENCE = ": the job cannot continue"


@dataclass(slots=True)
class _State:
    """What a rank writes about itself.

    Attributes:
        beats: how often its thread has written.
        collectives: number of collectives that it has entered.
        arrivals: number of `wait_for_all` that it has entered.
        blamed: the rank whose failure made it leave; None if it failed by itself.
        text: why it failed or left; empty while it works.
    """

    beats: int = 0
    collectives: int = 0
    arrivals: int = 0
    blamed: int | None = None
    text: str = ""


class Heartbeat:
    """Heartbeats of every rank, in a key-value store that all ranks share.

    A thread writes a rising number and how many collectives the rank has entered. A rank whose
    thread is silent is gone or stopped; a rank whose thread writes but which has entered fewer
    collectives than the others hangs; a rank that failed has written why, and a rank that left
    because of another has written which one.

    Args:
        store: the job's store, over a connection that nothing else uses.
        rank: of this process.
        world_size: number of ranks.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        self._rank = rank
        self._keys = [f"heartbeat/{each}" for each in range(world_size)]
        self._state = _State()
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat, name="pgti-heartbeat", daemon=True)
        self._thread.start()

    def enter_collective(self) -> None:
        """Record that the rank enters a collective."""
        self._state.collectives += 1

    def wait_for_all(self) -> None:
        """Wait until every rank is here, however long that takes, while all of them are alive.

        Raises:
            PeerError: if a rank has failed or no longer responds.
        """
        self._state.arrivals += 1
        self._write()
        before = self._read()
        looked = time.monotonic()
        while True:
            states = self._read()
            failure = _failed(states)
            if failure is None and all(each.arrivals >= self._state.arrivals for each in states):
                return
            if failure is None and time.monotonic() - looked > _PATIENCE_SECONDS:
                failure = _silent(before, states, _PATIENCE_SECONDS)
                before, looked = states, time.monotonic()
            if failure is not None:
                raise failure
            time.sleep(_INTERVAL_SECONDS / 5)

    def find_failed_rank(self) -> PeerError | None:
        """An error that names the rank that failed first, and how; None if all seem well.

        It takes seconds to notice a silent rank; a signal does not interrupt the search.
        """
        results = _within(_SILENT_SECONDS + 2 * _STORE_SECONDS, self._judge)
        if not results:  # the store hangs or is gone, with the process that serves it
            return _failure(0, "rank 0, or what launched it, does not answer")
        return results[0]

    def is_reported_by_main(self, error: BaseException) -> bool:
        """Whether rank 0 fails with this error or because of it, now or within seconds."""
        if isinstance(error, PeerError) and error.rank != 0:
            return True  # rank 0 finds the same rank gone

        def wait() -> bool:
            mine, deadline = _text_of(error), time.monotonic() + _SILENT_SECONDS
            while time.monotonic() < deadline:
                text = self._read()[0].text
                if text:  # "X" and "rank 2: X" report each other
                    return mine[:_COMPARED_TEXT] in text or text[:_COMPARED_TEXT] in mine
                time.sleep(_INTERVAL_SECONDS / 50)
            return False

        return _within(_SILENT_SECONDS + _STORE_SECONDS, wait) == [True]

    def close(self, error: BaseException | None = None) -> None:
        """Stop the heartbeats; after an error, let the others read why."""
        self._closed.set()
        if error is not None:
            self._state.blamed = error.rank if isinstance(error, PeerError) else None
            self._state.text = _text_of(error)
            _within(_STORE_SECONDS, self._write)
        self._thread.join(timeout=_STORE_SECONDS)

    def _beat(self) -> None:
        while not self._closed.wait(_INTERVAL_SECONDS):
            self._state.beats += 1
            try:
                self._write()
            except (RuntimeError, OSError):
                return  # the store is gone: whoever waits for a rank finds out

    def _write(self) -> None:
        with self._writing:
            self._store.set(self._keys[self._rank], json.dumps(astuple(self._state)))

    def _read(self) -> list[_State]:
        """The state of every rank."""
        return [_State(*json.loads(value)) for value in self._store.multi_get(self._keys)]

    def _judge(self) -> PeerError | None:
        before = self._read()
        failure = _failed(before)
        if failure is not None:
            return failure
        time.sleep(_SILENT_SECONDS)
        after = self._read()
        return _failed(after) or _silent(before, after, _SILENT_SECONDS) or _behind(after)


def _within(seconds: float, work: Callable[[], Found]) -> list[Found]:
    """The result of `work`, run in a thread; none if it did not end in time. Signals must wait."""
    results: list[Found] = []

    def run() -> None:
        with suppress(RuntimeError, OSError):  # the store is gone
            results.append(work())

    thread = threading.Thread(target=run, name="pgti-judge", daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < deadline:
        with suppress(Interrupted):
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
    return results[:1]


def _text_of(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_TEXT]


def _failure(rank: int, text: str) -> PeerError:
    return PeerError(f"{text.removesuffix(_CONSEQUENCE)}{_CONSEQUENCE}", rank)


def _failed(states: Sequence[_State]) -> PeerError | None:
    """A rank that wrote that it failed, or the rank whose failure made another one leave."""
    for rank, state in enumerate(states):
        if state.text and state.blamed is None:
            return _failure(rank, f"rank {rank} failed: {state.text}")
    for state in states:
        if state.text and state.blamed is not None:
            return _failure(state.blamed, state.text)
    return None


def _silent(before: Sequence[_State], after: Sequence[_State], seconds: float) -> PeerError | None:
    """A rank without a heartbeat in the `seconds` between the two."""
    for rank, (old, new) in enumerate(zip(before, after, strict=True)):
        if new.beats <= old.beats:
            return _failure(rank, f"rank {rank} did not respond for {seconds:.0f} s")
    return None


def _behind(states: Sequence[_State]) -> PeerError | None:
    """A rank that has entered fewer collectives than the others."""
    most = max(state.collectives for state in states)
    for rank, state in enumerate(states):
        if state.collectives < most:
            entered = f"{state.collectives} of {most} collectives"
            return _failure(rank, f"rank {rank} hangs: it has entered {entered}")
    return None
