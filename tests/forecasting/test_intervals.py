"""Scores, split conformal calibration and adaptive intervals, each beside a direct computation."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoringrules
import torch

from pgti.batching import Batch, WindowSource
from pgti.errors import ConfigError
from pgti.forecasting import IntervalForecaster, NetworkForecaster, calibration, evaluate
from pgti.forecasting.calibration import Calibration, calibrate
from pgti.forecasting.forecaster import Prediction
from pgti.forecasting.intervals import STEP_SIZE
from pgti.forecasting.metrics import ForecastMetrics
from pgti.nn import Supports
from pgti.windows import subsample_evenly

from ..training.tiny_training import (
    NUM_NODES,
    SPEC,
    LinearNet,
    make_loader,
    make_series,
    make_source,
    make_store,
)

LEVELS = (0.5, 0.8)
QUANTILES = (0.1, 0.3, 0.5, 0.9)
VAL, TEST = range(100), range(104, 140)
H, L = SPEC.horizon, SPEC.input_steps


def source_of(tmp_path: Path, values: np.ndarray | None = None) -> WindowSource:
    values = make_series(150) if values is None else values
    tmp_path.mkdir(exist_ok=True)
    return make_source(make_store(tmp_path / "store", values))


def forecaster_of(
    source: WindowSource,
    quantiles: tuple[float, ...] = (),
    bounds: tuple[tuple[float, float], ...] = (),
) -> NetworkForecaster:
    torch.manual_seed(0)
    network = LinearNet(max(1, len(quantiles)))
    supports = Supports.from_graph(source.store.graph)
    forecaster = NetworkForecaster(
        network, supports, source.scaler, (0,), quantile_levels=quantiles, bounds=bounds
    )
    return forecaster.eval()


def batches_of(source: WindowSource, starts: range, size: int = 7) -> Iterator[Batch]:
    yield from make_loader(source, starts, size).epoch(0)


def calibrated(
    source: WindowSource, forecaster: NetworkForecaster, levels: tuple[float, ...] = LEVELS
) -> Calibration:
    return calibrate(forecaster, batches_of(source, VAL), levels)


def arrays_of(
    source: WindowSource, forecaster: NetworkForecaster, starts: range
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles (or the point) [S, H, N, Q] and targets, NaN where missing [S, H, N]."""
    quantiles, targets = [], []
    for batch in batches_of(source, starts):
        assert batch.y is not None
        assert batch.y_mask is not None
        with torch.no_grad():
            found = forecaster.predict(batch)
        values = found.point[..., None] if found.quantiles is None else found.quantiles
        quantiles.append(values[:, :, :, 0].numpy())
        targets.append(torch.where(batch.y_mask, batch.y, torch.nan)[..., 0].numpy())
    return np.concatenate(quantiles), np.concatenate(targets)


# -- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("quantiles", [(), QUANTILES])
@pytest.mark.parametrize("block_bytes", [1, 1 << 26])
def test_ends_are_order_statistics_of_the_residuals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantiles: tuple[float, ...],
    block_bytes: int,
) -> None:
    """Of rank ceil((n + 1) (1 - a)) in each tail, of each step and sensor, missing targets out."""
    monkeypatch.setattr(calibration, "_BLOCK_BYTES", block_bytes)
    source = source_of(tmp_path)
    forecaster = forecaster_of(source, quantiles)
    found = calibrated(source, forecaster)

    values, targets = arrays_of(source, forecaster, VAL)
    bases = {0.5: (1, 3), 0.8: (0, 3)} if quantiles else {0.5: (0, 0), 0.8: (0, 0)}
    for index, level in enumerate(LEVELS):
        for step in range(H):
            for node in range(NUM_NODES):
                residuals = targets[:, step, node, None] - values[:, step, node]
                residuals = residuals[~np.isnan(residuals[:, 0])]
                number = len(residuals)
                rank = int(np.ceil(round((number + 1) * (1 + level) / 2, 9)))
                assert 50 < number < 100
                assert found.counts[step, node, 0] == number
                low, high = bases[level]
                expected = -np.sort(-residuals[:, low])[rank - 1], np.sort(residuals[:, high])
                assert found.below[index, step, node, 0] == expected[0]
                assert found.above[index, step, node, 0] == expected[1][rank - 1]
    assert found.num_pooled == 0


