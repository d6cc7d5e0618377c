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
_UNNOTICED_SECONDS = 10.0  # the same, where collectives do not notice a rank that is gone
_STORE_SECONDS = 5.0  # for the store to answer
_POLLS_A_SECOND = 1000  # of all ranks that wait for the others, at most five of one
_LONGEST_TEXT = 500
_LONGEST_FOUND = 2 * _LONGEST_TEXT
_NOBODY = -1
_COMPARED_TEXT = 400
_CONSEQUENCE = ": the job cannot continue"


@dataclass(slots=True)
class _State:
    """What a rank writes about itself.

    Attributes:
        beats: how often its thread has written.
        collectives: number of collectives that it has entered.
        suspects: whether a collective of it has failed, so that some rank must have.
        blamed: the rank whose failure made it leave; None if it failed by itself, -1 if no rank is
            known to have failed.
        text: why it failed or left; empty while it works.
        found: of rank 0: the rank that it has found to have failed, or -1.
        found_text: how.
        exchanges: number of operations among the ranks that share its windows, as far as entered.
    """

    beats: int = 0
    collectives: int = 0
    suspects: bool = False
    blamed: int | None = None
    text: str = ""
    found: int = 0
    found_text: str = ""
    exchanges: int = 0


class Heartbeat:
    """Heartbeats of every rank, in a key-value store that all ranks share.

    Each second a thread of each rank writes a rising number and how many collectives the rank has
    entered. That of rank 0 reads them all, and writes which rank has failed; those of the others
    read what rank 0 has written, so that the store answers a few requests a rank and second at any
    number of ranks. A rank whose thread is silent is gone or stopped; a rank whose thread writes
    but which has entered fewer collectives than the others hangs; a rank that failed has written
    why, and a rank that left because of another has written which one. What no rank can have
    written is passed over; where it stays, something else writes to the store, and no rank is
    blamed for it.

    Args:
        store: the job's store, over a connection that nothing else uses.
        rank: of this process.
        world_size: number of ranks.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._keys = [f"heartbeat/{each}" for each in range(world_size if rank == 0 else 1)]
        self._on_failure: Callable[[PeerError], None] | None = None
        self._patience = _PATIENCE_SECONDS
        self._state = _State()
        self._failure: PeerError | None = None
        self._arrivals = 0
        self._states = [_State() for _ in self._keys]
        self._is_garbled = [False] * len(self._keys)
        self._beats = [-1] * len(self._keys)
        self._silence = [0.0] * len(self._keys)
        self._suspicion = 0.0  # seconds since the thread has known of a failed collective
        self._looked = time.monotonic()
        self._writing = threading.Lock()
        self._closed, self._wake = threading.Event(), threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat, name="pgti-heartbeat", daemon=True)
        self._thread.start()

    def call_on_failure(self, function: Callable[[PeerError], None]) -> None:
        """Let the thread report a failed rank by itself, where no collective fails because of it.

        Args:
            function: called once, by the thread, unless a collective has failed or the rank leaves.
        """
        self._on_failure = function
        self._patience = _UNNOTICED_SECONDS

    def enter_collective(self) -> None:
        """Record that the rank enters a collective."""
        self._state.collectives += 1

    def enter_exchange(self) -> None:
        """Record that the rank enters an operation among the ranks that share its windows."""
        self._state.exchanges += 1

    def wait_for_all(self) -> None:
        """Wait until every rank is here, however long that takes, while all of them are alive.

        Raises:
            PeerError: if a rank has failed or no longer responds.
        """
        self._arrivals += 1
        key = f"arrived/{self._arrivals}"
        pause = max(_INTERVAL_SECONDS / 5, self._world_size / _POLLS_A_SECOND)
        try:
            num_here = self._store.add(key, 1)
            if not 1 <= num_here <= self._world_size:
                raise _garbled_store(key)
            if num_here == self._world_size:
                self._store.set(f"{key}/all", "")
            while not self._store.check([f"{key}/all"]):
                if self._failure is not None:
                    raise self._failure
                time.sleep(pause)
        except (RuntimeError, OSError) as error:
            raise _silent_store() from error

    def find_failed_rank(self) -> PeerError | None:
        """An error that names the rank that failed first, and how; None if all seem well.

        It takes seconds to notice a silent rank; a signal does not interrupt the search.
        """
        self._state.suspects = True
        self._wake.set()
        # Rank 0 hears of it within a beat and waits for a silent rank; this one hears a beat later.
        deadline = time.monotonic() + _SILENT_SECONDS + _STORE_SECONDS
        while self._failure is None and time.monotonic() < deadline:
            with suppress(Interrupted):
                time.sleep(_INTERVAL_SECONDS / 50)
        if self._failure is None and time.monotonic() - self._looked > _SILENT_SECONDS:
            return _silent_store()  # with the process that serves it
        return self._failure

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
        """Stop the heartbeats; after an error, let the others read why.

        Otherwise rank 0, whose process may serve the store, leaves last, seconds later at most.
        """
        self._closed.set()
        self._wake.set()
        if error is not None:
            if isinstance(error, PeerError):
                self._state.blamed = _NOBODY if error.rank is None else error.rank
            self._state.text = _text_of(error)
            _within(_STORE_SECONDS, self._write)
        self._thread.join(timeout=_STORE_SECONDS)
        if error is None:
            _within(_STORE_SECONDS, self._leave)

    def _leave(self) -> None:
        """Note that this rank reads the store no more; rank 0 waits for the notes of the others."""
        deadline = time.monotonic() + _STORE_SECONDS
        num_gone = self._store.add("gone", int(self._rank > 0))
        while self._rank == 0 and num_gone < self._world_size - 1 and time.monotonic() < deadline:
            time.sleep(_INTERVAL_SECONDS / 50)
            num_gone = self._store.add("gone", 0)

    def _beat(self) -> None:
        """Write and look, each second and whenever a collective fails."""
        while True:
            is_early = self._wake.wait(_INTERVAL_SECONDS)
            self._wake.clear()
            if self._closed.is_set():
                return
            self._state.beats += not is_early
            try:
                self._write()
                failure = self._look()
            except (RuntimeError, OSError):
                failure = _silent_store()
            if failure is not None and self._failure is None and not self._closed.is_set():
                self._failure = failure
                if self._rank == 0:
                    self._state.found = _NOBODY if failure.rank is None else failure.rank
                    self._state.found_text = f"{failure}"[:_LONGEST_FOUND]
                    with suppress(RuntimeError, OSError):
                        self._write()  # the others wait for it
                if self._on_failure is not None and not self._state.suspects:
                    self._on_failure(failure)

    def _look(self) -> PeerError | None:
        """Read what this rank watches: rank 0 all ranks, the others rank 0."""
        states = self._read()
        now = time.monotonic()
        # A machine that was suspended has not been watching all that time.
        seconds, self._looked = min(now - self._looked, 1.5 * _INTERVAL_SECONDS), now
        for rank, state in enumerate(states):
            is_alive = state.beats != self._beats[rank] and not self._is_garbled[rank]
            self._silence[rank] = 0.0 if is_alive else self._silence[rank] + seconds
            self._beats[rank] = state.beats
        is_suspected = self._state.suspects or any(state.suspects for state in states)
        self._suspicion += seconds if is_suspected else 0.0
        failure = _failed(states)
        if failure is not None:
            return failure
        limit = _SILENT_SECONDS if is_suspected else self._patience
        for rank, silence in enumerate(self._silence):
            if silence >= limit and self._is_garbled[rank]:
                return _garbled_store(self._keys[rank])
            if silence >= limit:
                return _failure(rank, f"rank {rank} did not respond for {limit:.0f} s")
        # Only of a rank that writes is the number of collectives the latest.
        hung = _behind(states) if self._suspicion >= _SILENT_SECONDS else None
        return hung if hung is not None and not self._silence[hung.rank or 0] else None

    def _write(self) -> None:
        with self._writing:
            self._store.set(f"heartbeat/{self._rank}", json.dumps(astuple(self._state)))

    def _read(self) -> list[_State]:
        """The state of every rank that this one watches, the last that it wrote itself."""
        for place, value in enumerate(self._store.multi_get(self._keys)):
            state = _parse_state(value, self._world_size)
            self._is_garbled[place] = state is None
            if state is not None:
                self._states[place] = state
        return list(self._states)


def _parse_state(value: bytes, world_size: int) -> _State | None:
    """What a rank has written; None if no rank of the job writes such a thing."""
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        return None
    match fields:
        case [
            int(), int(), bool(), int() | None as blamed, str() as text, int() as found,
            str() as found_text, int(),
        ]:  # fmt: skip
            ranks = range(_NOBODY, world_size)
            fits = blamed in (None, *ranks) and found in ranks and len(text) <= _LONGEST_TEXT
            return _State(*fields) if fits and len(found_text) <= _LONGEST_FOUND else None
    return None


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


def _failure(rank: int | None, text: str) -> PeerError:
    return PeerError(f"{text.removesuffix(_CONSEQUENCE)}{_CONSEQUENCE}", rank)


def _failed(states: Sequence[_State]) -> PeerError | None:
    """A rank that wrote that it failed, or that made another leave, or that rank 0 has found."""
    for rank, state in enumerate(states):
        if state.text and state.blamed is None:
            return _failure(rank, f"rank {rank} failed: {state.text}")
    for state in states:
        if state.text and state.blamed is not None:
            return _failure(_known(state.blamed), state.text)
    if states[0].found_text:
        return _failure(_known(states[0].found), states[0].found_text)
    return None


def _known(rank: int) -> int | None:
    return None if rank == _NOBODY else rank


def _silent_store() -> PeerError:
    return _failure(0, "rank 0, or what launched it, does not answer")


def _garbled_store(key: str) -> PeerError:
    return _failure(
        None,
        f"{key} in the key-value store of the job holds what no rank writes: something else writes "
        "there; run in a network that nobody else reaches, or with a MASTER_PORT of your own",
    )


def _behind(states: Sequence[_State]) -> PeerError | None:
    """The rank that has entered the fewest collectives, if others have entered more.

    Of ranks that share windows, the one that entered fewer exchanges: the others wait for it there.
    """
    most = max(state.collectives for state in states)
    last = min(
        range(len(states)), key=lambda rank: (states[rank].collectives, states[rank].exchanges)
    )
    if states[last].collectives == most:
        return None
    entered = f"{states[last].collectives} of {most} collectives"
    return _failure(last, f"rank {last} hangs: it has entered {entered}")
