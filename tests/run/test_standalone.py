"""A run stands alone: its store may be gone, moved with it, grown, or given in place of another."""

import gc
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import pgti
from pgti import RunError, SeriesStore
from pgti.run import Run, train_run

from .small_runs import make_config, make_series, make_store


def newer_frame(num_steps: int = 5) -> pd.DataFrame:
    index = pd.date_range("2025-10-06T08:00", periods=num_steps, freq="h")
    values = make_series(num_steps=num_steps, seed=7)[..., 0]
    return pd.DataFrame(values, index=index, columns=["a", "b", "c"])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The directory of a run, `run`, and of its store, `store`."""
    store = make_store(tmp_path / "home" / "store", make_series())
    train_run(make_config(store, epochs=1), tmp_path / "home" / "run")
    return tmp_path / "home"


def test_newer_readings_are_forecast_where_the_store_is_gone(trained: Path) -> None:
    newer = newer_frame()
    newer.iloc[-1, 0] = np.nan
    expected = Run.open(trained / "run").forecast(newer)
    shutil.rmtree(trained / "store")
    run = Run.open(trained / "run")
    pd.testing.assert_frame_equal(run.forecast(newer), expected)
    assert "train 53, val 8, test 15" in run.describe()[1]["windows"]
    for needs_rows in (run.forecast, run.evaluate, lambda: run.forecast(split="test")):
        with pytest.raises(RunError, match=r"the store .* is gone, and this needs the readings th"):
            needs_rows()


def test_a_store_that_moved_with_the_run_is_found(trained: Path, tmp_path: Path) -> None:
    expected = Run.open(trained / "run").forecast()
    trained.rename(tmp_path / "elsewhere")
    run = Run.open(tmp_path / "elsewhere" / "run")
    pd.testing.assert_frame_equal(run.forecast(), expected)
    (tmp_path / "elsewhere" / "store").rename(tmp_path / "s")
    given = Run.open(tmp_path / "elsewhere" / "run", store=tmp_path / "s")
    pd.testing.assert_frame_equal(given.forecast(), expected)


def test_a_store_that_grew_is_the_runs_own(trained: Path) -> None:
    before = Run.open(trained / "run")
    rows = make_series(num_steps=83)
    assert np.array_equal(rows[:1], before.store.read(0, 1))
    test = before.forecast(split="test")
    shutil.rmtree(trained / "store")
    values = np.concatenate([make_series(), make_series(num_steps=3, seed=5)])
    grown = make_store(trained / "store", values)
    run = Run.open(trained / "run")
    assert (run.store.meta.num_steps, run.latest.meta.num_steps) == (80, 83)
    assert run.evaluate("test").mae == pytest.approx(
        (test["forecast"] - test["observed"]).abs().mean()
    )
    assert run.forecast()["origin"].iloc[0] == grown.time_axis.at(np.array([82]))[0]


def test_a_run_resumes_on_a_store_that_grew(trained: Path, tmp_path: Path) -> None:
    """The parameters are those of a run that went on with the old store."""
    shutil.copytree(trained, tmp_path / "other")
    values = np.concatenate([make_series(), make_series(num_steps=30, seed=5)])
    shutil.rmtree(trained / "store")
    results = []
    for home, rows in ((trained, values), (tmp_path / "other", None)):
        if rows is not None:
            make_store(home / "store", rows)
        store = SeriesStore.open(home / "store")
        run, _ = train_run(make_config(store, epochs=2), home / "run", resume=True)
        results.append([each.detach().numpy() for each in run.forecaster.network.parameters()])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_another_store_is_one_of_newer_readings(trained: Path, tmp_path: Path) -> None:
    pgti.ingest(newer_frame(), tmp_path / "newer", channels=("c0",))
    run = Run.open(trained / "run", store=tmp_path / "newer")
    pd.testing.assert_frame_equal(run.forecast(), run.forecast(newer_frame()))


@pytest.mark.parametrize("name", ["meta.json", "graph.npz", "typical.npz"])
def test_damaged_data_are_one_clear_line(trained: Path, name: str) -> None:
    part = trained / "run" / "data" / name
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(RunError, match=r"data is damaged: .*copy the run again"):
        Run.open(trained / "run")


def test_a_run_of_an_earlier_version_needs_its_store(trained: Path) -> None:
    shutil.rmtree(trained / "run" / "data")
    assert len(Run.open(trained / "run").forecast())
    shutil.rmtree(trained / "store")
    with pytest.raises(pgti.PgtiError, match="is not a store"):
        Run.open(trained / "run")


def check_soak(run: Run, num_calls: int) -> None:
    """Forecast again and again: neither memory nor files grow."""
    newer, process = newer_frame(), psutil.Process()
    for _ in range(50):
        run.forecast(newer)
    gc.collect()
    files, before = process.num_fds(), process.memory_info().rss
    for _ in range(num_calls):
        run.forecast(newer)
    gc.collect()
    assert process.num_fds() == files
    assert process.memory_info().rss - before < 8 << 20


def test_forecasts_again_and_again_do_not_grow(trained: Path) -> None:
    check_soak(Run.open(trained / "run"), 200)


@pytest.mark.slow
def test_two_thousand_forecasts_do_not_grow(trained: Path) -> None:
    check_soak(Run.open(trained / "run"), 2000)
