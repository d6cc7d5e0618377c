"""Failures that heartbeats find, and what they ask of the store: ranks as threads, fast clocks."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore

from pgti.distributed import heartbeat
from pgti.distributed.heartbeat import Heartbeat, _parse_state, _State
from pgti.errors import PeerError

INTERVAL = 0.05


class CountingStore:
    """A store that counts the keys that a rank reads and writes."""

    def __init__(self, store: HashStore) -> None:
        self._store = store
        self.num_keys = 0
        self.garbled: dict[str, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        def call(keys: Any, *rest: Any) -> Any:
            self.num_keys += len(keys) if isinstance(keys, list) else 1
            return getattr(self._store, name)(keys, *rest)

        return call

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """What the store holds, or what somebody else wrote there."""
        found = self.__getattr__("multi_get")(keys)
        return [self.garbled.get(key, value) for key, value in zip(keys, found, strict=True)]


class Ranks:
    """The heartbeats of some ranks."""

    def __init__(self, size: int) -> None:
        store = HashStore()
        self.stores = [CountingStore(store) for _ in range(size)]
        self.beats = [
            Heartbeat(each, rank, size)  # type: ignore[arg-type] # as far as heartbeats use it
            for rank, each in enumerate(self.stores)
        ]

    def wait_for_all(self, *ranks: int) -> list[PeerError | None]:
        """Let these ranks wait for all, at the same time; their errors."""
        errors: list[PeerError | None] = [None] * len(ranks)

        def wait(place: int, rank: int) -> None:
            try:
                self.beats[rank].wait_for_all()
            except PeerError as error:
                errors[place] = error

        threads = [threading.Thread(target=wait, args=each) for each in enumerate(ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()
        return errors


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Ranks]]:
    """Heartbeats 20 times as often; all are closed at the end."""
    for name, beats in (("INTERVAL", 1), ("SILENT", 5), ("UNNOTICED", 10), ("PATIENCE", 20)):
        monkeypatch.setattr(heartbeat, f"_{name}_SECONDS", INTERVAL * beats)
    opened: list[Ranks] = []
    yield opened
    for ranks in opened:
        for each in reversed(ranks.beats):  # rank 0 leaves last
            each.close()


def test_all_ranks_meet_again_and_again(fast: list[Ranks]) -> None:
    fast.append(Ranks(4))
    for _ in range(3):
        assert fast[0].wait_for_all(0, 1, 2, 3) == [None] * 4


@pytest.mark.parametrize("gone", [0, 2])
def test_ranks_that_wait_name_a_silent_one(fast: list[Ranks], gone: int) -> None:
    fast.append(Ranks(3))
    fast[0].beats[gone].close()  # silent, as if it were killed
    others = [rank for rank in range(3) if rank != gone]
    for error in fast[0].wait_for_all(*others):
        assert error is not None
        assert error.rank == gone
        assert f"rank {gone} did not respond for 1 s" in str(error)


@pytest.mark.parametrize("failed", [0, 1])
def test_a_rank_that_failed_has_said_why(fast: list[Ranks], failed: int) -> None:
    fast.append(Ranks(3))
    fast[0].beats[failed].close(ValueError("the disk is full"))
    for error in fast[0].wait_for_all(*(rank for rank in range(3) if rank != failed)):
        assert f"rank {failed} failed: the disk is full: the job cannot continue" in str(error)


@pytest.mark.parametrize("hung", [0, 1, 2])
def test_a_rank_that_writes_and_enters_fewer_collectives_hangs(
    fast: list[Ranks], hung: int
) -> None:
    """Each of the others finds it by itself, after a collective of it has failed."""
    fast.append(Ranks(3))
    for rank in (each for each in range(3) if each != hung):
        fast[0].beats[rank].enter_collective()
    time.sleep(3 * INTERVAL)
    for rank in (each for each in range(3) if each != hung):
        error = fast[0].beats[rank].find_failed_rank()
        assert error is not None
        assert f"rank {hung} hangs: it has entered 0 of 1 collectives" in str(error)


def test_of_ranks_that_share_windows_the_one_that_the_others_wait_for_hangs(
    fast: list[Ranks],
) -> None:
    """Ranks 0 and 1 wait for 2 and 3 in a collective, and rank 2 for 3 in an exchange."""
    fast.append(Ranks(4))
    for rank in (0, 1):
        fast[0].beats[rank].enter_collective()
    fast[0].beats[2].enter_exchange()
    time.sleep(3 * INTERVAL)
    error = fast[0].beats[0].find_failed_rank()
    assert str(error).startswith("rank 3 hangs: it has entered 0 of 1 collectives")


def test_rank_0_serves_the_store_until_the_others_have_left(fast: list[Ranks]) -> None:
    """Or requests of theirs would fail, and torch write a stack trace for each."""
    fast.append(ranks := Ranks(3))
    leaving = threading.Thread(target=ranks.beats[0].close)
    leaving.start()
    for rank in (1, 2):
        leaving.join(timeout=10 * INTERVAL)
        assert leaving.is_alive()
        ranks.beats[rank].close()
    leaving.join(timeout=4)
    assert not leaving.is_alive()


def test_where_all_are_well_nobody_is_blamed(
    fast: list[Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_STORE_SECONDS", 0.5)
    fast.append(Ranks(2))
    assert fast[0].beats[1].find_failed_rank() is None


@pytest.mark.parametrize("gone", [0, 1])
def test_a_silent_rank_is_reported_though_no_collective_fails(fast: list[Ranks], gone: int) -> None:
    """As with NCCL, which waits for a rank that is gone."""
    fast.append(Ranks(3))
    found: dict[int, PeerError] = {}
    everyone = threading.Barrier(3)

    def report(rank: int, error: PeerError) -> None:
        found[rank] = error
        everyone.wait(timeout=10)

    others = [rank for rank in range(3) if rank != gone]
    for rank in others:
        fast[0].beats[rank].call_on_failure(lambda error, rank=rank: report(rank, error))  # type: ignore[misc] # its default is the rank
    fast[0].beats[gone].close()
    everyone.wait(timeout=10)
    assert {rank: error.rank for rank, error in found.items()} == dict.fromkeys(others, gone)


def test_the_store_answers_as_many_requests_of_a_rank_at_any_number_of_ranks(
    fast: list[Ranks],
) -> None:
    """Rank 0 alone reads what all have written."""
    asked = []
    for size in (3, 48):
        ranks = Ranks(size)
        fast.append(ranks)
        before = ranks.stores[1].num_keys
        beats = ranks.beats[1]._state.beats
        time.sleep(20 * INTERVAL)
        num_beats = ranks.beats[1]._state.beats - beats
        assert num_beats > 5
        asked.append((ranks.stores[1].num_keys - before) / num_beats)
    assert max(asked) < 3  # it writes its state and reads that of rank 0


GARBAGE = (
    b"", b"\xff\x00", b"null", b"{", b"[]", b"[1, 2, 3]", b"{}", b"[" * 100_000, b"9" * 5000,
    b'["0", 0, false, null, "", 0, "", 0]', b"[0, 0, 0, null, 3, 0, 4, 0]",
)  # fmt: skip


@pytest.mark.parametrize("garbled", [0, 1])
def test_garbage_that_stays_in_the_store_blames_no_rank(fast: list[Ranks], garbled: int) -> None:
    """The ranks learn that something else writes there, and not that one of them is gone."""
    fast.append(ranks := Ranks(3))
    for store in ranks.stores:
        store.garbled[f"heartbeat/{garbled}"] = GARBAGE[1]
    for error in ranks.wait_for_all(0, 2):  # rank 1 is busy
        assert error is not None
        assert error.rank is None
        assert str(error).startswith(f"heartbeat/{garbled} in the key-value store of the job holds")


def test_garbage_that_passes_is_passed_over(fast: list[Ranks]) -> None:
    """The next beat of the rank is read as if nothing had been there."""
    fast.append(ranks := Ranks(2))
    for value in GARBAGE:
        for store in ranks.stores:
            store.garbled = {"heartbeat/0": value, "heartbeat/1": value}
        time.sleep(2 * INTERVAL)
        for store in ranks.stores:
            store.garbled = {}
        time.sleep(2 * INTERVAL)
    assert ranks.wait_for_all(0, 1) == [None, None]


@pytest.mark.parametrize("change", [-5, 1, 7])
def test_ranks_that_more_arrive_than_there_are_do_not_wait_for_ever(
    fast: list[Ranks], change: int
) -> None:
    fast.append(ranks := Ranks(2))
    ranks.stores[0].add("arrived/1", change)
    errors = ranks.wait_for_all(0, 1)
    assert any("arrived/1 in the key-value store" in str(error) for error in errors)


STATES = st.builds(
    _State,
    beats=st.integers(0),
    collectives=st.integers(0),
    suspects=st.booleans(),
    blamed=st.none() | st.integers(-1, 3),
    text=st.text(max_size=500),
    found=st.integers(-1, 3),
    found_text=st.text(max_size=1000),
    exchanges=st.integers(0),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each, max_size=8) | st.dictionaries(st.text(), each, max_size=3),
)


@given(STATES, st.integers(0, 7), VALUES, st.binary(max_size=40))
def test_what_a_rank_writes_is_read_and_nothing_else(
    state: _State, place: int, value: Any, noise: bytes
) -> None:
    fields = list(astuple(state))
    assert _parse_state(json.dumps(fields).encode(), 4) == state
    for content in (json.dumps([*fields[:place], value, *fields[place + 1 :]]).encode(), noise):
        parsed = _parse_state(content, 4)
        if parsed is not None:
            assert len(parsed.text) <= 500
            assert len(parsed.found_text) <= 1000
            assert parsed.found in range(-1, 4)
            assert parsed.blamed in (None, *range(-1, 4))
            assert isinstance(parsed.suspects, bool)


@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_is_no_state(value: bytes) -> None:
    assert _parse_state(value, 4) is None
