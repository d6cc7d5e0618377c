"""`get_index_dataset` by default: right statistics, masks, splits, orders and ranks."""

import pickle
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pgti
from pgti.errors import ConfigError, DataError
from pgti.interop.pgt import get_index_dataset
from pgti.interop.pgt.data.standardize import LazySeries, exact_about_zero
from pgti.windows import WindowSpec, split_by_fractions

from .data_files import (
    NODES,
    STEPS,
    WRITERS,
    assert_same,
    batches,
    make_store,
    matrix,
    speeds,
    times_of_day,
    write_metr_la,
)

TRAFFIC = ("METR-LA", "PEMS-BAY", "PeMS", "PeMS-All-LA")


def taken(loader: Any) -> list[int]:
    """Starts of the windows that a loader gives in its next epoch, in order."""
    return loader.dataset.indices[list(loader.sampler)].tolist()


# Statistics


@pytest.mark.parametrize("name", TRAFFIC)
def test_statistics_are_those_of_the_observed_training_inputs(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    train, _, _, edges, weights, means, stds = get_index_dataset(name, data_dir=tmp_path)
    rows = speeds()[: round((STEPS - 23) * 0.7) + 11]
    assert means.tolist()[1] == 0
    assert stds.tolist()[1] == 1
    assert means[0].item() == pytest.approx(rows[rows != 0].mean(), rel=1e-4)
    assert stds[0].item() == pytest.approx(rows[rows != 0].std(), rel=1e-3)
    assert edges.dtype == torch.int64
    assert edges.tolist() == [list(place) for place in np.nonzero(matrix())]
    assert weights.tolist() == matrix()[np.nonzero(matrix())].tolist()
    x, y = next(iter(train))
    assert x.dtype == y.dtype == torch.float32
    assert x.shape == y.shape == (round((STEPS - 23) * 0.7), 12, NODES, 2)
    readings = y * stds + means
    for place in (0, 3):
        wanted = speeds()[place + 12 : place + 24]
        np.testing.assert_allclose(readings[place, ..., 0], wanted, rtol=1e-6, atol=1e-5)
        hours = times_of_day()[place : place + 12].astype(np.float32)
        np.testing.assert_array_equal(x[place, ..., 1], np.tile(hours[:, None], NODES))


@pytest.mark.parametrize("name", [*TRAFFIC, "WindmillLarge"])
@pytest.mark.parametrize("lazy", [False, True])
def test_no_statistic_sees_a_validation_or_test_reading(
    name: str, lazy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means, deviations and training batches stay when later targets change, and only then."""
    from pgti.interop.pgt.data.sources import ArraySource, NpySource, TableSource  # noqa: PLC0415

    WRITERS[name](tmp_path)
    changed_from = STEPS

    def spoiled(read: Any) -> Any:
        def reading(self: Any, rows: np.ndarray) -> np.ndarray:
            values = read(self, rows)
            values[rows >= changed_from, :, 0] *= 3
            return values

        return reading

    for kind in (ArraySource, NpySource, TableSource):
        monkeypatch.setattr(kind, "read", spoiled(kind.read))

    def get_loaders() -> tuple[Any, ...]:
        return get_index_dataset(name, 6, 8, data_dir=tmp_path, dask_batching=lazy)

    before = get_loaders()
    num_train = len(before[0].dataset)
    changed_from = num_train + 5  # the first row that no training window takes in
    after = get_loaders()
    last = before[0].dataset.indices[-1]
    for one, other in zip(before[5:], after[5:], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(batches(before[0]), batches(after[0]), strict=True):
        assert torch.equal(one[0], other[0])
    changed_from = last + 5
    assert not torch.equal(get_loaders()[5], before[5])


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6)), min_size=1, max_size=20))
def test_a_missing_reading_comes_back_as_zero(pairs: list[tuple[float, float]]) -> None:
    """In float32, in float64, and with the product unrounded, as a fused multiply-add has it."""
    mean, std = exact_about_zero(*np.array(pairs).T)
    assert mean.dtype == std.dtype == np.float32
    z = (np.float32(0) - mean) / std
    for dtype in (np.float32, np.float64, np.longdouble):
        back = z.astype(dtype) * std.astype(dtype) + mean.astype(dtype)
        assert (back == 0).all()
    exact_mean, exact_std = np.array(pairs).T
    np.testing.assert_allclose(std, exact_std, rtol=2**-10)
    assert (np.abs(mean - exact_mean) <= 2**-13 * np.abs(exact_mean) + 2**-60 * exact_std).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_missing_readings_of_a_data_set(lazy: bool, tmp_path: Path) -> None:
    """PGT's masked losses find them, a mask says which they are, and the clock is no target."""
    write_metr_la(tmp_path)
    given: dict[str, Any] = {"batch_size": 100, "data_dir": tmp_path, "dask_batching": lazy}
    train, val, test, *_, means, stds = get_index_dataset("METR-LA", masks=True, **given)
    missing = 0
    for loader in (train, val, test):
        _, y, mask = next(iter(loader))
        assert torch.equal((y * stds + means)[..., 0] == 0, ~mask[..., 0])
        assert not mask[..., 1].any()
        missing += int((~mask[..., 0]).sum())
    assert missing > 12
    x, y = next(iter(get_index_dataset("METR-LA", fill="mean", **given)[0]))
    assert (x[0, 2, 0, 0], y[20, 0, 1, 0], y[20, 0, 0, 0]) == (0, 0, pytest.approx(0.1, abs=3))
    assert y[20, 0, 0, 0] != 0


def test_windmills_are_standardised_one_by_one(tmp_path: Path) -> None:
    """And the statistics fit the batches: PGT's [N] would be spread over another axis."""
    WRITERS["WindmillLarge"](tmp_path)
    train, *_, edges, weights, means, stds = get_index_dataset("WindmillLarge", data_dir=tmp_path)
    x, y = next(iter(train))
    assert means.shape == stds.shape == (NODES, 1)
    assert (x * stds + means).shape == x.shape
    rows = (x * stds + means)[:, 0]
    assert (rows[5:9, 3] == 0).all()
    inputs = torch.cat((x[:, 0], x[-1, 1:]))
    torch.testing.assert_close(inputs.mean(0), torch.zeros(NODES, 1), rtol=0, atol=1e-3)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(NODES, 1), rtol=2e-3, atol=0)
    assert edges.T.tolist() == [[0, 0], [0, 1], [1, 0], [2, 2], [2, 4], [3, 1]]
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.7, 0.3, 1.0, 0.125, 0.5]))
    assert y.shape == x.shape


