"""A run forecasts from its store as it is now: grown, corrected, copied."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.cli.main import run_command
from pgti.errors import RunError

TIMES = pd.date_range("2025-10-01", periods=240, freq="15min")
SPEEDS = pd.DataFrame(
    np.random.default_rng(0).normal(60, 5, size=(240, 2)).round(1), index=TIMES, columns=["A", "B"]
)
SMALL = {"windows": {"input_steps": 4, "horizon": 2}, "max_steps": 1, "progress": False}


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> pgti.SeriesStore:
    return pgti.ingest(SPEEDS[:200], tmp_path / "store")


@pytest.fixture(name="run")
def _run(tmp_path: Path, store: pgti.SeriesStore) -> pgti.Run:
    return pgti.train(store, tmp_path / "run", model="gru", **SMALL)


def test_an_open_run_sees_its_store_grow(
    tmp_path: Path, store: pgti.SeriesStore, run: pgti.Run
) -> None:
    opened = pgti.Run.open(tmp_path / "run")
    for each in (run, opened):
        assert each.forecast()["origin"].max() == TIMES[199]
    for stop in (201, 230):
        store = store.append(SPEEDS[store.meta.num_steps : stop])
        for each in (run, opened):
            pd.testing.assert_frame_equal(each.forecast(), each.forecast(SPEEDS[:stop]))
            assert each.forecast()["origin"].max() == TIMES[stop - 1]
    report = opened.evaluate(between=(TIMES[210], TIMES[220]))
    assert report.num_windows == 11


def test_a_corrected_store_is_taken_as_newer_readings(
    tmp_path: Path, store: pgti.SeriesStore, run: pgti.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the run is open while rows that it has seen are corrected, or opened later."""
    before = run.evaluate("test").mae
    corrected = SPEEDS[:200].copy()
    corrected.iloc[-5:] += 2
    store.append(corrected[-5:], correct=True)
    for each in (run, pgti.Run.open(tmp_path / "run")):
        forecast = each.forecast()
        assert any("other readings now" in note for note in forecast.attrs["notes"])
        pd.testing.assert_frame_equal(forecast, each.forecast(corrected), check_exact=True)
    assert run.evaluate("test").mae == before  # it has the rows that it opened
    with pytest.raises(RunError, match="has other readings now than in training"):
        pgti.Run.open(tmp_path / "run").evaluate("test")
    out = tmp_path / "f.csv"
    assert run_command(["predict", str(tmp_path / "run"), "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    assert "other readings now" in captured.err
    assert json.loads(captured.out)["readings"] == str(tmp_path / "store")


@pytest.mark.usefixtures("run")
def test_a_copy_of_run_and_store_reads_the_copy(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for name in ("run", "store"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name)
    pgti.SeriesStore.open(tmp_path / "copy" / "store").append(SPEEDS[200:])
    assert pgti.Run.open(tmp_path / "copy" / "run").forecast()["origin"].max() == TIMES[-1]
    assert pgti.Run.open(tmp_path / "run").forecast()["origin"].max() == TIMES[199]


def test_columns_that_are_numbered_are_taken_in_order_and_it_is_said(run: pgti.Run) -> None:
    numbered = SPEEDS[:210].set_axis([0, 1], axis="columns")
    forecast = run.forecast(numbered)
    assert any("are numbered" in note for note in forecast.attrs["notes"])
    pd.testing.assert_frame_equal(forecast, run.forecast(SPEEDS[:210]))
