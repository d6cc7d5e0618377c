"""What batches have beside the past: known values of the horizon, features of the sensors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pgti.batching import Batcher, WindowConfig, WindowDataset, WindowSource, build_loader
from pgti.batching.loader import empty_batch
from pgti.batching.static_inputs import StaticInputs
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.store import Scaler, SeriesStore, StoreWriter
from pgti.store.static_features import StaticFeatures
from pgti.windows import WindowSpec

from .sources import (
    CPU,
    ENCODINGS,
    START,
    assert_same,
    decoded,
    make_source,
    resident,
    resident_on_a_gpu,
    standard,
    stored,
    stored_on_a_gpu,
)

SPEC = WindowSpec(input_steps=5, horizon=3)
STATIC = StaticFeatures(
    names=("kind", "lanes", "surface"),
    units=("", "", ""),
    values=np.array([[0, 2, np.nan], [np.nan, 4, 1], [1, np.nan, 0]], dtype=np.float64),
    categories=(("ramp", "main"), (), ("concrete", "tar")),
)
BATCHERS = [decoded, stored, stored_on_a_gpu, resident, resident_on_a_gpu]


def filled(source: WindowSource, start: int) -> np.ndarray:
    """Known values of a window's horizon, by loops: standardised, missing ones fading."""
    store, spec, typical = source.store, source.spec, source.typical
    steps, known = store.meta.num_steps, list(source.known_indices)
    values = np.concatenate([store.read(0, steps)[..., known], store.future])
    mean, std = (np.array(each)[known] for each in (source.scaler.mean, source.scaler.std))
    offsets = source.offsets
    shift = 0 if offsets is None else offsets[:, known]
    scaled = (values - shift - mean) / std
    result = np.zeros((spec.horizon, *values.shape[1:]))
    for node in range(values.shape[1]):
        for channel in range(len(known)):
            distance = 0.0
            for row in range(start, start + spec.span):
                usual = 0.0
                if typical is not None and source.fill == "last":
                    entry = typical.bins(store.time_axis, np.array([row]))[0]
                    usual = typical.table[entry, node, known[channel]]
                    usual = usual - np.broadcast_to(shift, scaled.shape[1:])[node, channel]
                    usual = (usual - mean[channel]) / std[channel]
                value = scaled[row, node, channel] if row < len(scaled) else np.nan
                distance = distance * 0.9 if np.isnan(value) else value - usual
                if row >= start + spec.input_steps:
                    result[row - start - spec.input_steps, node, channel] = (
                        (usual + distance if source.fill == "last" else 0.0)
                        if np.isnan(value)
                        else value
                    )
    return result


@pytest.mark.parametrize("fill", ["last", "mean"])
@pytest.mark.parametrize(("grid", "exact"), ENCODINGS)
@pytest.mark.parametrize("make", BATCHERS)
def test_known_values_are_those_of_loops(
    tmp_path: Path,
    make: Callable[[WindowSource], Batcher[Any]],
    grid: bool,
    exact: bool,
    fill: Any,
) -> None:
    """Inside the series, across its end and past it; four rows are known after the last."""
    source = make_source(
        tmp_path / "s", (60, 3, 3), SPEC, grid=grid, exact=exact, known=(2, 1), fill=fill
    )
    batcher = make(source)
    for starts, with_targets in (
        ([7, 20, 52], True),
        ([7, 8, 9, 10], True),
        ([7, 20, 53, 54, 55], False),
    ):
        batch = batcher.gather(np.array(starts), with_targets=with_targets)
        assert batch.future is not None
        assert batch.future_mask is not None
        assert batch.future.shape == (len(starts), 3, 3, 2)
        for start, future, known in zip(starts, batch.future, batch.future_mask, strict=True):
            np.testing.assert_allclose(future.numpy(), filled(source, start), rtol=2e-5, atol=2e-5)
            rows = np.concatenate([source.store.read(0, 60)[..., [2, 1]], source.store.future])
            np.testing.assert_array_equal(known, ~np.isnan(rows[start + 5 : start + 8]))