def test_sensors_with_too_few_targets_take_those_of_all(tmp_path: Path) -> None:
    """At the same step; and where those are too few, a line says how many there must be."""
    values = make_series(150)
    values[:130, 1] = np.nan
    source = source_of(tmp_path, values)
    forecaster = forecaster_of(source)
    found = calibrated(source, forecaster)
    points, targets = arrays_of(source, forecaster, VAL)
    for step in range(H):
        pooled = np.sort((targets[:, step] - points[:, step, :, 0]).ravel())
        pooled = pooled[~np.isnan(pooled)]
        rank = int(np.ceil(round((len(pooled) + 1) * 0.9, 9)))
        assert found.counts[step, 1, 0] == 0
        assert found.above[1, step, 1, 0] == pooled[rank - 1]
        assert found.below[1, step, 1, 0] == pooled[-rank]
    assert found.num_pooled == H
    assert np.isfinite(found.spread).all()
    with pytest.raises(ConfigError, match=r"intervals of 0\.999 need 1999 observed targets"):
        calibrated(source, forecaster, (0.999,))


def test_the_spread_of_a_sensor_without_one(tmp_path: Path) -> None:
    """The mean of the other sensors, of its own target: adaptive ends could not move otherwise."""
    source = source_of(tmp_path)
    (batch,) = batches_of(source, VAL, len(VAL))
    noise = torch.randn(len(VAL), H, NUM_NODES, 2, generator=torch.Generator().manual_seed(0))
    targets = noise * torch.tensor([1.0, 1000.0])
    mask = torch.ones_like(targets, dtype=torch.bool)
    mask[:, :, 1, 0] = False  # the first target of a sensor is never there
    targets[:, :, 2, 1] = 0  # the second one of another is always as forecast

    class Zero:
        quantile_levels: tuple[float, ...] = ()

        def predict(self, batch: Batch) -> Prediction:
            return Prediction(torch.zeros_like(targets))

    zero: Any = Zero()
    found = calibrate(zero, [replace(batch, y=targets, y_mask=mask)], LEVELS)
    np.testing.assert_allclose(found.spread[:, 1, 0], found.spread[:, [0, 2], 0].mean(axis=1))
    np.testing.assert_allclose(found.spread[:, 2, 1], found.spread[:, :2, 1].mean(axis=1))


def test_memory_does_not_grow_with_the_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Residuals wait in a file: less is allocated than they are, however many windows there are."""
    monkeypatch.setattr(calibration, "_BLOCK_BYTES", 1 << 19)
    source = source_of(tmp_path)
    forecaster = forecaster_of(source)
    (batch,) = batches_of(source, VAL, len(VAL))
    peaks = []
    for repeats in (100, 400):
        tracemalloc.start()
        calibrate(forecaster, (batch for _ in range(repeats)), LEVELS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + (1 << 20) < 400 * 4 * len(VAL) * H * NUM_NODES


@pytest.mark.parametrize("adaptive", [False, True])
def test_intervals_cover_what_they_promise(tmp_path: Path, adaptive: bool) -> None:
    """Of exchangeable residuals the nominal share; of a level that has moved, if they adapt."""
    random = np.random.default_rng(3)
    values = (50 + random.normal(size=(2200, NUM_NODES, 1))).astype(np.float32)
    if adaptive:
        values[1100:] += 3 * np.sign(random.normal(size=(1100, NUM_NODES, 1)))
    source = source_of(tmp_path, values)
    forecaster = forecaster_of(source)
    found = calibrate(forecaster, batches_of(source, range(1000), 200), LEVELS)
    shares = {}
    for follows in (False, True):
        model = IntervalForecaster(forecaster, found, adaptive=follows)
        model.replay(batches_of(source, range(1100, 1500), 200))
        summary = evaluate({"model": model}, make_loader(source, range(1500, 2190), 200))
        table = summary["model"].summary()
        shares[follows] = np.array([table[f"coverage_{name}"]["mean"] for name in ("50", "80")])
    error = np.abs(shares[adaptive] - LEVELS).max()
    assert error < 0.02
    if adaptive:
        assert np.abs(shares[False] - LEVELS).max() > 0.1


def test_a_calibration_round_trips(tmp_path: Path) -> None:
    """Under its key and shape; anything else is none, whatever the file holds."""
    source = source_of(tmp_path)
    found = calibrated(source, forecaster_of(source))
    content, shape = found.to_bytes("key"), (H, NUM_NODES, 1)
    again = Calibration.from_bytes(content, "key", shape)
    assert again is not None
    assert again.levels == LEVELS
    for name in ("below", "above", "spread", "counts"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    np.testing.assert_array_equal(again.select((0.8,)).below, found.below[1:])
    assert Calibration.from_bytes(content, "other", shape) is None
    assert Calibration.from_bytes(content, "key", (H, 9, 1)) is None
    assert Calibration.from_bytes(content[:200], "key", shape) is None
    assert Calibration.from_bytes(b"", "key", shape) is None


@pytest.mark.parametrize("levels", [(), (0.0,), (1.0,), (0.8, 0.8), ("a",), 0.8, (np.nan,), (80,)])
def test_levels_that_cannot_be(levels: object) -> None:
    with pytest.raises(ConfigError, match="intervals are"):
        calibration.check_levels(levels)


# -- intervals ------------------------------------------------------------------------------------


def test_intervals_are_nested_and_bounded(tmp_path: Path) -> None:
    """Around the point forecast, each within the next, and none beyond the bounds."""
    source = source_of(tmp_path)
    forecaster = forecaster_of(source, QUANTILES, ((45.0, 52.0),))
    found = calibrated(source, forecaster)
    farther = np.array([9.0, 0.0], dtype=np.float32).reshape(2, 1, 1, 1)
    shifted = replace(found, below=found.below + 5, above=found.above + farther)
    for each in (found, shifted):
        model = IntervalForecaster(forecaster, each)
        for batch in batches_of(source, TEST):
            with torch.no_grad():
                point, quantiles, lower, upper = model.predict(batch)
            assert quantiles is not None
            assert lower is not None
            assert upper is not None
            assert torch.equal(point, forecaster(batch))
            assert (lower[..., 0] <= point).all()
            assert (upper[..., 0] >= point).all()
            assert (lower[..., 1] <= lower[..., 0]).all()
            assert (upper[..., 1] >= upper[..., 0]).all()
            assert lower.min() >= 45
            assert upper.max() <= 52


def adaptive_by_hand(
    points: np.ndarray, targets: np.ndarray, found: Calibration, starts: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Ends [S, H, N, I] by a loop over windows, steps, sensors, intervals and tails."""
    size = (len(starts), H, NUM_NODES, len(found.levels))
    lower, upper = np.empty(size), np.empty(size)
    for step in range(H):
        for node in range(NUM_NODES):
            for index, level in enumerate(found.levels):
                tail, stride = 0.5 - level / 2, STEP_SIZE * float(found.spread[step, node, 0])
                low = float(found.below[index, step, node, 0])
                high = float(found.above[index, step, node, 0])
                counted: set[int] = set()
                for window, start in enumerate(starts):
                    for other in range(window):
                        if other in counted or starts[other] + step + 1 > start:
                            continue
                        counted.add(other)
                        target = targets[other, step, node]
                        if np.isnan(target):
                            continue
                        is_high = target > upper[other, step, node, index]
                        is_low = target < lower[other, step, node, index]
                        high += stride * (is_high - tail)
                        low -= stride * (is_low - tail)
                    lower[window, step, node, index] = points[window, step, node, 0] + low
                    upper[window, step, node, index] = points[window, step, node, 0] + high
    return lower, upper


