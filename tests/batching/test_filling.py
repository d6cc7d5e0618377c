"""What stands for a missing reading, against a plain loop over every reading of every window."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pgti
from pgti.batching import Batcher, WindowSource
from pgti.batching.filling import fill_missing
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.store import SeriesStore, StoreWriter, TypicalReadings
from pgti.windows import WindowSpec

from .sources import (
    assert_same,
    decoded,
    indexed,
    make_source,
    resident,
    resident_on_a_gpu,
    standard,
    stored,
    stored_on_a_gpu,
)

SPEC = WindowSpec(input_steps=4, horizon=3)
NUM_STEPS = 60
ABSENT: tuple[Any, ...] = (
    np.s_[10:30, 1],  # a sensor
    np.s_[20:40, 0, 1],  # a channel of one sensor
    np.s_[41:48],  # everything
    np.s_[50:, 2, 0],  # a sensor whose last rows have not arrived
)
PATHS = [standard, indexed, decoded, stored, stored_on_a_gpu, resident, resident_on_a_gpu]
MakeBatcher = Callable[[WindowSource], Batcher[Any]]


def expected_readings(source: WindowSource, start: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Standardised readings of a window [L, N, C], filled one by one, and their mask."""
    assert source.typical is not None
    num_steps = source.spec.input_steps
    values = source.store.read(start, start + num_steps)
    filled = np.empty_like(values)
    mean, std = (np.float32(each) for each in (source.scaler.mean, source.scaler.std))
    for step, sensor, channel in np.ndindex(*values.shape):

        def scaled(value: np.float32, channel: int = channel) -> np.float32:
            return np.float32((value - mean[channel]) / std[channel])

        # Five-minute rows from a Wednesday, 00:00.
        usual = source.typical.table[start : start + num_steps, sensor, channel]
        past = step
        while past >= 0 and np.isnan(values[past, sensor, channel]):
            past -= 1
        distance = np.float32(0)
        if past >= 0:
            distance = scaled(values[past, sensor, channel]) - scaled(usual[past])
            for _ in range(step - past):
                distance *= np.float32(0.9)
        is_observed = past == step
        filled[step, sensor, channel] = (
            scaled(values[step, sensor, channel]) if is_observed else scaled(usual[step]) + distance
        )
    return filled, ~np.isnan(values)


@pytest.mark.parametrize("grid", [True, False], ids=["int16", "float32"])
@pytest.mark.parametrize(
    ("targets", "climatology", "calendar", "observed_mask"),
    [
        ((0, 1), False, (), False),
        ((1,), True, ("time-of-day", "day-of-week"), False),
        ((1, 0), False, ("time-of-day",), True),
        ((0,), True, ("time-of-day",), True),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_filled_inputs_are_those_of_a_plain_loop(
    tmp_path: Path,
    path: MakeBatcher,
    targets: tuple[int, ...],
    climatology: bool,
    calendar: tuple[str, ...],
    observed_mask: bool,
    grid: bool,
) -> None:
    """Bit for bit; all but the inputs is as in windows that are not filled."""
    source = make_source(
        tmp_path / "s",
        (NUM_STEPS, 3, 2),
        SPEC,
        grid=grid,
        missing=0.3,
        targets=targets,
        calendar=calendar,
        climatology=climatology,
        observed_mask=observed_mask,
        absent=ABSENT,
    )
    batcher, unfilled = path(source), standard(replace(source, fill="mean"))
    never_observed = 0
    for starts in (np.array([3, 25]), np.arange(NUM_STEPS - SPEC.span + 1)):
        batch, other = batcher.gather(starts), unfilled.gather(starts)
        for position, start in enumerate(starts):
            readings, mask = expected_readings(source, int(start))
            assert batch.x[position, ..., :2].contiguous().numpy().tobytes() == readings.tobytes()
            np.testing.assert_array_equal(batch.x_mask[position], mask)
            never_observed += not mask.any()
            if observed_mask:
                np.testing.assert_array_equal(batch.x[position, ..., 2:4], mask)
        batch.x[..., :2] = other.x[..., :2]
        assert_same(batch, other)
    assert never_observed


@pytest.mark.parametrize("path", PATHS[1:])
def test_the_newest_windows_are_filled(tmp_path: Path, path: MakeBatcher) -> None:
    """Those whose horizon lies past the end, alone and together."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 3, 2), SPEC, missing=0.3, absent=ABSENT)
    batcher, last = path(source), NUM_STEPS - SPEC.input_steps
    for starts in (np.array([last]), np.array([5, last]), np.arange(last - 9, last + 1)):
        batch = batcher.gather(starts, with_targets=False)
        for position, start in enumerate(starts):
            readings, _ = expected_readings(source, int(start))
            assert batch.x[position, ..., :2].contiguous().numpy().tobytes() == readings.tobytes()


@pytest.mark.parametrize("observed_mask", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_a_complete_series_is_left_as_it_is(
    tmp_path: Path,
    path: MakeBatcher,
    observed_mask: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is filled, and its mask is all ones."""
    source = make_source(
        tmp_path / "s", (NUM_STEPS, 3, 2), SPEC, missing=0.0, observed_mask=observed_mask
    )
    assert source.typical is None
    monkeypatch.delattr("pgti.batching.filling.fill_missing")
    starts = np.arange(20)
    batch = path(source).gather(starts)
    assert_same(batch, standard(replace(source, fill="mean")).gather(starts))
    assert batch.x.shape[-1] == source.num_input_channels == 4 + 2 * observed_mask
    if observed_mask:
        assert (batch.x[..., 2:4] == 1).all()


def test_the_rule_on_tensors() -> None:
    """A distance from what is typical fades by a tenth at each step; without one, it is typical."""
    x = torch.tensor([[9.0, 8.0], [9.0, 9.0], [2.0, 9.0], [9.0, 3.0]]).view(1, 4, 1, 2)
    mask = x != 9
    typical = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]).view(2, 1, 2)
    fill_missing(x, mask, typical, torch.tensor([[0, 1, 0, 1]]))
    expected = torch.tensor([-1, 8, -3, -4 + 9, 2, -2 + 8.1, -3 + 2.7, 3])
    torch.testing.assert_close(x.flatten(), expected)


