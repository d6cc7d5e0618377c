"""What turns batches into forecasts in original units."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pgti.batching import Batch
from pgti.errors import ConfigError, DataError
from pgti.forecasting import HistoricalAverageForecaster, NetworkForecaster, PersistenceForecaster
from pgti.models import AbstractModel, ModelConfig, TeacherForcing
from pgti.nn import Supports
from pgti.store import Scaler, SeriesStore

from ..training.tiny_training import (
    SHAPE,
    SPEC,
    LinearNet,
    make_loader,
    make_series,
    make_source,
    make_store,
)


def first_batch(store: SeriesStore, target_indices: tuple[int, ...] = (0,)) -> Batch:
    """Six windows from the beginning."""
    source = make_source(store, target_indices)
    return next(iter(make_loader(source, range(6), 6).epoch(0)))


class Spy(AbstractModel):
    """Keeps the teacher it is shown and forecasts zero."""

    def __init__(self) -> None:
        super().__init__(ModelConfig(), SHAPE)
        self.shown: list[TeacherForcing | None] = []

    def forward(
        self, x: Tensor, supports: Supports, teacher: TeacherForcing | None = None
    ) -> Tensor:
        """Zeros, [B, H, N, 1]."""
        self.shown.append(teacher)
        return torch.zeros(len(x), SPEC.horizon, x.shape[2], 1)


def network_forecaster(store: SeriesStore, network: torch.nn.Module) -> NetworkForecaster:
    """The network between standardised and original units."""
    scaler = Scaler.fit(store, range(60))
    return NetworkForecaster(network, Supports.from_graph(store.graph), scaler, (0,), seed=11)


# -- networks -------------------------------------------------------------------------------------


def test_a_network_is_unscaled(tmp_path: Path) -> None:
    """A standardised zero is the mean of the training readings."""
    store = make_store(tmp_path / "store", make_series())
    forecaster = network_forecaster(store, Spy())

    forecast = forecaster(first_batch(store))

    mean = float(np.nanmean(make_series()[:60].astype(np.float64)))
    assert forecast.shape == (6, SPEC.horizon, 3, 1)
    assert float(forecast[0, 0, 0, 0]) == pytest.approx(mean, rel=1e-6)


def test_low_precision_is_unscaled_in_float32(tmp_path: Path) -> None:
    """A bfloat16 network's forecasts are float32, with the mean's full precision."""
    store = make_store(tmp_path / "store", make_series())
    forecaster = network_forecaster(store, LinearNet())
    batch = first_batch(store)
    exact = forecaster(batch)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower = forecaster(batch)

    assert lower.dtype == torch.float32
    assert not torch.equal(lower, exact)
    # bfloat16 has 8 bits: un-scaling around 50 in it would be wrong by about 0.1.
    torch.testing.assert_close(lower, exact, rtol=0, atol=0.1)


def test_the_teacher_comes_in_training_only(tmp_path: Path) -> None:
    """It has the standardised targets, 0 where missing, the step and the seed."""
    store = make_store(tmp_path / "store", make_series())
    forecaster = network_forecaster(store, Spy())
    batch = first_batch(store)

    forecaster(batch)
    forecaster(batch, step=5)

    nothing, teacher = forecaster.network.shown
    assert nothing is None
    assert (teacher.step, teacher.seed) == (5, 11)
    assert batch.y is not None
    assert batch.y_mask is not None
    mean, std = forecaster.scaler.mean[0], forecaster.scaler.std[0]
    expected = np.where(batch.y_mask, (batch.y.numpy() - mean) / std, 0.0)
    np.testing.assert_allclose(teacher.targets_BHNC, expected, atol=1e-5)
    assert not batch.y_mask.all()


def test_a_plain_module_is_never_shown_a_teacher(tmp_path: Path) -> None:
    """Its signature is (x, supports), in training too."""
    store = make_store(tmp_path / "store", make_series())

    forecast = network_forecaster(store, LinearNet())(first_batch(store), step=5)

    assert forecast.shape == (6, SPEC.horizon, 3, 1)


class Pair(torch.nn.Module):
    """Returns two tensors, as recurrent layers do."""

    def forward(self, x: Tensor, supports: Supports) -> tuple[Tensor, Tensor]:
        """The input, twice."""
        return x, x


def test_a_network_that_returns_no_tensor_is_an_error(tmp_path: Path) -> None:
    """The message has the type."""
    store = make_store(tmp_path / "store", make_series())

    with pytest.raises(ConfigError, match="returned a tuple: it must return one tensor"):
        network_forecaster(store, Pair())(first_batch(store))


@pytest.mark.parametrize("targets", [(), (1,), (-1,)])
def test_targets_that_do_not_exist_are_refused(targets: tuple[int, ...]) -> None:
    """The series has one channel."""
    with pytest.raises(ConfigError, match="target channel"):
        PersistenceForecaster(Scaler(mean=(0.0,), std=(1.0,)), targets, 3)


# -- persistence ----------------------------------------------------------------------------------


def test_persistence_repeats_the_last_observed_reading(tmp_path: Path) -> None:
    """An earlier one where the last is missing, the mean where all are; of the target channel."""
    values = np.arange(90 * 3 * 2, dtype=np.float32).reshape(90, 3, 2)
    values[3, 0, 1] = np.nan
    values[2:4, 1, 1] = np.nan
    values[0:4, 2, 1] = np.nan
    store = make_store(tmp_path / "store", values)
    source = make_source(store, (1,))
    batch = next(iter(make_loader(source, range(1), 1).epoch(0)))

    forecast = PersistenceForecaster(source.scaler, (1,), SPEC.horizon)(batch)

    expected = [values[2, 0, 1], values[1, 1, 1], source.scaler.mean[1]]
    assert forecast.shape == (1, SPEC.horizon, 3, 1)
    for step in range(SPEC.horizon):
        assert forecast[0, step, :, 0].tolist() == pytest.approx(expected, rel=1e-5)


# -- historical average ---------------------------------------------------------------------------


def fitted(store: SeriesStore, rows: range) -> HistoricalAverageForecaster:
    """The averages of the rows."""
    return HistoricalAverageForecaster.fit(
        store,
        rows,
        target_indices=(0,),
        input_steps=SPEC.input_steps,
        horizon=SPEC.horizon,
    )


def test_the_average_is_that_of_the_same_hour_of_the_week(tmp_path: Path) -> None:
    """Compared with a plain computation over three weeks of hourly readings."""
    values = make_series(3 * 168 + 20)
    store = make_store(tmp_path / "store", values)
    forecaster = fitted(store, range(3 * 168))
    source = make_source(store)
    batch = next(iter(make_loader(source, range(3 * 168), 3 * 168).epoch(0)))

    forecast = forecaster(batch).numpy()

    for start in (0, 5, 500):
        for step in range(SPEC.horizon):
            row = start + SPEC.input_steps + step
            same = values[: 3 * 168].astype(np.float64)[row % 168 :: 168, :, 0]
            for node in range(3):
                observed = same[~np.isnan(same[:, node]), node]
                if len(observed):
                    assert forecast[start, step, node, 0] == pytest.approx(
                        observed.mean(), rel=1e-6
                    )


def test_only_the_training_rows_matter(tmp_path: Path) -> None:
    """Later readings may change at will."""
    values = make_series(400)
    other = values.copy()
    other[300:] = 1.0
    one = fitted(make_store(tmp_path / "one", values), range(300))
    two = fitted(make_store(tmp_path / "two", other), range(300))

    assert torch.equal(one.table, two.table)


def test_what_was_never_observed_is_filled_by_wider_averages(tmp_path: Path) -> None:
    """Slot of the week, then slot of the day, then the sensor, then the channel."""
    values = np.full((336, 3, 1), 10.0, dtype=np.float32)
    values[5::24, 0] = 20.0  # 05:00 on every day, sensor 0
    values[5, 0] = values[173, 0] = np.nan  # but on the first day of either week unobserved
    values[6::24, 1] = np.nan  # 06:00 never observed at sensor 1
    values[:, 1][~np.isnan(values[:, 1])] = 30.0
    values[:, 2] = np.nan  # sensor 2 never observed
    store = make_store(tmp_path / "store", values)
    table = fitted(store, range(336)).table[..., 0]
    # Row 0 is Wednesday 00:00, so that row r lies in slot r + 48 of the week.
    slot_of_row_5, slot_of_row_6 = 53, 54

    assert table[slot_of_row_5, 0] == pytest.approx(20.0)
    assert table[slot_of_row_6, 0] == pytest.approx(10.0)
    assert table[slot_of_row_6, 1] == pytest.approx(30.0)
    everything = values[~np.isnan(values)].astype(np.float64).mean()
    assert table[:, 2].tolist() == pytest.approx([everything] * 168, rel=1e-6)


def test_without_times_the_average_is_the_sensors(tmp_path: Path) -> None:
    """There is one slot."""
    values = make_series()
    store = make_store(tmp_path / "store", values, dated=False)

    table = fitted(store, range(60)).table

    expected = np.nanmean(values[:60].astype(np.float64), axis=0)
    assert table.shape == (1, 3, 1)
    np.testing.assert_allclose(table[0], expected, rtol=1e-6)


def test_a_fine_series_shares_slots(tmp_path: Path) -> None:
    """At one reading per minute, five of them are averaged."""
    values = make_series(40)
    store = make_store(tmp_path / "store", values, interval_seconds=60)

    table = fitted(store, range(40)).table

    assert table.shape == (2016, 3, 1)
    expected = np.nanmean(values[5:10].astype(np.float64), axis=0)
    np.testing.assert_allclose(table[2 * 288 + 1], expected, rtol=1e-6)


def test_a_channel_without_training_readings_is_an_error(tmp_path: Path) -> None:
    """It is named, with the rows."""
    values = make_series()
    values[:30] = np.nan
    store = make_store(tmp_path / "store", values)

    with pytest.raises(DataError, match=r"'c0' has no observed reading .* 0 to 29"):
        fitted(store, range(30))
