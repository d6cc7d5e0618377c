"""Runs on exact stores: large readings with small steps, from the file to the forecasts."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pgti
from pgti import ConfigError, DataError, RunError, SeriesStore, WindowDataset
from pgti.ingestion.newer import newer as newer_module
from pgti.run import Run

NUM_STEPS, ENTRIES = 240, 30
WINDOWS = {"input_steps": 3, "horizon": 1}
TRAINING = {"epochs": 3, "batch_size": 32, "patience": None, "learning_rate": 0.01}


def meters(num_steps: int = NUM_STEPS) -> pd.DataFrame:
    """Hourly readings of meters above 2^25, which move by 1 to 3."""
    steps = np.random.default_rng(6).integers(1, 4, (NUM_STEPS + ENTRIES, 3))
    values = 33_554_433 + np.array([0, 7_000_001, 80_000_003]) + steps.cumsum(axis=0)
    times = pd.date_range("2024-01-01", periods=len(values), freq="h")
    return pd.DataFrame(values, index=times, columns=["x", "y", "z"])[:num_steps]


def cents(num_steps: int = NUM_STEPS) -> pd.DataFrame:
    """Pressures in hundredths of a pascal."""
    return (meters(num_steps) / 100).round(2)


@pytest.fixture(params=[meters, cents])
def trained(tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    """A run on an exact store, `store`."""
    request.param().to_csv(tmp_path / "source.csv")
    store = pgti.ingest(tmp_path / "source.csv", tmp_path / "store", exact=True)
    assert store.meta.dtype == "int32"
    return pgti.train(store, tmp_path / "run", model="linear", windows=WINDOWS, training=TRAINING)


def source_of(run: Run) -> pd.DataFrame:
    """The table that the run's store was made of, and what follows."""
    is_whole = run.store.read(0, 1)[0, 0, 0] % 1 == 0
    return (meters if is_whole else cents)(NUM_STEPS + ENTRIES)


def test_a_compact_store_says_what_it_has_lost(tmp_path: Path) -> None:
    """One line with the number, the largest difference, the first reading and the option."""
    frame = meters()
    store = pgti.ingest(frame, tmp_path / "store")
    lost = np.abs(frame.to_numpy() - store.read(0, NUM_STEPS)[..., 0].astype(np.float64))
    (note,) = (each for each in store.notes if "digits" in each)
    assert note.startswith(f"{np.count_nonzero(lost)} readings have more digits than float32")
    assert f"changed by up to {lost.max():g} (the first in row 0, sensor 'x': " in note
    assert note.endswith("exact=True makes a store that has them all")
    exact = pgti.ingest(frame, tmp_path / "exact", exact=True)
    assert not any("digits" in each for each in exact.notes)
    np.testing.assert_array_equal(exact.read(0, NUM_STEPS)[..., 0], frame)


def test_persistence_has_no_error_of_its_own(trained: Run) -> None:
    """Its errors are the steps of the source, to the last bit of float64."""
    report = trained.evaluate("test").to_dict()["test"]["persistence"]
    starts = np.asarray(trained.splits.test)
    values = source_of(trained).to_numpy()
    steps = values[starts + 3] - values[starts + 2]
    tolerance = 0 if trained.store.meta.divisors == (1,) else 2e-5  # cents are no binary numbers
    assert report["mae"]["mean"] == pytest.approx(np.abs(steps).mean(), rel=1e-12, abs=tolerance)
    relative = 100 * np.abs(steps / values[starts + 3]).mean()
    assert report["mape"]["mean"] == pytest.approx(relative, rel=1e-4)


def test_a_linear_model_learns_the_steps(tmp_path: Path) -> None:
    """Steps of 1 to 3 have a mean absolute deviation of 2/3; float32 readings are off by 1."""
    errors = {}
    truth = meters().to_numpy()
    for exact in (False, True):
        store = pgti.ingest(meters(), tmp_path / f"store {exact}", exact=exact)
        run = pgti.train(
            store,
            tmp_path / f"run {exact}",
            model="linear",
            windows=WINDOWS,
            training=TRAINING | {"epochs": 60, "batch_size": 16},
        )
        forecasts = run.forecast(split="test")
        rows = (forecasts["timestamp"] - meters().index[0]) // pd.Timedelta("1h")
        sensors = forecasts["sensor"].cat.codes
        errors[exact] = np.abs(forecasts["forecast"] - truth[rows, sensors]).mean()
    assert errors[True] < 0.9
    assert errors[False] > 1.2


def test_forecasts_have_the_digits_that_they_have(trained: Run, tmp_path: Path) -> None:
    """Observed values are those of the source; forecasts end where float32 does."""
    truth = source_of(trained)
    frame = trained.forecast(split="test")
    assert frame["forecast"].dtype == frame["observed"].dtype == np.float64
    expected = truth.to_numpy()[:NUM_STEPS][np.asarray(trained.splits.test) + 3].ravel()
    np.testing.assert_array_equal(frame["observed"], expected)
    deviation = trained.source.scaler.std[0]
    for suffix in ("csv", "parquet", "npz"):
        trained.predict(tmp_path / f"f.{suffix}", split="test")
    texts = pd.read_csv(tmp_path / "f.csv", dtype=str)
    table = pd.read_parquet(tmp_path / "f.parquet")
    with np.load(tmp_path / "f.npz") as arrays:
        for name in ("forecast", "observed"):
            np.testing.assert_array_equal(texts[name].map(float), frame[name])
            np.testing.assert_array_equal(table[name], frame[name])
            np.testing.assert_array_equal(arrays[name].ravel(), frame[name])
    decimals = texts["forecast"].str.split(".").str[1].str.len().max()
    assert 10.0**-decimals >= deviation * 2**-21
    assert 10.0**-decimals < 10 * deviation * 2**-21