@pytest.mark.parametrize("make", BATCHERS[1:])
def test_windows_past_the_end_have_the_same_bits(
    tmp_path: Path, make: Callable[[WindowSource], Batcher[Any]]
) -> None:
    source = make_source(tmp_path / "s", (60, 3, 3), SPEC, known=(1,))
    for starts in ([53], [54, 55], [3, 4, 5, 55]):
        expected = decoded(source).gather(np.array(starts), with_targets=False)
        assert_same(make(source).gather(np.array(starts), with_targets=False), expected)


def test_a_window_with_and_without_targets_has_the_same_known_values(tmp_path: Path) -> None:
    source = make_source(tmp_path / "s", (60, 3, 3), SPEC, known=(1,))
    for make in BATCHERS:
        with_targets, without = (
            make(source).gather(np.array([3, 30]), with_targets=each) for each in (True, False)
        )
        assert with_targets.future is not None
        assert without.future is not None
        assert torch.equal(with_targets.future, without.future)


def rewritten(source: WindowSource, path: Path, values: np.ndarray) -> WindowSource:
    meta = source.store.meta
    with StoreWriter(
        path,
        node_ids=meta.node_ids,
        channels=meta.channels,
        graph=source.store.graph,
        known_future=meta.known_future,
    ) as writer:
        writer.append(values)
        writer.finish(start=START, interval_seconds=300)
    return replace(source, store=SeriesStore.open(path))


def test_nothing_else_is_seen_of_the_steps_to_forecast(tmp_path: Path) -> None:
    """Other values in the horizon change the targets; only known ones are inputs."""
    source = make_source(tmp_path / "s", (60, 3, 3), SPEC, missing=0, known=(2,), climatology=True)
    values = source.store.read(0, 60)
    others, known = values.copy(), values.copy()
    others[25:28, :, :2] += 5
    known[25:28, :, 2] += 5
    one = stored(source).gather(np.array([20])).clone()
    two = stored(rewritten(source, tmp_path / "t", others)).gather(np.array([20])).clone()
    three = stored(rewritten(source, tmp_path / "u", known)).gather(np.array([20])).clone()
    assert not torch.equal(one.y, two.y)  # type: ignore[arg-type]
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.future, two.future)  # type: ignore[arg-type]
    assert torch.equal(one.x, three.x)
    assert torch.equal(one.y, three.y)  # type: ignore[arg-type]
    assert (one.future != three.future).all()


