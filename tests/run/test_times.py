"""What comes after the end has the right date, and windows reach across no missing rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.batching import WindowConfig
from pgti.cli.main import run_command
from pgti.errors import ConfigError
from pgti.ingestion import ingest
from pgti.run import Run
from pgti.run.config import RunConfig
from pgti.store import SeriesStore


def series(index: pd.DatetimeIndex) -> pd.DataFrame:
    """Two sensors with a daily course."""
    hours = np.asarray(index.hour + index.minute / 60)
    values = 50 + 10 * np.sin(hours / 24 * 2 * np.pi)[:, None] + [0.5, 0.25]
    noise = np.random.default_rng(0).normal(size=values.shape)
    return pd.DataFrame((values + noise).round(1), index=index, columns=["a", "b"])


def trained(
    folder: Path, index: pd.DatetimeIndex, gaps: str = "error", stride: int = 1, **options: Any
) -> Run:
    """A run of a small network, one epoch."""
    store = ingest(series(index), folder / "store", gaps=gaps)
    windows = {"input_steps": 6, "horizon": 5, "stride": stride}
    options = {"model": "linear", "epochs": 1, "windows": windows, **options}
    return pgti.train(store, folder / "run", progress=False, **options)


def service_days(first: str, days: int) -> pd.DatetimeIndex:
    """Every ten minutes from 06:00 to 23:50."""
    whole = pd.date_range(first, periods=days * 144, freq="10min")
    return whole[whole.hour >= 6]


KINDS = {
    "business days": pd.date_range("2009-12-28", periods=205, freq="B"),
    "months": pd.date_range("2001-01-31", periods=125, freq="ME"),
    "quarters": pd.date_range("1971-01-01", periods=125, freq="QS"),
    "service hours": service_days("2024-02-03", 9)[:-102],
    "days of a zone": pd.date_range("2024-03-01", periods=245, freq="D", tz="Europe/Rome"),
}


@pytest.mark.parametrize("gaps", ["error", "keep"])
@pytest.mark.parametrize("kind", KINDS)
def test_forecasts_past_the_end_have_the_right_dates(tmp_path: Path, kind: str, gaps: str) -> None:
    """In frames and files, for the steps after all kinds of series; the last five are not given."""
    index = KINDS[kind]
    run = trained(tmp_path, index[:-5], gaps)
    frame = run.forecast()
    assert frame["timestamp"].drop_duplicates().tolist() == list(index[-5:])
    assert set(frame["origin"]) == {index[-6]}
    run.predict(tmp_path / "f.csv")
    written = pd.read_csv(tmp_path / "f.csv")["timestamp"].drop_duplicates()
    assert [pd.Timestamp(time) for time in written] == list(index[-5:])
    calendar = run.source.calendar_of(np.array([len(index) - 5 - 6]))[0, 6:]
    if kind == "service hours":
        expected = (index[-5:].hour * 60 + index[-5:].minute) / 1440
        np.testing.assert_allclose(calendar[:, 0].numpy(), expected, rtol=1e-6)
    report = run.evaluate()
    assert np.isfinite(report.mae)
    assert ("5 d" in str(report)) == (kind == "days of a zone")  # else a step has no one length


def test_business_days_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weekday rates, with and without `--gaps keep`: no forecast is of a Saturday or Sunday."""
    series(pd.date_range("2009-12-28", periods=200, freq="B")).to_csv(tmp_path / "rates.csv")
    for gaps in ([], ["--gaps", "keep"]):
        place = tmp_path / f"{len(gaps)}"
        command = ["ingest", str(tmp_path / "rates.csv"), "--out", str(place), *gaps]
        assert run_command(command) == 0
        assert "repeat every 1d, Mon-Fri" in capsys.readouterr().err
        assert run_command(["info", str(place), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["time_rule"], facts["holes"]) == ("every 1d, Mon-Fri", 0)
        pgti.train(place, tmp_path / f"run{len(gaps)}", model="gru", epochs=1, progress=False)
        forecast = tmp_path / "f.csv"
        command = ["predict", str(tmp_path / f"run{len(gaps)}"), "--out", str(forecast)]
        assert run_command(command) == 0
        times = pd.to_datetime(pd.read_csv(forecast)["timestamp"]).drop_duplicates()
        assert times.tolist() == list(pd.date_range("2010-10-04", periods=12, freq="B"))
        capsys.readouterr()


HOLE = pd.date_range("2012-03-01", periods=500, freq="5min").union(
    pd.date_range("2012-04-02", periods=500, freq="5min")
)
"""1,000 rows of five minutes; 30 days are missing in the middle."""


def test_windows_across_a_hole_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 684 training windows, 23 reach across the 30 days, 12 of them with targets beyond."""
    with pytest.raises(pgti.DataError, match=r"lacks 8,\d\d\d rows"):
        ingest(series(HOLE), tmp_path / "s")
    store = ingest(series(HOLE), tmp_path / "s", gaps="keep")
    assert "first between 2012-03-02 17:35:00 and 2012-04-02 00:00:00" in store.notes[-1]
    everything = WindowConfig(across_holes=True).splits(store)
    splits = WindowConfig().splits(store)
    assert len(everything.train) == 684
    targets = np.array(everything.train)[:, None] + 12 + np.arange(12)
    assert ((np.array(everything.train)[:, None] + 11 < 500) & (targets >= 500)).sum() == 78
    assert splits.num_left_out == 23
    dataset = pgti.WindowDataset.from_store(store, "train")
    assert dataset.starts.tolist() == list(splits.train)
    for name in ("train", "val", "test"):
        firsts = np.array(splits.starts(name))
        assert ((firsts + 23 < 500) | (firsts >= 500)).all()
    command = ["train", str(tmp_path / "s"), "--run", str(tmp_path / "run"), "--model", "linear"]
    assert run_command([*command, "--epochs", "1"]) == 0
    line = "23 of 977 windows reach across missing rows and are left out; --windows.across-holes"
    assert capsys.readouterr().err.count(line) == 1
    assert run_command(["evaluate", str(tmp_path / "run")]) == 0
    assert line in capsys.readouterr().err
    assert run_command([*command, "--epochs", "1", "--overwrite", "--windows.across-holes"]) == 0
    assert "missing rows" not in capsys.readouterr().err


def test_runs_of_earlier_versions_keep_their_windows(tmp_path: Path) -> None:
    """Their options lack the entry: they evaluate and resume with the windows that they had."""
    store = ingest(series(HOLE), tmp_path / "s", gaps="keep")
    options = {"model": "linear", "epochs": 1, "progress": False}
    run = pgti.train(store, tmp_path / "run", windows={"across_holes": True}, **options)
    config = tmp_path / "run" / "config.toml"
    text = config.read_text()
    assert "across_holes = true\n" in text
    config.write_text(text.replace("across_holes = true\n", ""))
    again = Run.open(tmp_path / "run")
    assert len(again.splits.train) == len(run.splits.train) == 684
    assert again.evaluate().mae == run.evaluate().mae
    # As a configuration of a new run, it has the meaning of today.
    assert not RunConfig.from_toml(config).windows.across_holes


@pytest.mark.parametrize("batching", ["device", "standard"])
def test_strategies_agree_on_a_series_with_holes(tmp_path: Path, batching: str) -> None:
    """Trained parameters and errors are those of index-batching, bit for bit."""
    runs = [
        trained(tmp_path / name, HOLE, "keep", batching=name, model="gru", stride=2)
        for name in ("index", batching)
    ]
    first, last = runs
    for name, value in first.forecaster.network.state_dict().items():
        assert value.equal(last.forecaster.network.state_dict()[name])
    assert first.evaluate().to_dict() == last.evaluate().to_dict()
    assert first.splits.num_left_out == 5


def test_a_hole_in_the_newest_inputs_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The forecast is made all the same."""
    trained(tmp_path, HOLE[:503], "keep")
    command = ["predict", str(tmp_path / "run"), "--out", str(tmp_path / "f.csv"), "--json"]
    assert run_command(command) == 0
    output = capsys.readouterr()
    assert "reach across rows that are missing after 2012-03-02T17:35:00" in output.err
    assert "missing after 2012-03-02T17:35:00" in json.loads(output.out)["notes"][-1]
    assert pd.read_csv(tmp_path / "f.csv")["timestamp"].iloc[0] == "2012-04-02T00:15:00"


def test_forecasts_between_two_times_reach_across_no_hole(tmp_path: Path) -> None:
    """Rows after a hole are no next steps of those before it, as in training and evaluation."""
    run = trained(tmp_path, HOLE, "keep")
    lines: list[str] = []
    frame = run.forecast(between=("2012-03-02T17:00", "2012-04-02T01:00"), log=lines.append)
    assert lines == ["10 forecasts reach across missing rows and are left out"]
    assert (frame["timestamp"] - frame["origin"]).max() == pd.Timedelta("25min")
    assert frame["origin"].nunique() == 4 + 7  # up to 17:15, and from 00:30 on
    with pytest.raises(ConfigError, match=r"every forecast .* reaches across missing rows"):
        run.forecast(between=("2012-03-02T17:30", "2012-04-02T00:10"))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("zone", [None, "Europe/Rome"])
def test_what_follows_irregular_times_is_numbered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], zone: str | None, suffix: str
) -> None:
    """Less than nine steps of ten are alike: the origin has its time, and the targets a number."""
    minutes = np.cumsum(np.random.default_rng(0).integers(1, 9, 200))
    index = pd.DatetimeIndex(pd.Timestamp("2024-05-01") + pd.to_timedelta(minutes, unit="min"))
    run = trained(tmp_path, index.tz_localize(zone), "keep")
    assert isinstance(run.splits.train, range)  # no hole is known without an interval
    frame = run.forecast()
    assert frame["timestamp"].drop_duplicates().tolist() == [200, 201, 202, 203, 204]
    assert set(frame["origin"]) == {index.tz_localize(zone)[-1]}
    assert run.forecast(split="test")["timestamp"].iloc[-1] == index.tz_localize(zone)[-1]
    path = tmp_path / f"f.{suffix}"
    assert run_command(["predict", str(tmp_path / "run"), "--out", str(path)]) == 0
    assert "forecasts have the numbers of their rows" in capsys.readouterr().err
    if suffix == "npz":
        with np.load(path) as archive:
            numbers = archive["timestamps"].ravel().tolist()
    else:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        written = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
        numbers = written["timestamp"].drop_duplicates().tolist()
    assert numbers == [200, 201, 202, 203, 204]
    shutil.rmtree(tmp_path / "run")


def test_holes_that_leave_no_window_are_refused(tmp_path: Path) -> None:
    """The line says why, and what to do."""
    index = pd.date_range("2024-01-01", periods=300, freq="5min")
    store = ingest(series(index.delete(range(10, 300, 12))), tmp_path / "s", gaps="keep")
    with pytest.raises(ConfigError, match=r"reach across missing rows \(windows.across_holes=True"):
        WindowConfig().splits(SeriesStore.open(store.path))