def reusing_memory(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, targets and masks in the same memory, as those of a large series have them."""
    memory: Batch | None = None
    for batch in batches:
        memory = batch.clone() if memory is None else memory
        for name in ("y", "y_mask"):
            place = getattr(memory, name)[: batch.num_windows]
            setattr(batch, name, place.copy_(getattr(batch, name)))
        yield batch


def ends_of(
    source: WindowSource, starts: range | np.ndarray, found: Calibration, size: int = 7
) -> tuple[np.ndarray, np.ndarray]:
    """Adaptive ends of the windows, [S, H, N, I]."""
    model = IntervalForecaster(forecaster_of(source), found, adaptive=True)
    ends: list[list[np.ndarray]] = [[], []]
    loader = make_loader(source, starts, size)  # type: ignore[arg-type]
    for batch in reusing_memory(loader.epoch(0)):
        with torch.no_grad():
            prediction = model.predict(batch)
        for place, each in enumerate((prediction.lower, prediction.upper)):
            assert each is not None
            ends[place].append(each[:, :, :, 0].numpy())
    return np.concatenate(ends[0]), np.concatenate(ends[1])


@pytest.mark.parametrize("sparse", [False, True])
def test_adaptive_ends_follow_what_is_known(tmp_path: Path, sparse: bool) -> None:
    """As a loop has them, of all windows or some, and whatever the size of a batch."""
    source = source_of(tmp_path)
    found = calibrated(source, forecaster_of(source))
    starts = subsample_evenly(TEST, 20) if sparse else TEST
    points, targets = arrays_of(source, forecaster_of(source), TEST)
    chosen = [start - TEST.start for start in np.asarray(starts).tolist()]
    by_hand = adaptive_by_hand(points[chosen], targets[chosen], found, np.asarray(starts).tolist())
    for size in (1, 7, 40):
        for ends, expected in zip(ends_of(source, starts, found, size), by_hand, strict=True):
            np.testing.assert_allclose(ends, expected, rtol=1e-5)
    assert np.ptp(by_hand[1] - points[chosen], axis=0).min() > 0  # they move


@pytest.mark.parametrize("row", [112, 125])
def test_no_interval_knows_a_later_outcome(tmp_path: Path, row: int) -> None:
    """Whatever is read from a row on, forecasts whose last input is before it are the same."""
    values = make_series(150)
    changed = values.copy()
    changed[row:] = np.where(np.isnan(changed[row:]), 47.0, changed[row:] + 30)
    source, other = source_of(tmp_path / "a", values), source_of(tmp_path / "b", changed)
    found = calibrated(source, forecaster_of(source))
    before = row - L - TEST.start + 1  # windows whose last input is before the row
    differ = False
    for one, two in zip(ends_of(source, TEST, found), ends_of(other, TEST, found), strict=True):
        np.testing.assert_array_equal(one[:before], two[:before])
        differ |= not np.array_equal(one[before:], two[before:])
    assert differ


def test_adaptive_windows_come_in_the_order_of_time(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    forecaster = forecaster_of(source)
    model = IntervalForecaster(forecaster, calibrated(source, forecaster), adaptive=True)
    (first, *_) = batches_of(source, TEST)
    model.predict(first)
    with pytest.raises(ConfigError, match="give the windows in its order"):
        model.predict(first)


# -- scores ---------------------------------------------------------------------------------------


def test_scores_are_those_of_scoringrules(tmp_path: Path) -> None:
    """CRPS of quantiles, weighted interval score, pinball losses, coverage and width, by step."""
    source = source_of(tmp_path)
    levels = (0.025, 0.1, 0.5, 0.9, 0.975)
    forecaster = forecaster_of(source, levels)
    table = evaluate({"model": forecaster}, make_loader(source, TEST, 7))["model"].summary()

    quantiles, targets = arrays_of(source, forecaster, TEST)
    for name, steps in [("1", slice(0, 1)), ("3", slice(2, 3)), ("mean", slice(None))]:
        values, truth = quantiles[:, steps].astype(np.float64), targets[:, steps]
        values, truth = values[~np.isnan(truth)], truth[~np.isnan(truth)].astype(np.float64)
        crps = scoringrules.crps_quantile(truth, values, np.array(levels)).mean()
        # scoringrules 0.10 without numba takes the median for its error in the weighted score, so
        # that is put together here from its interval scores (Bracher et al. 2021, equation 3).
        wis = 0.5 * np.abs(truth - values[:, 2])
        for low, high, alpha in ((1, 3, 0.2), (0, 4, 0.05)):
            score = scoringrules.interval_score(truth, values[:, low], values[:, high], alpha)
            wis += alpha / 2 * score
        wis = wis.mean() / 2.5
        assert table["crps"][name] == pytest.approx(crps, rel=1e-12)
        assert table["crps"][name] == pytest.approx(wis, rel=1e-12)
        for place, level in enumerate(levels):
            pinball = scoringrules.quantile_score(truth, values[:, place], level).mean()
            assert table[f"pinball_{level:g}"][name] == pytest.approx(pinball, rel=1e-12)
        for low, high, coverage in ((1, 3, "80"), (0, 4, "95")):
            inside = (values[:, low] <= truth) & (truth <= values[:, high])
            assert table[f"coverage_{coverage}"][name] == pytest.approx(inside.mean(), rel=1e-12)
            width = (values[:, high] - values[:, low]).mean()
            assert table[f"width_{coverage}"][name] == pytest.approx(width, rel=1e-12)
    assert table["mae"]["mean"] == pytest.approx(2 * table["pinball_0.5"]["mean"], rel=1e-12)


def test_scores_of_parts_add_up() -> None:
    """As sums over ranks do; an unobserved target counts nowhere, whatever it is."""
    generator = torch.Generator().manual_seed(1)
    quantiles = torch.randn(6, 2, 3, 1, 3, generator=generator).sort().values
    target = torch.randn(6, 2, 3, 1, generator=generator)
    mask = torch.rand(6, 2, 3, 1, generator=generator) < 0.6
    target = torch.where(mask, target, 1e30)

    def metrics(rows: slice) -> ForecastMetrics:
        each = ForecastMetrics(2, levels=(0.2, 0.5, 0.8))
        each.update(quantiles[rows, ..., 1], target[rows], mask[rows], quantiles=quantiles[rows])
        return each

    whole, parts = metrics(slice(6)), metrics(slice(2))
    parts.sums += metrics(slice(2, 6)).sums
    torch.testing.assert_close(parts.sums, whole.sums, rtol=1e-14, atol=0)
    assert whole.summary()["crps"]["mean"] < 10
