"""Intervals of runs: calibrated once, stored, scored, and written with forecasts."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.cli.main import run_command
from pgti.errors import ConfigError, RunError
from pgti.run import Run, intervals

from .small_runs import Linear, make_series, make_store

LEVELS = (0.5, 0.8)
QUANTILE = {"kind": "quantile", "quantiles": (0.1, 0.5, 0.9)}
ENDS = ["lo-50", "hi-50", "lo-80", "hi-80"]
OPTIONS: dict[str, Any] = {
    "model": "linear",
    "epochs": 1,
    "windows": {"input_steps": 3, "horizon": 2, "fractions": (0.5, 0.3, 0.2)},
    "progress": False,
}


def trained(path: Path, values: np.ndarray | None = None, **options: Any) -> Run:
    store = make_store(path / "store", make_series(num_steps=200) if values is None else values)
    return pgti.train(store, path / "run", **{**OPTIONS, **options})


def never(*_: object, **__: object) -> None:
    raise AssertionError("calibrated again")


def test_a_run_is_calibrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation, forecasts and a run that is opened again read what is stored; others do not."""
    run = trained(tmp_path)
    plain = run.evaluate()
    report = run.evaluate(intervals=LEVELS)
    with monkeypatch.context() as patched:
        patched.setattr(intervals, "calibrate", never)
        again = Run.open(run.directory.path).evaluate(intervals=(0.8,))
        assert again.to_dict()["test"]["width_80"] == report.to_dict()["test"]["width_80"]
        run.forecast(intervals=LEVELS)
        with pytest.raises(AssertionError, match="calibrated again"):
            run.evaluate(intervals=(0.9,))
        with pytest.raises(AssertionError, match="calibrated again"):
            trained(tmp_path / "other", seed=1).evaluate(intervals=LEVELS)
    assert run.evaluate(intervals=(0.9,)).metrics[-2:] == ("coverage_90", "width_90")
    # What a run reports without intervals is what it was.
    for name in ("mae", "rmse", "mape"):
        assert report.to_dict()["test"][name] == plain.to_dict()["test"][name]
    assert plain.metrics == ("mae", "rmse", "mape")


def test_an_evaluation_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    """Without dropout: what is evaluated or calibrated after it is as in a run opened anew."""
    path = trained(tmp_path, model=Linear).directory.path
    run = Run.open(path, model=Linear)
    reports = [run.evaluate(intervals=LEVELS, adaptive=True).to_dict() for _ in range(2)]
    assert reports[0]["test"] == reports[1]["test"]
    assert not run.forecaster.training
    run.evaluate(intervals=(0.9,))
    found = run.directory.intervals_file.read_bytes()
    run.directory.intervals_file.unlink()
    Run.open(path, model=Linear).evaluate(intervals=(0.5, 0.8, 0.9))
    assert run.directory.intervals_file.read_bytes() == found


def test_intervals_need_all_sensors(tmp_path: Path) -> None:
    """Of a run whose sensors are split over ranks, a rank has some; one line says what to do."""
    run = trained(tmp_path)
    part = replace(run, source=replace(run.source, sensors=np.array([0, 1])))
    with pytest.raises(ConfigError, match=r"some of the sensors only.*: open the run with"):
        part.evaluate(intervals=LEVELS, baselines=())


def test_calibration_sees_no_test_value(tmp_path: Path) -> None:
    """Other readings after the validation windows change no end of an interval."""
    values = make_series(num_steps=200)
    first = trained(tmp_path / "a", values)
    last = first.splits.val[-1] + first.source.spec.span
    changed = values.copy()
    changed[last:] += 40
    second = trained(tmp_path / "b", changed)
    for run in (first, second):
        run.evaluate(intervals=LEVELS)
    ends = [np.load(run.directory.intervals_file) for run in (first, second)]
    for name in ("below", "above", "spread", "counts"):
        np.testing.assert_array_equal(ends[0][name], ends[1][name])


