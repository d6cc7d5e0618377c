"""Batches, filling, baselines and breakdowns on a fake GPU: nothing waits, nothing stays behind."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pgti.batching import BatchRequest, WindowSource, build_batcher
from pgti.batching.filling import fill_missing
from pgti.forecasting import HistoricalAverageForecaster, PersistenceForecaster
from pgti.forecasting.breakdowns import Breakdowns
from pgti.forecasting.metrics import ForecastMetrics
from pgti.graph import SensorGraph
from pgti.store import Scaler, SeriesStore, StoreWriter, TypicalReadings
from pgti.store.static_features import StaticFeatures
from pgti.windows import WindowSpec
from pgti_bench.fake_device import FakeGpu

NUM_STEPS, NUM_NODES = 90, 5
SPEC = WindowSpec(input_steps=4, horizon=3, history=(range(-30, -20), range(-9, 0)))


def source_with_gaps(path: Path, *, grid: bool = True, exact: bool = False) -> WindowSource:
    """Windows of a store with missing readings, everything that inputs may have among them."""
    generator = np.random.default_rng(3)
    values = generator.integers(0, 90, (NUM_STEPS, NUM_NODES, 2)) / (10 if grid else 3)
    values[generator.random(values.shape) < 0.2] = np.nan
    values += 40_000_000 * exact
    with StoreWriter(
        path,
        node_ids=tuple(map(str, range(NUM_NODES))),
        channels=("speed", "flow"),
        graph=SensorGraph.empty(NUM_NODES),
        exact=exact,
        known_future=("flow",),
        static=StaticFeatures(
            names=("lanes", "kind"),
            units=("", ""),
            values=np.array([[1.0, 0], [2, 1], [3, 0], [4, np.nan], [np.nan, 1]]),
            categories=((), ("ramp", "main")),
        ),
    ) as writer:
        writer.append(values)
        writer.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=3600)
    store = SeriesStore.open(path)
    return WindowSource(
        store=store,
        spec=SPEC,
        scaler=Scaler.fit(store, range(60)),
        target_indices=(0,),
        calendar=("time-of-day", "day-of-week"),
        typical=TypicalReadings.fit(store, range(60)),
        fill="last",
        observed_mask=True,
        climatology=True,
        known_indices=(1,),
        static=store.static_features,
    )


@pytest.mark.parametrize("batching", ["index", "device", "standard"])
@pytest.mark.parametrize("stride", [1, 7], ids=["shared rows", "windows apart"])
@pytest.mark.parametrize("grid", [True, False])
@pytest.mark.parametrize("exact", [False, True], ids=["compact", "exact"])
def test_batches_wait_for_nothing(
    tmp_path: Path, batching: str, stride: int, grid: bool, exact: bool
) -> None:
    """From the second batch on: the series, its calendar and buffers are where they belong."""
    source = source_with_gaps(tmp_path / "s", grid=grid, exact=exact)
    with FakeGpu() as gpu:
        batcher = build_batcher(batching, source, gpu.device)
        batcher.gather(stride * np.arange(8))
        scratch = batcher.new_scratch()
        with gpu.checked() as launches:  # as a loader does, which has more than one memory
            request = BatchRequest(starts=stride * np.arange(1, 9), scratch=scratch)
            batch = batcher.assemble(batcher.upload(batcher.fetch(request), scratch))
        assert len(batch.tensors) == 11
        assert {each.device for each in batch.tensors} == {gpu.device}
        assert launches.total >= 5


def test_filling_waits_for_nothing() -> None:
    with FakeGpu() as gpu:
        x = torch.empty(2, 4, 3, 1, device=gpu.device)
        typical = torch.empty(5, 3, 1, device=gpu.device)
        bins = torch.arange(4, device=gpu.device).expand(2, 4)
        with gpu.checked():
            fill_missing(x, x > 0.5, typical, bins)


@pytest.mark.parametrize("exact", [False, True], ids=["compact", "exact"])
def test_baselines_and_breakdowns_wait_for_nothing(tmp_path: Path, exact: bool) -> None:
    """Errors by sensor, hour, weekday and range, of forecasts that look up the time."""
    source = source_with_gaps(tmp_path / "s", exact=exact)
    store = source.store
    breakdowns = Breakdowns(
        node_ids=store.meta.node_ids,
        time_axis=store.time_axis,
        input_steps=SPEC.input_steps,
        channels=("speed",),
        units=("km/h",),
        edges=((2.0, 5.0),),
    )
    assert set(breakdowns.names) == {"sensor", "hour", "weekday", "hour-of-week", "range"}
    average = HistoricalAverageForecaster.fit(
        store, range(60), target_indices=(0,), input_steps=SPEC.input_steps, horizon=SPEC.horizon
    )
    with FakeGpu() as gpu:
        batch = build_batcher("device", source, gpu.device).gather(np.arange(8))
        assert batch.y is not None
        assert batch.y_mask is not None
        for forecaster in (average, PersistenceForecaster(source.scaler, (0,), SPEC.horizon)):
            forecaster.to(gpu.device)
            metrics = ForecastMetrics(SPEC.horizon, device=gpu.device, breakdowns=breakdowns)
            with torch.no_grad(), gpu.checked():
                groups = breakdowns.of_batch(batch.starts, batch.y)
                metrics.update(forecaster(batch), batch.y, batch.y_mask, groups)
            assert {each.device for each in metrics.all_sums} == {gpu.device}
