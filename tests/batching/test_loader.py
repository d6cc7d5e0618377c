"""Batches fetched ahead by threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgti.batching import Batch, Batcher, BatchLoader, build_batcher
from pgti.errors import ConfigError
from pgti.windows import BlockShuffle, GlobalShuffle, Order, Sequential, WindowSpec

from .sources import (
    CPU,
    assert_same,
    decoded,
    make_source,
    request,
    resident,
    standard,
    stored,
)

SPEC = WindowSpec(input_steps=5, horizon=3)
NUM_STEPS = 120
STARTS = SPEC.starts(NUM_STEPS)

MakeBatcher = Callable[..., Batcher[Any]]

STRATEGIES = (decoded, stored, resident)


class Watched:
    """Counts the fetches of a batcher, and can wait until so many are done."""

    def __init__(self, batcher: Batcher[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self._done = threading.Condition()
        self._count = 0
        fetch = batcher.fetch

        def counted(*arguments: Any, **options: Any) -> Any:
            fetched = fetch(*arguments, **options)
            with self._done:
                self._count += 1
                self._done.notify_all()
            return fetched

        monkeypatch.setattr(batcher, "fetch", counted)

    def wait_for(self, count: int) -> None:
        """Return when so many fetches are done."""
        with self._done:
            assert self._done.wait_for(lambda: self._count >= count, timeout=60)


@pytest.mark.parametrize("order", [GlobalShuffle(3), BlockShuffle(3, 4), Sequential()], ids=repr)
@pytest.mark.parametrize("prefetch_depth", [1, 2, 3, 5])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_is_valid_until_the_next_one_is_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: MakeBatcher,
    prefetch_depth: int,
    order: Order,
) -> None:
    """However far the threads have run ahead while it was in use."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 3, 2), SPEC, missing=0.2)
    batcher, oracle = strategy(source, prefetch_depth), standard(source)
    watched = Watched(batcher, monkeypatch)
    loader = BatchLoader(batcher, STARTS, 16, order)
    for number, batch in enumerate(loader.epoch(1)):
        watched.wait_for(min(number + batcher.prefetch_depth, loader.num_batches))
        assert_same(batch, oracle.gather(batch.starts))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_epochs_of_one_batcher_do_not_disturb_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: MakeBatcher
) -> None:
    """A validation in the middle of an epoch leaves what was fetched ahead for training."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 3, 2), SPEC, missing=0.2)
    batcher, oracle = strategy(source, 3), standard(source)
    watched = Watched(batcher, monkeypatch)
    training = BatchLoader(batcher, STARTS, 16, GlobalShuffle(3))
    validation = BatchLoader(batcher, STARTS[::7], 4, Sequential())
    seen: list[int] = []
    for number, batch in enumerate(training.epoch(0)):
        assert_same(batch, oracle.gather(batch.starts))
        seen.extend(batch.starts.tolist())
        if number == 2:
            watched.wait_for(2 + batcher.prefetch_depth)
            inner = [each.clone() for each in validation.epoch(0)]
            assert len(inner) == validation.num_batches
            for each in inner:
                assert_same(each, oracle.gather(each.starts))
    assert sorted(seen) == list(STARTS)


def test_threads_run_ahead_only_where_there_is_something_to_read(tmp_path: Path) -> None:
    """Decoded rows and a resident series are in memory: a thread would be in the way."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 3, 2), SPEC)
    before = threading.active_count()
    for strategy, num_threads in ((stored, 2), (decoded, 0), (resident, 0)):
        batches = BatchLoader(strategy(source, 3), STARTS, 16, Sequential()).epoch(0)
        next(batches)
        assert threading.active_count() == before + num_threads
        batches.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before


def test_rows_are_decoded_once_by_several_threads(tmp_path: Path) -> None:
    """Threads that need the same page at the same time do not decode it into one another."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 20, 2), SPEC, missing=0.2, climatology=True)
    expected = standard(source).gather(np.array(STARTS))
    assert expected.y is not None
    for _ in range(5):
        batcher = decoded(source, page_rows=8, piece_readings=40)
        barrier = threading.Barrier(4)

        def fetch(starts: Any, batcher: Any = batcher, barrier: Any = barrier) -> Batch:
            barrier.wait(timeout=60)
            batch: Batch = batcher.assemble(batcher.fetch(request(starts)))
            return batch

        with ThreadPoolExecutor(4) as threads:
            batches = list(threads.map(fetch, [np.array(STARTS)] * 4))
        for batch in batches:
            assert_same(batch, expected)


def test_refuses_a_depth_below_one(tmp_path: Path) -> None:
    """Without one in progress there would be no batch, and no error."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 3, 2), SPEC)
    for prefetch_depth in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="prefetch_depth is"):
            build_batcher("index", source, CPU, prefetch_depth=prefetch_depth, budget_bytes=0)