def test_chickenpox_is_left_as_it_is(tmp_path: Path) -> None:
    WRITERS["Chickenpox"](tmp_path)
    made = get_index_dataset("Chickenpox", data_dir=tmp_path)
    compatible = get_index_dataset("Chickenpox", data_dir=tmp_path, pgt_compat=True)
    assert len(made) == 5
    x, _ = next(iter(made[0]))
    assert x.shape == (4, 4, NODES, 1)
    assert torch.equal(x, next(iter(compatible[0]))[0].float())


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_lazy_series_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    """And holds nothing: what reads a series whole is not called."""
    WRITERS[name](tmp_path)
    given: dict[str, Any] = {"lags": 7, "horizon": 3, "shuffle": True, "data_dir": tmp_path}
    held = get_index_dataset(name, **given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgti.interop.pgt.data.standardize.check_room", None)
        lazy = get_index_dataset(name, dask_batching=True, **given)
        data = lazy[0].dataset.data
        assert isinstance(data, LazySeries)
        assert_same(lazy, held)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[3:9], data[3:9])
    if name in TRAFFIC:  # JSON cannot be read by rows
        assert len(pickle.dumps(data)) < 3000


@pytest.mark.parametrize("lazy", [False, True])
def test_an_array_in_fortran_order_gives_the_same_bits(lazy: bool, tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    found = []
    for _ in range(2):
        loader = get_index_dataset("METR-LA", 3, 4, data_dir=tmp_path, dask_batching=lazy)[0]
        found.append(next(iter(loader)))
        values = np.load(tmp_path / "node_values.npy")
        np.save(tmp_path / "node_values.npy", np.asfortranarray(values))
    assert all(map(torch.equal, *found))


def test_loaders_with_workers(tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    given: dict[str, Any] = {"shuffle": True, "batch_size": 9, "data_dir": tmp_path}
    here = get_index_dataset("METR-LA", **given)[0]
    torch.manual_seed(1)
    there = get_index_dataset("METR-LA", dask_batching=True, num_workers=1, **given)[0]
    there.multiprocessing_context = "fork"
    for one, other in zip(batches(here), batches(there), strict=True):
        assert torch.equal(one[0], other[0])
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1)), "a loader has drawn from torch's generator"


# Stores