def test_a_report_has_the_scores(tmp_path: Path) -> None:
    """In the table, the frame and by sensor; baselines have none."""
    report = trained(tmp_path).evaluate(intervals=LEVELS)
    names = ["crps", "pinball_0.1", "coverage_50", "width_80"]
    frame = report.to_frame(by_horizon=False).set_index("forecaster")
    assert frame.loc["linear", names].notna().all()
    assert frame.loc["persistence", names].isna().all()
    assert frame.loc["linear", "crps"] < frame.loc["linear", "mae"]
    sensors = report.by("sensor")
    mine = sensors[sensors["forecaster"] == "linear"]
    assert mine["coverage_80"].between(0.5, 1).all()
    shares = np.average(mine["coverage_80"], weights=mine["count"])
    assert shares == pytest.approx(report.mean("coverage_80"))
    shown = repr(report)
    assert "coverage 80 %" in shown
    assert "pinball" not in shown


@pytest.mark.parametrize("loss", ["mae", QUANTILE])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_forecasts_have_intervals_and_quantiles(tmp_path: Path, suffix: str, loss: Any) -> None:
    """After the forecast, by the same names in every form, with the same numbers."""
    run = trained(tmp_path, loss=loss)
    frame = run.forecast(split="test", intervals=LEVELS)
    levels = [] if loss == "mae" else ["0.1", "0.5", "0.9"]
    place = list(frame.columns).index("forecast")
    assert list(frame.columns[place:]) == [
        *("forecast", *levels, *ENDS, "observed", "missing_inputs", "missing_newest")
    ]
    assert (frame["lo-80"] <= frame["lo-50"]).all()
    assert (frame["lo-50"] <= frame["forecast"]).all()
    assert (frame["hi-80"] >= frame["hi-50"]).all()
    if levels:
        assert (frame["0.5"] == frame["forecast"]).all()
        assert (frame["0.1"] <= frame["0.9"]).all()

    path = tmp_path / f"forecasts{suffix}"
    run.predict(path, split="test", intervals=LEVELS)
    if suffix == ".npz":
        with np.load(path) as archive:
            for name in (*levels, *ENDS):
                np.testing.assert_array_equal(archive[name].ravel(), frame[name])
        return
    table = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert list(table.columns) == list(frame.columns)
    for name in (*levels, *ENDS):
        np.testing.assert_allclose(table[name], frame[name], rtol=1e-6)
    renamed = run.forecast(names="neuralforecast", intervals=(0.8,))
    extra = [] if not levels else [f"linear-ql{level}" for level in levels]
    assert list(renamed.columns) == [
        *("unique_id", "ds", "cutoff", "linear", *extra, "linear-lo-80", "linear-hi-80", "y")
    ]


def test_a_run_alone_has_its_intervals(tmp_path: Path) -> None:
    """Once they are stored; without them a line says how to come by them."""
    run, other = trained(tmp_path / "a"), trained(tmp_path / "b")
    newer = pd.DataFrame(
        make_series(num_steps=9, seed=7)[..., 0],
        index=pd.date_range("2025-11-06", periods=9, freq="h"),
        columns=["a", "b", "c"],
    )
    expected = run.forecast(newer, intervals=(0.8,))
    for path in (tmp_path / "a", tmp_path / "b"):
        shutil.rmtree(path / "store")
    again = Run.open(run.directory.path).forecast(newer, intervals=(0.8,))
    pd.testing.assert_frame_equal(again, expected)
    with pytest.raises(RunError, match="intervals are calibrated on the validation windows: give"):
        Run.open(other.directory.path).forecast(newer, intervals=(0.8,))


def test_a_damaged_calibration_is_made_again(tmp_path: Path) -> None:
    run = trained(tmp_path)
    expected = run.evaluate(intervals=LEVELS).to_dict()
    path = run.directory.intervals_file
    with np.load(path) as stored:
        arrays = dict(stored)

    def evaluated() -> dict[str, Any]:
        """Of the run opened anew, which remembers nothing."""
        return Run.open(run.directory.path).evaluate(intervals=LEVELS).to_dict()

    path.write_bytes(b"PK damaged")
    assert evaluated() == expected
    for name, wrong in (("below", "M8[s]"), ("levels", "M8[s]"), ("counts", "f4")):
        np.savez(path, **{**arrays, name: arrays[name].astype(wrong)})
        assert evaluated() == expected


