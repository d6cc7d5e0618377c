"""What `Accelerator.prepare` gives of a loader of windows: the batches of pgti."""

import importlib.util
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from pgti.batching import Batch, WindowDataset, WindowSample, WindowSampler, build_loader
from pgti.store import SeriesStore
from pgti.windows import GlobalShuffle

from ..batching.sources import assert_same
from ..distributed.rank_jobs import make_store

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None,
    reason="accelerate is not installed: pip install accelerate",
)
ORDER = GlobalShuffle(3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    return make_store(tmp_path_factory.mktemp("accelerate") / "store")


@pytest.fixture
def accelerator() -> Iterator[Any]:
    from accelerate import Accelerator  # noqa: PLC0415 - it may not be installed
    from accelerate.state import AcceleratorState  # noqa: PLC0415

    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def make_loader(dataset: WindowDataset, batch_size: int, **options: Any) -> DataLoader[Any]:
    sampler = WindowSampler(dataset, ORDER)
    defaults = {"collate_fn": WindowDataset.collate}
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, **defaults | options)


def epoch_of(dataset: WindowDataset, batch_size: int, epoch: int) -> list[Batch]:
    """What pgti trains on."""
    loader = build_loader(dataset.source, dataset.starts, batch_size, ORDER)
    return list(map(Batch.clone, loader.epoch(epoch)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_prepared_loader_gives_the_batches_of_pgti(
    store: SeriesStore, accelerator: Any, workers: int
) -> None:
    """Accelerate counts the epochs, and moves a batch or a sample to its device."""
    dataset = WindowDataset.from_store(store, input_steps=3, horizon=2)
    prepared = accelerator.prepare(make_loader(dataset, 5, num_workers=workers))
    for epoch in (0, 1):
        expected = epoch_of(dataset, 5, epoch)
        for batch, other in zip_longest(prepared, expected):
            assert isinstance(batch, Batch)
            assert_same(batch, other)
    (first, *_) = accelerator.prepare(make_loader(dataset, 5, collate_fn=None))
    assert isinstance(first, WindowSample)
    assert torch.equal(first.x, epoch_of(dataset, 5, 0)[0].x)


def test_two_processes_share_the_windows(store: SeriesStore, accelerator: Any) -> None:
    """Without `even_batches` each window comes once; with it the first windows come again."""
    from accelerate.data_loader import prepare_data_loader  # noqa: PLC0415

    del accelerator  # only its state
    dataset = WindowDataset.from_store(store, input_steps=3, horizon=2)

    def parts(batch_size: int, **options: Any) -> list[list[Batch]]:
        loaders = (
            prepare_data_loader(
                make_loader(dataset, batch_size), num_processes=2, process_index=rank, **options
            )
            for rank in (0, 1)
        )
        return list(map(list, loaders))

    expected = epoch_of(dataset, 5, 0)
    ranks = parts(5, even_batches=False)
    for rank in (0, 1):
        for batch, other in zip(ranks[rank], expected[rank::2], strict=True):
            assert_same(batch, other)
    even = parts(5)
    assert len(even[0]) == len(even[1])
    seen = [start for rank in even for batch in rank for start in batch.starts]
    assert set(seen) == set(dataset.starts.tolist())
    assert len(seen) == len(even[0]) * 10 > len(dataset)
    # A batch that is split is one batch of pgti.
    split = zip(*parts(10, split_batches=True), epoch_of(dataset, 10, 0), strict=True)
    for first, second, other in split:
        both = [*first.starts, *second.starts]
        assert both[: other.num_windows] == other.starts.tolist()
