"""Windows for anybody's loop: datasets, samples, samplers and batches to look at."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import pgti
from pgti.batching import (
    Batch,
    Batcher,
    WindowConfig,
    WindowDataset,
    WindowSample,
    WindowSampler,
    WindowSource,
    build_batcher,
    build_loader,
)
from pgti.batching.loader import empty_batch
from pgti.errors import ConfigError, DataError, StoreError
from pgti.forecasting import NetworkForecaster
from pgti.models import build_model
from pgti.store import Scaler, SeriesStore, TypicalReadings
from pgti.windows import BlockShuffle, GlobalShuffle, PartitionShuffle, Sequential, WindowSpec

from .sources import CPU, assert_same, make_source, standard

SPEC = WindowSpec(input_steps=5, horizon=3)
OPTIONS: dict[str, Any] = {
    "input_steps": 5,
    "horizon": 3,
    "targets": ("b", "a"),
    "calendar": ("time-of-day", "day-of-week"),
    "climatology": True,
}
NUM_STEPS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    path = tmp_path_factory.mktemp("store") / "s"
    return make_source(path, (NUM_STEPS, 3, 2), SPEC, missing=0.2).store


def source_of(store: SeriesStore) -> tuple[WindowSource, dict[str, range]]:
    """What `from_store` should build, from its parts, and its splits."""
    splits = pgti.WindowConfig(input_steps=5, horizon=3).splits(store)
    rows = splits.train_rows(SPEC)
    source = WindowSource(
        store=store,
        spec=SPEC,
        scaler=Scaler.fit(store, rows),
        target_indices=(1, 0),
        calendar=("time-of-day", "day-of-week"),
        typical=TypicalReadings.fit(store, rows),
        fill="last",
        climatology=True,
    )
    return source, {"train": splits.train, "val": splits.val, "test": splits.test}


def assert_same_batches(loader: DataLoader[Any], expected: Any) -> None:
    """Bit for bit the same batches, and as many."""
    for batch, other in zip_longest(loader, expected):
        assert_same(batch, other)


@pytest.mark.parametrize(
    ("workers", "context"), [(0, None), (2, "fork"), (2, "spawn")], ids=["0", "fork", "spawn"]
)
def test_a_dataloader_gives_the_batches_of_build_loader(
    store: SeriesStore, workers: int, context: str | None
) -> None:
    """In time order and in every order of pgti, epoch by epoch."""
    source, splits = source_of(store)
    dataset = WindowDataset.from_store(store.path, **OPTIONS)
    sampler = WindowSampler(dataset, GlobalShuffle(3))
    options: dict[str, Any] = {
        "batch_size": 9,
        "num_workers": workers,
        "multiprocessing_context": context,
        "persistent_workers": workers > 0,
    }
    loader = DataLoader(dataset, sampler=sampler, collate_fn=WindowDataset.collate, **options)
    for epoch in (0, 2):
        sampler.set_epoch(epoch)
        ours = build_loader(source, splits["train"], 9, GlobalShuffle(3))
        assert_same_batches(loader, ours.epoch(epoch))
    if context == "spawn":
        return
    for split in ("train", "val", "test"):
        part = WindowDataset.from_store(store, split, **OPTIONS)  # type: ignore[arg-type]
        in_time = DataLoader(part, collate_fn=part.collate, **options)
        assert_same_batches(in_time, build_loader(source, splits[split], 9).epoch(0))


def test_torch_s_own_shuffle_and_collation_work(store: SeriesStore) -> None:
    """Each window once, under the names of a sample."""
    dataset = WindowDataset.from_store(store, **OPTIONS)
    oracle = standard(source_of(store)[0])
    seen: list[int] = []
    for sample in DataLoader(dataset, batch_size=9, shuffle=True):
        assert isinstance(sample, WindowSample)
        starts = torch.as_tensor(sample.start).numpy()
        expected = oracle.gather(starts)
        for name in ("x", "x_mask", "y", "y_mask", "calendar"):
            assert torch.equal(getattr(sample, name), getattr(expected, name)), name
        seen.extend(starts)
    assert sorted(seen) == dataset.starts.tolist()
    assert seen != dataset.starts.tolist()


def test_a_sample_is_named_and_is_a_window(store: SeriesStore) -> None:
    dataset = WindowDataset.from_store(store, "test", **OPTIONS)
    sample = dataset[-1]
    assert sample._fields == ("x", "x_mask", "y", "y_mask", "calendar", "start")
    assert sample.start == dataset.starts[-1] == NUM_STEPS - SPEC.span
    expected = standard(source_of(store)[0]).gather(np.array([sample.start]))
    assert_same(WindowDataset.collate([sample]), expected)
    assert sum(1 for _ in dataset) == len(dataset)  # type: ignore[misc, attr-defined]
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_the_splits_share_statistics_of_training_rows(store: SeriesStore) -> None:
    source, splits = source_of(store)
    assert source.typical is not None
    for split, starts in splits.items():
        part = WindowDataset.from_store(store, split, **OPTIONS)  # type: ignore[arg-type]
        assert part.starts.tolist() == list(starts)
        assert part.scaler == source.scaler
        assert part.source.typical is not None
        assert np.array_equal(part.source.typical.table, source.typical.table)


def test_options_are_those_of_a_run(store: SeriesStore) -> None:
    """Dates, gaps, strides, and the calendar that suits the series."""
    options: dict[str, Any] = {
        "input_steps": 4,
        "horizon": 2,
        "stride": 3,
        "val_from": "2025-10-01T05:00",
        "test_from": "2025-10-01T08:00",
        "gap": 5,
    }
    splits = WindowConfig(**options).splits(store)
    for split in ("train", "val", "test"):
        part = WindowDataset.from_store(store, split, **options)  # type: ignore[arg-type]
        assert part.starts.tolist() == list(splits.starts(split))  # type: ignore[arg-type]
        assert part.source.calendar == ("time-of-day",)
        assert part.source.target_indices == (0, 1)
        assert not part.source.climatology
    halves = {"fractions": (0.5, 0.0, 0.5)}
    assert len(WindowDataset.from_store(store, **halves)) == round(0.5 * (NUM_STEPS - 23))


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("train", {"input_step": 3}, r"input_step is not an option of windows; did you mean 'inp"),
        ("train", {"horizon": "3"}, "horizon is '3': it must be a whole number"),
        ("validation", {}, "no split 'validation': it is one of train, val, test"),
        ("test", {"fractions": (0.8, 0.2, 0.0)}, "the split test of .* has no window: give it"),
        ("train", {"val_from": "2025-10-01T05:00"}, "a split by dates needs both"),
        ("train", {"calendar": ("month",)}, "no calendar feature 'month'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    store: SeriesStore, split: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        WindowDataset.from_store(store, split, **options)
    assert "\n" not in str(refusal.value)


def test_a_channel_or_a_store_that_is_not_there_is_named(
    store: SeriesStore, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no channel 'flow': the store has a, b"):
        WindowDataset.from_store(store, targets=("flow",))
    with pytest.raises(StoreError, match="nowhere"):
        WindowDataset.from_store(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="store is a ndarray: it must be a store or"):
        WindowDataset.from_store(np.zeros((5, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("targets", [("b",), ("b", "a")])
def test_a_network_and_its_unscaling_need_nothing_else(
    store: SeriesStore, targets: tuple[str, ...]
) -> None:
    """Sizes, operators and units of the dataset give the forecasts of a run's forecaster."""
    dataset = WindowDataset.from_store(store, **OPTIONS | {"targets": targets})
    network = build_model("dcrnn", {"hidden": 4, "layers": 1}, dataset.shape)
    batch = next(iter(DataLoader(dataset, batch_size=4, collate_fn=dataset.collate)))
    assert dataset.graph is dataset.store.graph
    supports = dataset.supports(network.support_kind)
    forecast = dataset.unscale(network(batch.x, supports))
    assert forecast.shape == batch.y.shape
    indices = dataset.source.target_indices
    forecaster = NetworkForecaster(network, supports, dataset.scaler, indices)
    assert torch.equal(forecast, forecaster(batch))
    assert (
        dataset.unscale(torch.zeros(1, len(targets), dtype=torch.bfloat16)).dtype == torch.float32
    )