@pytest.mark.parametrize("make", [standard, *BATCHERS])
def test_features_of_the_sensors_are_the_same_in_every_batch(
    tmp_path: Path, make: Callable[[WindowSource], Batcher[Any]]
) -> None:
    """Numbers are standardised, categories are one number each, and codes."""
    source = make_source(tmp_path / "s", (60, 3, 1), SPEC, static=STATIC)
    batcher = make(source)
    one, two = (batcher.gather(np.array([start])) for start in (3, 9))
    assert one.static is not None
    assert one.static_codes is not None
    assert one.static is two.static
    np.testing.assert_array_equal(one.static, [[-1, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(one.static_codes, [[1, 0], [0, 2], [2, 1]])
    inputs = source.static_inputs(CPU)
    assert inputs is not None
    assert inputs.names == (
        "lanes",
        "kind=ramp",
        "kind=main",
        "surface=concrete",
        "surface=tar",
    )
    shape = source.shape
    assert (shape.static_channels, shape.static_categories) == (5, (2, 2))
    assert empty_batch(source, CPU).static is not None


@pytest.mark.parametrize("value", [0.1, 12.7, 1e9 + 0.1])
def test_a_feature_that_is_the_same_everywhere_is_0(value: float) -> None:
    """Its rounded mean is no deviation, and a sensor whose value is missing has the same."""
    values = np.full((7, 1), value)
    values[2] = np.nan
    features = StaticFeatures(names=("a",), units=("",), values=values, categories=((),))
    assert (StaticInputs.of_features(features, Scaler(mean=(), std=())).values == 0).all()


def test_a_series_without_them_has_none(tmp_path: Path) -> None:
    source = make_source(tmp_path / "s", (60, 3, 1), SPEC)
    for make in (standard, *BATCHERS):
        batch = make(source).gather(np.array([3]))
        assert batch.future is None
        assert batch.future_mask is None
        assert batch.static is None
        assert batch.static_codes is None
        assert len(batch.tensors) == 5


def covariate_store(path: Path) -> SeriesStore:
    generator = np.random.default_rng(1)
    with StoreWriter(
        path,
        node_ids=("a", "b", "c"),
        channels=("flow", "rain", "speed"),
        graph=SensorGraph.empty(3),
        known_future=("rain",),
        static=STATIC,
    ) as writer:
        writer.append(generator.normal(size=(80, 3, 3)))
        writer.finish(start=START, interval_seconds=300)
    return SeriesStore.open(path)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_other_loaders_give_the_batches_of_the_own(tmp_path: Path, num_workers: int) -> None:
    store = covariate_store(tmp_path / "s")
    dataset = WindowDataset.from_store(store, input_steps=5, horizon=3)
    loader = DataLoader(
        dataset, batch_size=16, collate_fn=WindowDataset.collate, num_workers=num_workers
    )
    own = build_loader(dataset.source, dataset.starts, 16).epoch(0)
    for batch, expected in zip(loader, own, strict=True):
        assert_same(batch, expected)
        assert batch.future.shape[1:] == (3, 3, 1)
    sample = dataset[4]
    assert sample._fields[6:] == ("future", "future_mask", "static", "static_codes")
    plain = make_source(tmp_path / "plain", (60, 3, 1), SPEC, static=STATIC)
    batch = WindowDataset.collate([WindowDataset(plain, range(4))[1]])
    assert batch.future is None
    assert batch.static is not None


def test_channels_known_in_advance_are_no_targets(tmp_path: Path) -> None:
    store = covariate_store(tmp_path / "s")
    source = WindowSource.from_config(store, WindowConfig(input_steps=5, horizon=3))
    assert source.target_names == ("flow", "speed")
    assert source.known_indices == (1,)
    assert source.shape.future_channels == 1
    seen = WindowConfig(input_steps=5, horizon=3, inputs=("flow",))
    assert WindowSource.from_config(store, seen).known_indices == ()
    with pytest.raises(ConfigError, match=r"rain is known in advance in .*: it is an input"):
        WindowConfig(input_steps=5, horizon=3, targets=("rain",)).target_indices(store)
    with pytest.raises(ConfigError, match=r"inputs are rain: all known in advance in .*; name"):
        WindowConfig(inputs=("rain",)).target_indices(store)


def test_holidays_and_months_are_the_same_in_every_strategy(tmp_path: Path) -> None:
    """October 13 is a holiday in the US; rows past the end have features, too."""
    calendar = ("time-of-day", "holiday:US", "month-of-year", "day-of-year")
    source = make_source(tmp_path / "s", (4000, 2, 1), SPEC, missing=0, calendar=calendar)
    starts = np.array([3449, 3450, 3451, 3460, 3992])
    batches = [make(source).gather(starts) for make in (standard, *BATCHERS)]
    for batch in batches[1:]:
        assert_same(batch, batches[0])
    rows = starts[:, None] + np.arange(SPEC.span)
    days = source.store.time_axis.at(rows).astype("datetime64[D]")
    is_holiday = days == np.datetime64("2025-10-13")
    np.testing.assert_array_equal(batches[0].calendar[..., 1], is_holiday)
    assert 0 < is_holiday.sum() < is_holiday.size
    np.testing.assert_array_equal(batches[0].x[:, :, 1, 2], is_holiday[:, :5])


def test_holidays_follow_the_calendar(tmp_path: Path) -> None:
    store = make_source(tmp_path / "s", (400, 2, 1), SPEC).store
    shape = {"input_steps": 5, "horizon": 3}
    windows = WindowConfig(**shape, holidays=("US", "DE-BY"))  # type: ignore[arg-type]
    source = WindowSource.from_config(store, windows)
    assert source.calendar == ("time-of-day", "holiday:US", "holiday:DE-BY")
    resolved = replace(windows, calendar=source.calendar)
    assert WindowSource.from_config(store, resolved).calendar == source.calendar
    with pytest.raises(ConfigError, match="'ZZ' is not the code of a country"):
        WindowSource.from_config(store, replace(windows, holidays=("ZZ",)))
