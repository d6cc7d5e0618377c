"""A newest row that has not arrived yet leaves forecasts where they were."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.cli.main import run_command

LEVELS = np.array([5.0, 8.0, 12.0, 400.0, 700.0, 900.0])
SENSORS = list("abcdef")


def make_frame(num_steps: int) -> pd.DataFrame:
    """Hourly readings of sensors whose levels are far apart, with a daily rhythm."""
    index = pd.date_range("2024-01-01", periods=num_steps, freq="h")
    noise = np.random.default_rng(0).normal(1, 0.05, (num_steps, len(LEVELS)))
    rhythm = 1 + 0.5 * np.sin(2 * np.pi * np.arange(num_steps) / 24)
    return pd.DataFrame((LEVELS * rhythm[:, None] * noise).round(1), index=index, columns=SENSORS)


@pytest.fixture(scope="module", params=["stid", "gru"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pgti.Run:
    directory = tmp_path_factory.mktemp("late")
    store = pgti.ingest(make_frame(24 * 36), directory / "store")
    return pgti.train(
        store,
        directory / "run",
        model=request.param,
        windows={"input_steps": 12, "horizon": 3},
        epochs=6,
        batch_size=32,
        learning_rate=0.01,
        progress=False,
    )


def test_forecasts_without_the_newest_row(run: pgti.Run) -> None:
    """They stay near those of all readings, for the lowest sensor, too; and they say so."""
    complete = make_frame(24 * 36 + 17)[-24:]
    late = complete.copy()
    late.iloc[-1] = np.nan
    forecasts = {}
    for name, frame in (("complete", complete), ("late", late)):
        forecasts[name] = run.forecast(frame)
    found, wanted = (
        forecasts[name].pivot(index="horizon", columns="sensor", values="forecast")
        for name in ("late", "complete")
    )
    # The mean of all sensors is 300: the forecast of a sensor at 5 was tens away.
    np.testing.assert_allclose(found["a"], wanted["a"], atol=5)
    assert (abs(found - wanted) < 0.5 * LEVELS + 5).all(axis=None)
    assert (forecasts["late"]["missing_inputs"] == 1).all()
    assert (forecasts["late"]["missing_newest"] == 1).all()
    assert (forecasts["complete"]["missing_inputs"] == 0).all()


def test_one_late_sensor(run: pgti.Run) -> None:
    """One that was not observed in the window at all is filled with what is typical of it."""
    complete = make_frame(24 * 36 + 17)[-24:]
    late = complete.copy()
    late["f"] = np.nan
    found, wanted = (
        frame[frame["sensor"] == "f"] for frame in (run.forecast(late), run.forecast(complete))
    )
    np.testing.assert_allclose(found["forecast"], wanted["forecast"], rtol=0.25)
    assert (found["missing_inputs"] == 12).all()
    assert (found["missing_newest"] == 12).all()


def test_predict_says_what_is_missing(
    run: pgti.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, in the JSON object and in the file."""
    late = make_frame(24 * 36 + 17)[-24:]
    late.iloc[-1] = np.nan
    late.iloc[-12:, 1] = np.nan
    late.rename_axis("time").to_csv(tmp_path / "late.csv")
    out = tmp_path / "out.csv"
    command = ["predict", run.directory.path, "--readings", tmp_path / "late.csv", "--out", out]
    assert run_command([str(each) for each in (*command, "--json")]) == 0
    shown = capsys.readouterr()
    assert (
        "the forecast from 2024-02-06T16:00:00 lacks 23.6% of its inputs; the last reading is of "
        "2024-02-06T15:00:00; never observed in the window: b" in shown.err
    )
    content = json.loads(shown.out)
    assert content["origin"] == "2024-02-06T16:00:00"
    assert content["last_reading"] == "2024-02-06T15:00:00"
    facts = content["inputs"]
    assert set(facts["newest"]) == {"missing_inputs", "never_observed"}
    assert facts["missing_inputs"] == pytest.approx(17 / 72)
    assert facts["newest"]["missing_inputs"] == pytest.approx(17 / 72)
    assert facts["newest"]["never_observed"] == ["b"]
    table = pd.read_csv(out)
    assert set(table[table["sensor"] == "a"]["missing_newest"]) == {1}
    assert set(table[table["sensor"] == "b"]["missing_inputs"]) == {12}
    command = ["predict", run.directory.path, "--split", "test", "--out", out, "--json"]
    assert run_command([str(each) for each in command]) == 0
    shown = capsys.readouterr()
    assert "inputs" not in shown.err
    assert json.loads(shown.out)["inputs"]["missing_inputs"] == 0


def test_the_mask_as_inputs(tmp_path: Path) -> None:
    """A network is built for the mask, from a complete series, too, and sees newer gaps."""
    store = pgti.ingest(make_frame(24 * 12), tmp_path / "store")
    windows = {"input_steps": 12, "horizon": 3, "observed_mask": True}
    options = {"model": "gru", "epochs": 1, "progress": False, "windows": windows}
    run = pgti.train(store, tmp_path / "run", **options)
    assert run.source.shape.input_channels == 1 + 1 + 1
    complete = make_frame(24 * 12 + 17)[-24:]
    late = complete.copy()
    late.iloc[-1, 2] = np.nan
    found, wanted = (frame.set_index("sensor") for frame in map(run.forecast, (late, complete)))
    assert (found.loc["c", "forecast"] != wanted.loc["c", "forecast"]).all()
    assert found.loc["c", "missing_newest"].tolist() == [1, 1, 1]
    others = ["a", "b", "d", "e", "f"]
    assert found.loc[others, "forecast"].equals(wanted.loc[others, "forecast"])
    again = pgti.Run.open(tmp_path / "run")
    assert again.config.windows.observed_mask
    assert again.forecast(late)["forecast"].equals(run.forecast(late)["forecast"])