def test_one_batcher_serves_all_calls_of_a_thread(
    store: SeriesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples outlive later calls, pickling and forks, though a batcher reuses its buffers."""
    made = []

    def counted(*arguments: Any, **options: Any) -> Batcher[Any]:
        made.append(os.getpid())
        return build_batcher(*arguments, **options | {"budget_bytes": 0})

    monkeypatch.setattr("pgti.batching.dataset.build_batcher", counted)
    dataset = WindowDataset.from_store(store, fill="mean")
    assert made == []
    first = dataset.__getitems__([0, 1])
    copies = [[torch.as_tensor(value).clone() for value in sample] for sample in first]
    dataset.__getitems__([20, 21])
    assert len(made) == 1
    for sample, copy in zip(first, copies, strict=True):
        assert all(map(torch.equal, map(torch.as_tensor, sample), copy))
    assert len(pickle.dumps(dataset)) < 10_000
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[1].x, first[1].x)
    loader = DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(next(iter(loader)).x[1], first[1].x)


def test_workers_decode_no_more_than_their_batches(store: SeriesStore) -> None:
    """This process caches the decoded rows of a small series; many workers would each."""
    dataset = WindowDataset.from_store(store)

    def strategy(samples: list[WindowSample]) -> str:
        del samples
        return type(dataset._own.batcher).__name__

    kinds = [
        next(iter(DataLoader(dataset, num_workers=workers, collate_fn=strategy)))
        for workers in (0, 1, 0)  # the worker inherits the batcher of this process
    ]
    assert kinds == ["DecodedBatcher", "WindowBatcher", "DecodedBatcher"]


def test_threads_have_their_own_buffers(store: SeriesStore) -> None:
    dataset = WindowDataset.from_store(store, **OPTIONS)
    whole = standard(source_of(store)[0]).gather(dataset.starts)

    def check(index: int) -> None:
        for sample in (dataset[index], *dataset.__getitems__([index, index])):
            assert torch.equal(sample.x, whole.x[index])
            assert torch.equal(sample.y, whole.y[index])  # type: ignore[index]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(check, list(range(len(dataset))) * 3))


# -- samplers -------------------------------------------------------------------------------------

ORDERS = (Sequential(), GlobalShuffle(3), BlockShuffle(3, 4), PartitionShuffle(3, 4, 2, 0.25))


@pytest.mark.parametrize("order", ORDERS, ids=repr)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_batches_of_all_ranks_are_one_batch(
    store: SeriesStore, order: Any, world_size: int
) -> None:
    """At each step, in each epoch, the windows of `build_loader` with the global batch size."""
    source, splits = source_of(store)
    dataset = WindowDataset.from_store(store, **OPTIONS)
    for even in (True, False):
        loaders = []
        for rank in range(world_size):
            sampler = WindowSampler(dataset, order, rank=rank, world_size=world_size, even=even)
            sampler.set_epoch(1)
            assert len(sampler) == len(list(sampler))
            loaders.append(DataLoader(dataset, 4, sampler=sampler, collate_fn=dataset.collate))
        expected = list(build_loader(source, splits["train"], 4 * world_size, order).epoch(1))
        repeated = -len(dataset) % world_size if even else 0
        for step, (together, batches) in enumerate(
            zip(expected, zip_longest(*loaders), strict=True)
        ):
            starts = [start for batch in batches if batch is not None for start in batch.starts]
            wanted = together.starts.tolist()
            if step == len(expected) - 1:
                wanted += expected[0].starts[:repeated].tolist()
            assert sorted(starts) == sorted(wanted)
        sizes = {len(loader.sampler) for loader in loaders}  # type: ignore[arg-type]
        assert len(sizes) == 1 or not even


def test_more_ranks_than_windows(store: SeriesStore) -> None:
    """Ranks that train together all have a window, and evaluation gives each window once."""
    few = WindowDataset(source_of(store)[0], range(2))
    for even, expected in ((True, [[0], [1], [0], [1], [0]]), (False, [[0], [1], [], [], []])):
        ranks = [
            list(WindowSampler(few, Sequential(), rank=rank, world_size=5, even=even))
            for rank in range(5)
        ]
        assert ranks == expected


def test_a_rank_that_there_is_not_is_refused(store: SeriesStore) -> None:
    dataset = WindowDataset.from_store(store)
    for rank, world_size in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match=r"is (2|-1|0)"):
            WindowSampler(dataset, Sequential(), rank=rank, world_size=world_size)


# -- display and devices --------------------------------------------------------------------------


def batch_of(store: SeriesStore, size: int = 4) -> Batch:
    source, splits = source_of(store)
    return next(build_loader(source, splits["train"], size, GlobalShuffle(1)).epoch(0))


def test_a_batch_shows_shapes_types_and_the_share_observed(store: SeriesStore) -> None:
    batch = batch_of(store)
    first, last = batch.starts[0], batch.starts[-1]
    assert batch.y is not None
    assert batch.y_mask is not None
    share, of_targets = (mask.double().mean().item() for mask in (batch.x_mask, batch.y_mask))
    assert 0.5 < share < 1
    assert repr(batch).splitlines() == [
        f"Batch of 4 windows on cpu, starts {first} to {last}",
        "  x         float32 [4, 5, 3, 8]",
        f"  x_mask    bool [4, 5, 3, 2], {share:.1%} observed",
        "  y         float32 [4, 3, 3, 2]",
        f"  y_mask    bool [4, 3, 3, 2], {of_targets:.1%} observed",
        "  calendar  float32 [4, 8, 2]",
    ]
    html = batch._repr_html_()
    assert html.count("<tr>") == 5
    assert f"starts {first} to {last}" in html
    assert "[4, 5, 3, 8]" in html


def test_a_large_batch_a_batch_elsewhere_and_an_empty_one_are_as_short(store: SeriesStore) -> None:
    """What is on another device is not read: a host would wait for it."""
    batch = batch_of(store, 60)
    elsewhere = batch.to("meta", non_blocking=True)
    assert elsewhere.x.device.type == elsewhere.calendar.device.type == "meta"
    assert elsewhere.to("meta") is elsewhere
    assert batch.to("cpu") is batch
    assert "on meta" in repr(elsewhere)
    assert "observed" not in repr(elsewhere) + elsewhere._repr_html_()
    source, _ = source_of(store)
    beyond = build_loader(source, range(NUM_STEPS - 5, NUM_STEPS - 4), 1, with_targets=False)
    assert "1 window without targets" in repr(next(beyond.epoch(0)))
    assert repr(empty_batch(source, CPU)).startswith("Batch of 0 windows on cpu\n")
    for each in (batch, elsewhere, empty_batch(source, CPU)):
        assert len(repr(each).splitlines()) <= 12
        assert len(repr(each)) < 400


def test_a_clone_outlives_the_next_batch(store: SeriesStore) -> None:
    source, splits = source_of(store)
    batcher = build_batcher("index", source, CPU, budget_bytes=0, prefetch_depth=1)
    batches = build_loader(source, splits["train"], 8, batcher=batcher).epoch(0)
    batch = next(batches)
    clone, before = batch.clone(), batch.x.clone()
    next(batches)
    assert torch.equal(clone.x, before)
    assert not torch.equal(batch.x, before)  # the buffer of the next batch
    addresses = {getattr(each, f.name).data_ptr() for each in (batch, clone) for f in fields(batch)
                 if isinstance(getattr(each, f.name), torch.Tensor)}  # fmt: skip
    assert len(addresses) == 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_move_to_a_gpu(store: SeriesStore) -> None:
    dataset = WindowDataset.from_store(store, **OPTIONS)
    loader = DataLoader(dataset, batch_size=9, pin_memory=True, collate_fn=dataset.collate)
    source, splits = source_of(store)
    for batch, expected in zip(
        loader, build_loader(source, splits["train"], 9).epoch(0), strict=True
    ):
        assert batch.x.is_pinned()
        moved = batch.to("cuda", non_blocking=True)
        assert moved.x.device.type == moved.calendar.device.type == "cuda"
        assert_same(moved.to("cpu"), expected)


def test_a_dataset_shows_its_windows_in_a_few_lines(store: SeriesStore) -> None:
    assert repr(WindowDataset.from_store(store, "val", **OPTIONS)).splitlines() == [
        "WindowDataset of 11 windows",
        "  window   5 + 3 steps",
        "  inputs   8 channels of 3 sensors",
        "  targets  b, a",
        f"  store    {store.path}",
    ]