def test_filling_needs_typical_readings(tmp_path: Path) -> None:
    """Windows built by hand say where these come from."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 3, 2), SPEC, missing=0.3)
    with pytest.raises(ConfigError, match=r"pass typical=TypicalReadings.fit\(store, rows\)"):
        replace(source, typical=None)
    assert replace(source, typical=None, fill="mean").typical is None


def hourly_store(path: Path, values: NDArray[np.float64]) -> SeriesStore:
    with StoreWriter(
        path, node_ids=("a", "b"), channels=("flow",), graph=SensorGraph.empty(2)
    ) as writer:
        writer.append(values[..., None])
        writer.finish(start=np.datetime64("2025-10-06T00:00"), interval_seconds=3600)
    return SeriesStore.open(path)


def test_validation_and_test_readings_change_no_training_input(tmp_path: Path) -> None:
    """A value planted after the training rows reaches no statistic and no filling."""
    values = np.random.default_rng(0).integers(0, 90, (400, 2)) / 10
    values[50:60, 1] = np.nan
    splits = pgti.WindowConfig().splits(hourly_store(tmp_path / "clean", values))
    planted = values.copy()
    first = splits.train_rows(pgti.WindowConfig().spec).stop
    planted[first:] = 9e9
    sources = [
        pgti.WindowDataset.from_store(hourly_store(tmp_path / name, each)).source
        for name, each in (("a", values), ("b", planted))
    ]
    contents = [source.typical.to_bytes() for source in sources if source.typical is not None]
    assert len(contents) == 2
    assert contents[0] == contents[1]
    assert sources[0].scaler == sources[1].scaler
    starts = np.asarray(splits.train)[: first - 24]
    assert_same(*(indexed(source).gather(starts) for source in sources))


def test_a_zone_and_a_dataset(tmp_path: Path) -> None:
    """Typical times are those of the wall clock; a dataset has the inputs of training."""
    values = np.tile(np.arange(24.0), 30)[:, None] * np.array([1.0, 10.0])
    values[600:640, 0] = np.nan
    path = tmp_path / "s"
    with StoreWriter(
        path,
        node_ids=("a", "b"),
        channels=("flow",),
        graph=SensorGraph.empty(2),
        time_zone="Europe/Rome",
    ) as writer:
        writer.append(values[..., None])
        # Midnight in Rome, before the clocks go back.
        writer.finish(start=np.datetime64("2025-10-05T22:00"), interval_seconds=3600)
    dataset = pgti.WindowDataset.from_store(path, "test", fractions=(0.6, 0.1, 0.3))
    position = dataset.starts.tolist().index(610)
    sample, source = dataset[position], dataset.source
    assert not sample.x_mask[:, 0].any()
    readings = sample.x[..., 0] * source.scaler.std[0] + source.scaler.mean[0]
    hours = np.arange(610, 622) % 24 - 1  # after 2025-10-26
    expected = np.where(hours < 0, 23, hours)
    np.testing.assert_allclose(readings[:, 0], expected, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_cuda_fills_the_same_bits(tmp_path: Path) -> None:
    """Rows on the host or on the GPU; nothing waits for the GPU while it fills."""
    source = make_source(
        tmp_path / "s",
        (NUM_STEPS, 3, 2),
        SPEC,
        missing=0.3,
        climatology=True,
        observed_mask=True,
        absent=ABSENT,
    )
    starts, device = np.arange(20), torch.device("cuda")
    expected = standard(source).gather(starts)
    for name in ("index", "device", "standard"):
        batcher = pgti.batching.build_batcher(name, source, device)
        assert_same(batcher.gather(starts).to("cpu"), expected)
    x, typical = torch.rand(2, 4, 3, 1, device=device), torch.rand(5, 3, 1, device=device)
    mask, bins = x > 0.5, torch.arange(4, device=device).expand(2, 4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        fill_missing(x, mask, typical, bins)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_typical_readings_of_another_series_fit(tmp_path: Path) -> None:
    """A window of newer readings is filled with what was typical in training."""
    values = np.tile(np.arange(24.0), 20)[:, None] * np.array([1.0, 10.0])
    store = hourly_store(tmp_path / "old", values)
    typical = TypicalReadings.fit(store, range(300))
    newer = values[:24].copy()
    newer[:, 1] = np.nan
    source = pgti.WindowDataset.from_store(store).source
    filled = replace(source, store=hourly_store(tmp_path / "new", newer), typical=typical)
    batch = indexed(filled).gather(np.array([12]), with_targets=False)
    readings = batch.x[0, ..., 0] * source.scaler.std[0] + source.scaler.mean[0]
    np.testing.assert_allclose(readings[:, 1], 10 * np.arange(12, 24), atol=1e-3)
