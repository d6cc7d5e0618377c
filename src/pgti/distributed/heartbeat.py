"""Who is alive and how far everyone is, so that a failure can be named by its rank."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pgti.errors import Interrupted, PeerError

__all__ = ["Heartbeat", "KeyStore", "RankFailure"]

Found = TypeVar("Found")

_INTERVAL_SECONDS = 1.0
_SILENT_SECONDS = 3 * _INTERVAL_SECONDS  # without a sign of life
_PATIENCE_SECONDS = 30.0  # the same, where nothing has failed: a busy machine stalls for seconds
_STORE_SECONDS = 5.0  # for the store to answer
_LONGEST_TEXT = 500


class KeyStore(Protocol):
    """What is needed of `torch.distributed.Store`."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""
        ...

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Read values, all of which have been written."""
        ...


@dataclass(frozen=True, slots=True)
class RankFailure:
    """Which rank is to blame for a failure, and in what words."""

    rank: int
    text: str


@dataclass(frozen=True, slots=True)
class _State:
    """What a rank writes.

    Args:
        beats: how often its thread has looked.
        meetings: how often it has met the others.
        arrivals: how many long waits it has come to the end of.
        blamed: the rank that it has left because of; -1 if it has not.
        text: why it has failed or left; empty while it works.
    """

    beats: int
    meetings: int
    arrivals: int
    blamed: int
    text: str

    def __str__(self) -> str:
        return f"{self.beats} {self.meetings} {self.arrivals} {self.blamed} {self.text}"

    @classmethod
    def parsed(cls, value: bytes) -> "_State":
        beats, meetings, arrivals, blamed, text = value.decode().split(" ", 4)
        return cls(int(beats), int(meetings), int(arrivals), int(blamed), text)


class Heartbeat:
    """Signs of life of every rank in a store that all of them see.

    A thread writes a rising number, and how often the rank has met the others. A rank whose thread
    has fallen silent is gone or stopped; one whose thread goes on and which has met the others less
    often than they have one another is hung; one that failed has said so, and one that left
    because of another has said because of which.

    Args:
        store: of the job, over a connection of its own.
        rank: of this process.
        world_size: number of ranks.
    """

    def __init__(self, store: KeyStore, rank: int, world_size: int) -> None:
        self._store = store
        self._rank = rank
        self._keys = [f"heartbeat/{each}" for each in range(world_size)]
        self._beats = self._meetings = self._arrivals = 0
        self._blamed, self._text = -1, ""
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat, name="pgti-heartbeat", daemon=True)
        self._thread.start()

    def advance(self) -> None:
        """The rank is about to meet the others."""
        self._meetings += 1

    def wait_for_all(self) -> None:
        """Wait until every rank is here, however long that takes, while all of them live.

        Raises:
            PeerError: if a rank has failed or gives no sign of life any more.
        """
        self._arrivals += 1
        self._write()
        before = self._read()
        looked = time.monotonic()
        while True:
            states = self._read()
            failure = _failed(states)
            if failure is None and all(each.arrivals >= self._arrivals for each in states):
                return
            if failure is None and time.monotonic() - looked > _PATIENCE_SECONDS:
                failure = _silent(before, states)
                before, looked = states, time.monotonic()
            if failure is not None:
                raise PeerError(f"{failure.text}: the job cannot go on", failure.rank)
            time.sleep(_INTERVAL_SECONDS / 5)

    def find_failed_rank(self) -> RankFailure | None:
        """Which rank is to blame for what went wrong; None where all seem well.

        It takes some seconds to tell a rank that is silent. A signal does not cut them short.
        """
        answered, failure = _within(_SILENT_SECONDS + 2 * _STORE_SECONDS, self._judged)
        if not answered:  # the store hangs or is gone, with the process that keeps it
            return RankFailure(0, "rank 0, or what launched it, does not answer")
        return failure

    def has_failed_alike(self, rank: int, error: BaseException) -> bool:
        """Whether another rank has failed for the same reason, or does so within moments."""

        def waited() -> bool:
            deadline = time.monotonic() + _SILENT_SECONDS
            while time.monotonic() < deadline:
                text = self._read()[rank].text
                if text:
                    return text == _text_of(error)
                time.sleep(_INTERVAL_SECONDS / 10)
            return False

        answered, is_alike = _within(_SILENT_SECONDS + _STORE_SECONDS, waited)
        return answered and bool(is_alike)

    def close(self, error: BaseException | None = None) -> None:
        """No more signs of life; the others can read why."""
        self._closed.set()
        if error is not None:
            blames = isinstance(error, PeerError) and error.rank is not None
            self._blamed = error.rank if blames else -1  # type: ignore[attr-defined] # a PeerError
            self._text = _text_of(error)
            _within(_STORE_SECONDS, self._write)
        self._thread.join(timeout=_STORE_SECONDS)

    def _beat(self) -> None:
        while not self._closed.wait(_INTERVAL_SECONDS):
            self._beats += 1
            try:
                self._write()
            except (RuntimeError, OSError):
                return  # the store is gone, and whoever waits for a rank will find out

    def _write(self) -> None:
        with self._writing:
            state = _State(self._beats, self._meetings, self._arrivals, self._blamed, self._text)
            self._store.set(self._keys[self._rank], str(state))

    def _read(self) -> list[_State]:
        """The state of every rank."""
        return [_State.parsed(value) for value in self._store.multi_get(self._keys)]

    def _judged(self) -> RankFailure | None:
        before = self._read()
        failure = _failed(before)
        if failure is not None:
            return failure
        time.sleep(_SILENT_SECONDS)
        after = self._read()
        return _failed(after) or _silent(before, after) or _behind(after)


def _within(seconds: float, work: Callable[[], Found]) -> tuple[bool, Found | None]:
    """Whether work was done in time, and what it gave; what asks to stop has to wait as long."""
    results: list[Found] = []

    def run() -> None:
        with suppress(RuntimeError, OSError):  # the store is gone
            results.append(work())

    thread = threading.Thread(target=run, name="pgti-verdict", daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < deadline:
        with suppress(Interrupted):
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
    return (True, results[0]) if results else (False, None)


def _text_of(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_TEXT]


def _failed(states: Sequence[_State]) -> RankFailure | None:
    """A rank that has said that it failed, or that another one has made leave."""
    for rank, state in enumerate(states):
        if state.text and state.blamed < 0:
            return RankFailure(rank, f"rank {rank} failed: {state.text}")
    for state in states:
        if state.text:
            return RankFailure(state.blamed, state.text.removesuffix(": the job cannot go on"))
    return None


def _silent(before: Sequence[_State], after: Sequence[_State]) -> RankFailure | None:
    """A rank that gives no sign of life."""
    for rank, (old, new) in enumerate(zip(before, after, strict=True)):
        if new.beats <= old.beats:
            return RankFailure(rank, f"rank {rank} is gone: it gives no sign of life")
    return None


def _behind(states: Sequence[_State]) -> RankFailure | None:
    """A rank that has come less far than the others."""
    most = max(state.meetings for state in states)
    for rank, state in enumerate(states):
        if state.meetings < most:
            times = f"{state.meetings} times of {most}"
            return RankFailure(rank, f"rank {rank} does not go on: it has met the others {times}")
    return None