def test_adaptive_forecasts_follow_newer_outcomes(tmp_path: Path) -> None:
    """Those before the forecast, of the run's store or of newer readings, widen its intervals."""
    values = make_series(num_steps=200)
    values[160:, 1] += 8 * np.resize([1, -1], 40)[:, None]  # sensor b grows wild in the test
    run = trained(tmp_path, values)
    static, adaptive = (
        run.forecast(intervals=(0.8,), adaptive=follows) for follows in (False, True)
    )
    widths = [
        (frame["hi-80"] - frame["lo-80"]).groupby(frame["sensor"], observed=True).mean()
        for frame in (static, adaptive)
    ]
    assert widths[1]["b"] > 1.5 * widths[0]["b"]
    assert widths[1]["a"] < 1.5 * widths[0]["a"]
    pd.testing.assert_series_equal(static["forecast"], adaptive["forecast"])
    # The same from newer readings, of which all are read for it.
    first = run.splits.val[0]
    rows = values[first:, :, 0]
    times = pd.Timestamp("2025-10-01") + pd.to_timedelta(np.arange(first, 200), "h")
    newer = pd.DataFrame(rows, index=times, columns=["a", "b", "c"])
    from_newer = run.forecast(newer, intervals=(0.8,), adaptive=True)
    pd.testing.assert_frame_equal(from_newer, adaptive, check_like=True)


def test_a_forecast_past_the_end_knows_what_an_evaluated_one_does(tmp_path: Path) -> None:
    """Outcomes up to its last input, also of forecasts that end after the series, however grown."""
    values = make_series(num_steps=200)
    run = trained(tmp_path, values, windows={**OPTIONS["windows"], "horizon": 6})
    last = run.splits.test[-1]
    expected = run.forecast(split="test", intervals=(0.8,), adaptive=True)
    expected = expected[expected["origin"] == expected["origin"].iloc[-1]].reset_index(drop=True)
    for first in (0, run.splits.val[0]):  # training windows are not replayed
        times = pd.Timestamp("2025-10-01") + pd.to_timedelta(np.arange(first, last + 3), "h")
        newer = pd.DataFrame(values[first : last + 3, :, 0], index=times, columns=["a", "b", "c"])
        found = run.forecast(newer, intervals=(0.8,), adaptive=True)
        for name in ("forecast", "lo-80", "hi-80"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_adaptive_coverage_is_scored(tmp_path: Path) -> None:
    """In the order of time, whatever the size of a batch."""
    run = trained(tmp_path)
    reports = [
        run.evaluate(intervals=LEVELS, adaptive=True, batch_size=size).to_dict()
        for size in (1, 7, None)
    ]
    for report in reports[1:]:
        for name in ("crps", "coverage_80", "width_80"):
            assert report["test"][name] == pytest.approx(reports[0]["test"][name], rel=1e-6)
    with pytest.raises(ConfigError, match="adaptive intervals need their probabilities"):
        run.evaluate(adaptive=True)
    with pytest.raises(ConfigError, match=r"intervals is 0\.8: it must be a list"):
        run.forecast(intervals=0.8)  # type: ignore[arg-type]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--intervals` and `--adaptive` of evaluate and predict, and what is refused."""
    run = str(trained(tmp_path).directory.path)
    assert run_command(["evaluate", run, "--intervals", "0.8,0.95", "--adaptive"]) == 0
    assert "coverage 95 %" in capsys.readouterr().out
    out = tmp_path / "out.csv"
    assert run_command(["predict", run, "--out", str(out), "--intervals", "0.8"]) == 0
    assert "lo-80,hi-80,observed" in out.read_text().splitlines()[0]
    for flags, message in [
        (["--intervals", "80"], "each is the probability to cover, between 0 and 1"),
        (["--intervals", "0.999"], "need 1999 observed targets"),
        (["--adaptive"], "add --intervals 0.8,0.95"),
    ]:
        assert run_command(["evaluate", run, *flags]) == 2
        assert message in capsys.readouterr().err