@pytest.mark.parametrize("lazy", [False, True])
def test_any_store(lazy: bool, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", channels=2)
    for source in (store, store.path, str(store.path)):
        train, _, test, edges, _, means, stds = get_index_dataset(
            source, lags=6, horizon=2, batch_size=1000, dask_batching=lazy, masks=True
        )
        x, y, mask = next(iter(train))
        rows = range(len(train.dataset) + 5)
        scaler = pgti.Scaler.fit(store, rows)
        np.testing.assert_allclose(means, [*scaler.mean, 0], rtol=1e-4)
        np.testing.assert_allclose(stds, [*scaler.std, 1], rtol=1e-3)
        assert x.shape[1:] == (6, NODES, 3)
        assert y.shape[1:] == (2, NODES, 3)
        wanted = store.read(29, 31)
        readings = (y[23] * stds + means).numpy()
        np.testing.assert_allclose(readings[..., :2], np.nan_to_num(wanted), rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(mask[23, ..., :2], ~np.isnan(wanted))
        np.testing.assert_allclose(readings[:, 0, 2], times_of_day()[29:31], rtol=1e-6)
        np.testing.assert_array_equal(edges, store.graph.edge_index)
        assert test.dataset.indices[-1] == STEPS - 8


# Splits, order and ranks


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("ratio", [(0.8, 0.2, 0.0), (0.99, 0.005, 0.005), (0.7, 0.1, 0.2)])
def test_splits(ratio: tuple[float, float, float], compat: bool, tmp_path: Path) -> None:
    """A test share of nothing is no window, where PGT makes every window one."""
    write_metr_la(tmp_path)
    loaders = get_index_dataset(
        "METR-LA", ratio=ratio, data_dir=tmp_path, pgt_compat=compat, shuffle=True
    )
    expected = split_by_fractions(STEPS, WindowSpec(), ratio)
    for loader, name in zip(loaders[:3], ("train", "val", "test"), strict=True):
        assert loader.dataset.indices.tolist() == list(getattr(expected, name))
        assert sum(len(x) for x, _ in loader) == len(getattr(expected, name))


def test_training_is_shuffled_by_seed_and_epoch_and_nothing_else_is(tmp_path: Path) -> None:
    write_metr_la(tmp_path)

    def get_loaders(seed: int, shuffle: bool = True) -> Any:
        return get_index_dataset("METR-LA", 4, 5, shuffle, seed=seed, data_dir=tmp_path)

    train, val, test, *_ = get_loaders(seed=1)
    first, second = taken(train), taken(train)
    assert first != second
    assert sorted(first) == sorted(second) == train.dataset.indices.tolist() != first
    for loader in (val, test):
        assert taken(loader) == loader.dataset.indices.tolist() == taken(loader)
    again = get_loaders(seed=1)[0]
    assert (taken(again), taken(again)) == (first, second)
    again.sampler.set_epoch(0)
    assert taken(again) == first
    assert taken(get_loaders(seed=2)[0]) != first
    in_time = get_loaders(seed=1, shuffle=False)[0]
    assert taken(in_time) == in_time.dataset.indices.tolist() == taken(in_time)
    x, _ = next(iter(get_loaders(seed=1)[0]))
    expected = get_loaders(seed=1)[0].dataset
    assert torch.equal(x[2], expected[first[2]][0])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_train_evenly(world_size: int, shuffle: bool, tmp_path: Path) -> None:
    """Equal steps of equal batches, no window twice, and global batches whatever the ranks."""
    write_metr_la(tmp_path)

    def get_loaders(rank: int, size: int) -> Any:
        return get_index_dataset(
            "METR-LA", 4, 12 // size, shuffle, world_size=size, ddp_rank=rank, data_dir=tmp_path
        )[0]

    alone = get_loaders(0, 1)
    ranks = [get_loaders(rank, world_size) for rank in range(world_size)]
    for epoch in (0, 5):
        for loader in (alone, *ranks):
            loader.sampler.set_epoch(epoch)
        everything = [taken(loader) for loader in ranks]
        assert len({len(mine) for mine in everything}) == 1
        assert len({len(loader) for loader in ranks}) == 1
        together = list(chain(*everything))
        assert len(set(together)) == len(together) == len(alone.dataset) // world_size * world_size
        if world_size > 1:
            assert everything == [taken(loader) for loader in ranks], "the epoch is what was set"
        alone.sampler.set_epoch(epoch)
        order, size = taken(alone), 12 // world_size
        for step in range(len(together) // 12):
            batch = chain(*(mine[step * size : (step + 1) * size] for mine in everything))
            assert sorted(batch) == sorted(order[step * 12 : (step + 1) * 12])


@pytest.mark.parametrize("world_size", [2, 3, 7, 20])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_evaluate_every_window_once(world_size: int, shuffle: bool, tmp_path: Path) -> None:
    """Without padding, in time order, also where there are more ranks than windows."""
    write_metr_la(tmp_path)
    per_rank = [
        get_index_dataset(
            "METR-LA", 4, 3, shuffle, world_size=world_size, ddp_rank=rank, data_dir=tmp_path
        )
        for rank in range(world_size)
    ]
    for split in (1, 2):
        windows = [taken(loaders[split]) for loaders in per_rank]
        assert list(chain(*windows)) == per_rank[0][split].dataset.indices.tolist()
        counted = sum(len(x) for loaders in per_rank for x, _ in loaders[split])
        assert counted == len(per_rank[0][split].dataset)
        assert all(later >= earlier for mine in windows for earlier, later in pairwise(mine))


# Whole numbers


def test_whole_numbers_of_numpy_are_whole_numbers(tmp_path: Path) -> None:
    """Such as those that were read from an array."""
    write_metr_la(tmp_path)
    numbers = {"lags": 4, "batch_size": 5, "horizon": 3, "seed": 2, "num_workers": 0}
    numbers |= {"world_size": 2, "ddp_rank": 1, "allGPU": -1}
    of_numpy = {name: np.int64(number) for name, number in numbers.items()}
    plain = get_index_dataset("METR-LA", shuffle=True, data_dir=tmp_path, **numbers)
    assert_same(get_index_dataset("METR-LA", shuffle=True, data_dir=tmp_path, **of_numpy), plain)


@pytest.mark.parametrize(
    "argument", ["lags", "batch_size", "horizon", "seed", "num_workers", "allGPU", "world_size"]
)
@pytest.mark.parametrize("value", [True, False, 1.5, -2, "3"])
def test_what_is_no_whole_number_is_refused(argument: str, value: Any, tmp_path: Path) -> None:
    """True and False too: allGPU=False is not the first GPU."""
    write_metr_la(tmp_path)
    with pytest.raises(ConfigError, match=f"^{argument} is {value!r}: it must be a whole number"):
        get_index_dataset("METR-LA", data_dir=tmp_path, **{argument: value})


# On a device


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    write_metr_la(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="allGPU is 0 and this machine has no usable GPU"):
        get_index_dataset("METR-LA", allGPU=0, data_dir=tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match="allGPU is 2 and this machine has 2 GPUs"):
        get_index_dataset("METR-LA", allGPU=2, data_dir=tmp_path)


@pytest.mark.parametrize("name", ["METR-LA", "WindmillLarge", "Chickenpox"])
def test_a_resident_tensor_gives_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the path of a GPU, with the CPU in its place."""
    WRITERS[name](tmp_path)
    held = get_index_dataset(name, data_dir=tmp_path, shuffle=True)
    monkeypatch.setattr("pgti.interop.pgt.data.options.cuda_device", lambda _: torch.device("cpu"))
    resident = get_index_dataset(name, allGPU=1, data_dir=tmp_path, shuffle=True)
    assert isinstance(resident[0].dataset.data, torch.Tensor)
    assert resident[0].dataset.gpu
    assert_same(resident, held)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_bits(tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    held = get_index_dataset("METR-LA", data_dir=tmp_path)
    resident = get_index_dataset("METR-LA", allGPU=0, data_dir=tmp_path)
    for one, other in zip(batches(held[0]), batches(resident[0]), strict=True):
        assert other[0].device == torch.device("cuda", 0)
        assert torch.equal(one[0], other[0].cpu())


def test_windows_of_a_store_reach_across_no_missing_rows(tmp_path: Path) -> None:
    """Where a store was ingested with `gaps="keep"`; PGT's own windows know no times."""
    index = pd.date_range("2024-01-01", periods=200, freq="1h").delete(range(60, 90))
    frame = pd.DataFrame({"a": np.arange(170.0), "b": 1.5}, index=index)
    store = pgti.ingest(frame, tmp_path / "store", gaps="keep")
    loaders = get_index_dataset(store, lags=4, batch_size=8)[:3]
    used = sorted(chain.from_iterable(loader.dataset.indices.tolist() for loader in loaders))
    assert used == [start for start in range(170 - 7) if not 52 < start < 60]
    as_pgt = get_index_dataset(store, lags=4, batch_size=8, pgt_compat=True)[:3]
    assert sum(len(loader.dataset) for loader in as_pgt) == 170 - 7


def test_exact_stores_are_refused(tmp_path: Path) -> None:
    """Batches in float32 would lose what such a store has."""
    values = 40_000_001 + np.arange(60.0).reshape(20, 3)
    clock = {"start": "2025-10-01", "interval": "1h"}
    pgti.ingest(values, tmp_path / "s", exact=True, **clock)
    with pytest.raises(DataError, match=r"is an exact store.*without exact=True"):
        get_index_dataset(str(tmp_path / "s"))
