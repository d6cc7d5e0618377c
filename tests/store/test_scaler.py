"""Standardisation, from training rows alone."""

from pathlib import Path

import numpy as np
import pytest

from pgti.errors import DataError
from pgti.store import Scaler, SeriesStore
from pgti.windows import Splits, WindowSpec, split_by_fractions, split_by_rows

from .small_stores import sample_readings, write_store


def test_scaler_sees_only_its_rows(tmp_path: Path) -> None:
    """Changing any reading outside the training rows leaves the scaler as it was."""
    values = sample_readings(80)
    write_store(tmp_path / "a", values)
    values[60:] *= -9
    write_store(tmp_path / "b", values)
    rows = range(60)
    first = Scaler.fit(SeriesStore.open(tmp_path / "a"), rows)
    second = Scaler.fit(SeriesStore.open(tmp_path / "b"), rows)
    assert first == second
    assert first.mean == pytest.approx(np.nanmean(values[:60], axis=(0, 1)).tolist(), rel=1e-6)


def test_scaler_of_a_constant_channel_divides_by_one(tmp_path: Path) -> None:
    """A channel that never changes is centred, not blown up."""
    write_store(tmp_path / "s", np.full((10, 2, 1), 5.0))
    assert Scaler.fit(SeriesStore.open(tmp_path / "s"), range(10)) == Scaler(
        mean=(5.0,), std=(1.0,)
    )


def test_scaler_needs_an_observed_reading(tmp_path: Path) -> None:
    """A channel with nothing observed in the training rows is refused by name."""
    values = sample_readings(20)
    values[:10, :, 1] = np.nan
    write_store(tmp_path / "s", values)
    with pytest.raises(DataError, match="channel 'c1' has no observed reading"):
        Scaler.fit(SeriesStore.open(tmp_path / "s"), range(10))


@pytest.mark.parametrize("blocks", ["one", "many"])
@pytest.mark.parametrize("altered", ["grid", "finer grid", "no grid", "huge", "missing"])
@pytest.mark.parametrize("by", ["fractions", "rows"])
@pytest.mark.parametrize("stride", [1, 5])
def test_no_validation_or_test_target_moves_the_scaler(
    tmp_path: Path,
    by: str,
    altered: str,
    blocks: str,
    stride: int,
) -> None:
    """Whatever the readings to forecast are, and however they make the series be stored."""
    block_readings = 7 * 4 * 2 if blocks == "many" else 1 << 22
    values = sample_readings(200)
    spec = WindowSpec(input_steps=6, horizon=4, stride=stride)
    splits = (
        split_by_fractions(200, spec)
        if by == "fractions"
        else split_by_rows(200, spec, val_row=131, test_row=163)
    )
    changed = values.copy()
    rows = target_rows(splits, spec)
    noise = np.random.default_rng(9).normal(0, 50, (len(rows), *values.shape[1:]))
    changed[rows] = {
        "grid": np.rint(noise),
        "finer grid": np.rint(noise) + 0.25,
        "no grid": noise,
        "huge": noise * 1e30,
        "missing": noise * np.nan,
    }[altered]
    dtypes = [
        write_store(tmp_path / name, each, block_readings=block_readings).dtype
        for name, each in (("a", values), ("b", changed))
    ]
    assert dtypes == ["int16", "float32" if altered in {"no grid", "huge"} else "int16"]
    train = splits.train_rows(spec)
    first, second = (Scaler.fit(SeriesStore.open(tmp_path / name), train) for name in "ab")
    assert first == second
    assert first.mean == pytest.approx(
        np.nanmean(values[train.start : train.stop], axis=(0, 1)).tolist(), rel=1e-5
    )


def target_rows(splits: Splits, spec: WindowSpec) -> list[int]:
    """Every row that is a target of a validation or test window."""
    return sorted(
        {
            start + spec.input_steps + step
            for start in (*splits.val, *splits.test)
            for step in range(spec.horizon)
        }
    )