@pytest.mark.parametrize("on_disk", [False, True])
def test_newer_readings_are_exact(
    trained: Run, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    """In memory and on disk, where the run's store is gone, and from another store."""
    truth = source_of(trained)
    grown = pgti.ingest(truth, trained.store.path.parent / "grown", exact=True)
    compact = pgti.ingest(truth, trained.store.path.parent / "compact")
    expected = trained.forecast(truth.iloc[-6:])
    monkeypatch.setattr(newer_module, "_MEMORY_BYTES", 0 if on_disk else 1 << 20)
    shutil.rmtree(trained.store.path)
    run = Run.open(trained.directory.path)
    pd.testing.assert_frame_equal(run.forecast(truth.iloc[-6:]), expected)
    pd.testing.assert_frame_equal(run.forecast(grown), expected)
    rounded = run.forecast(compact)  # what its float32 readings have
    assert np.abs(rounded["forecast"] - expected["forecast"]).max() < 20
    with pytest.raises(ConfigError, match=r"exact is an option of pgti.ingest"):
        run.forecast(truth.iloc[-6:], options={"exact": True})


def test_a_store_grows_and_is_corrected(trained: Run) -> None:
    """As if it had been written at once; the run evaluates the new rows."""
    truth = source_of(trained)
    store = trained.store.append(truth[NUM_STEPS:])
    np.testing.assert_array_equal(store.read(0, len(truth))[..., 0], truth)
    wrong = truth[NUM_STEPS:] + 1
    with pytest.raises(DataError, match=f"has {wrong.iloc[0, 0]:.12g} for sensor 'x'"):
        store.append(wrong)
    corrected = store.append(wrong, correct=True)
    np.testing.assert_array_equal(corrected.read(NUM_STEPS, len(truth))[..., 0], wrong)
    with pytest.raises(ConfigError, match=r"exact is an option of pgti.ingest"):
        store.append(truth, exact=True)


def test_appending_to_a_compact_store_says_what_is_lost(tmp_path: Path) -> None:
    """The old rows had no such digits."""
    small = meters() % 1000
    store = pgti.ingest(small, tmp_path / "store")
    assert not any("digits" in each for each in store.notes)
    grown = store.append(meters(NUM_STEPS + ENTRIES)[NUM_STEPS:])
    assert any("ingest the whole series with exact=True" in each for each in grown.notes)


def test_a_run_resumes_with_its_offsets(trained: Run, tmp_path: Path) -> None:
    """Stopped and resumed, it has the bits of a run that was not stopped."""
    options = {"model": "linear", "windows": WINDOWS}
    whole = pgti.train(
        trained.store, tmp_path / "whole", **options, training=TRAINING | {"epochs": 4}
    )
    part = pgti.train(
        trained.store,
        trained.directory.path,
        **options,
        training=TRAINING | {"epochs": 4},
        resume=True,
    )
    assert part.source.scaler == whole.source.scaler
    for name, each in whole.forecaster.network.state_dict().items():
        assert torch.equal(part.forecaster.network.state_dict()[name], each)
    np.testing.assert_array_equal(
        Run.open(tmp_path / "whole").forecast()["forecast"], part.forecast()["forecast"]
    )


def test_a_warm_start_takes_offsets_of_the_same_sensors_alone(trained: Run, tmp_path: Path) -> None:
    """Those of other sensors would be wrong by millions."""
    two = pgti.ingest(source_of(trained)[["y", "x"]], tmp_path / "two", exact=True)
    other = pgti.ingest(source_of(trained)[["y", "x", "z"]], tmp_path / "other", exact=True)
    options = {"init_from": trained, "training": TRAINING}
    for number, store in enumerate((two, other)):
        with pytest.raises(RunError, match=r"offsets of other sensors.*refit_scaler=True"):
            pgti.train(store, tmp_path / f"refused {number}", **options)
        run = pgti.train(store, tmp_path / f"refit {number}", **options, refit_scaler=True)
        assert run.source.scaler.offsets is not None
        assert len(run.source.scaler.offsets) == store.meta.num_nodes
    same = pgti.train(SeriesStore.open(trained.store.path), tmp_path / "same", **options)
    assert same.source.scaler == trained.source.scaler


def test_an_exact_store_needs_offsets(trained: Run, tmp_path: Path) -> None:
    """A run on a compact store has none to hand on."""
    compact = pgti.ingest(source_of(trained), tmp_path / "compact")
    run = pgti.train(compact, tmp_path / "r", model="linear", windows=WINDOWS, training=TRAINING)
    with pytest.raises(RunError, match="no offsets, which the readings of an exact store need"):
        pgti.train(trained.store, tmp_path / "refused", init_from=run, training=TRAINING)


def test_a_dataset_for_other_loaders(trained: Run) -> None:
    """Samples have exact targets, and `unscale` gives what a network means."""
    dataset = WindowDataset.from_store(trained.store, split="val", **WINDOWS)
    sample = dataset[0]
    row = int(sample.start)
    values = source_of(trained).to_numpy()
    np.testing.assert_array_equal(sample.y[0, :, 0], values[row + 3])
    back = dataset.unscale(sample.x[..., :1]).numpy()[..., 0]
    np.testing.assert_allclose(back, values[row : row + 3], rtol=0, atol=2e-5)
    if trained.store.meta.divisors == (1,):
        np.testing.assert_array_equal(back, values[row : row + 3])
