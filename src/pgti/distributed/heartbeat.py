"""Who is alive and how far everyone is, so that a failure can be named by its rank."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from pgti.errors import PeerError

__all__ = ["Heartbeat", "KeyStore"]

_INTERVAL_SECONDS = 1.0
_SILENT_AFTER = 3.0  # intervals without a sign of life
_LONGEST_TEXT = 500


class KeyStore(Protocol):
    """What is needed of `torch.distributed.Store`."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""
        ...

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Read values, all of which have been written."""
        ...


class Heartbeat:
    """Signs of life of every rank in a store that all of them see.

    A thread writes a rising number, and how often the rank has met the others. A rank whose thread
    has fallen silent is gone or stopped; one whose thread goes on and which has met the others less
    often than they have one another is hung; one that failed has said so.

    Args:
        store: of the job, over a connection of its own.
        rank: of this process.
        world_size: number of ranks.
    """

    def __init__(self, store: KeyStore, rank: int, world_size: int) -> None:
        self._store = store
        self._rank = rank
        self._keys = [f"heartbeat/{each}" for each in range(world_size)]
        self._beats = self._meetings = 0
        self._failure = ""
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat, name="pgti-heartbeat", daemon=True)
        self._thread.start()

    def advance(self) -> None:
        """The rank is about to meet the others."""
        self._meetings += 1

    def culprit(self) -> str | None:
        """Which rank is to blame for what went wrong, and how; None where all seem well."""
        try:
            before = self._read()
            failed = _first_failed(before)
            if failed is None:
                time.sleep(_SILENT_AFTER * _INTERVAL_SECONDS)
                after = self._read()
                failed = _first_failed(after) or _first_behind(before, after)
        except (RuntimeError, OSError):  # the store has gone with the process that kept it
            return "rank 0, or what launched it, is gone"
        return failed

    def close(self, error: BaseException | None = None) -> None:
        """No more signs of life; the others can read why."""
        self._closed.set()
        self._thread.join()
        if error is not None and not isinstance(error, PeerError):
            self._failure = _text_of(error)
            with suppress(RuntimeError, OSError):
                self._write()

    def has_failed_alike(self, rank: int, error: BaseException) -> bool:
        """Whether another rank has failed for the same reason, or does so within moments."""
        deadline = time.monotonic() + _SILENT_AFTER * _INTERVAL_SECONDS
        with suppress(RuntimeError, OSError):
            while time.monotonic() < deadline:
                failure = self._read()[rank][2]
                if failure:
                    return failure == _text_of(error)
                time.sleep(_INTERVAL_SECONDS / 10)
        return False

    def _beat(self) -> None:
        while not self._closed.wait(_INTERVAL_SECONDS):
            self._beats += 1
            try:
                self._write()
            except (RuntimeError, OSError):
                return  # the store is gone, and whoever waits for a rank will find out

    def _write(self) -> None:
        with self._writing:
            text = f"{self._beats} {self._meetings} {self._failure}"
            self._store.set(self._keys[self._rank], text)

    def _read(self) -> list[tuple[int, int, str]]:
        """Beats, meetings and failure of every rank."""
        states = []
        for value in self._store.multi_get(self._keys):
            beats, meetings, failure = value.decode().split(" ", 2)
            states.append((int(beats), int(meetings), failure))
        return states


def _text_of(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_TEXT]


def _first_failed(states: Sequence[tuple[int, int, str]]) -> str | None:
    return next((f"rank {r} failed: {text}" for r, (_, _, text) in enumerate(states) if text), None)


def _first_behind(
    before: Sequence[tuple[int, int, str]], after: Sequence[tuple[int, int, str]]
) -> str | None:
    """A rank that is silent, or else one that has come less far than the others."""
    for rank, (old, new) in enumerate(zip(before, after, strict=True)):
        if new[0] <= old[0]:
            return f"rank {rank} is gone: it gives no sign of life"
    most = max(meetings for _, meetings, _ in after)
    for rank, (_, meetings, _) in enumerate(after):
        if meetings < most:
            return f"rank {rank} does not go on: it has met the others {meetings} times of {most}"
    return None
