"""The command line from end to end, on a small simulated store."""

import json
import os
import signal
import sys
import time
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pgti import ConfigError, TrainingConfig, WindowConfig
from pgti.cli.breakdowns import parse_ranges
from pgti.cli.main import main, run_command
from pgti.store import SeriesStore

from ..conftest import ProcessPool, pgti_process

TINY = (
    "--model.hidden", "4", "--model.layers", "1", "--windows.input-steps", "4",
    "--windows.horizon", "3", "--batch-size", "64",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 6 sensors and two days."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run("simulate", "--sensors", 6, "--steps", 576, "--out", path) == 0
    return path


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert run("train", store, "--run", path, "--epochs", 2, *TINY) == 0
    return path


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def printed_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_info(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`info --json` gives the fields that scripts rely on."""
    assert run("info", store, "--json", "--verify") == 0
    info = printed_json(capsys)
    assert (info["steps"], info["sensors"], info["channels"]) == (576, 6, ["speed"])
    assert (info["dtype"], info["bytes"], info["interval_seconds"]) == ("int16", 576 * 6 * 2, 300)
    assert info["start"] == "2025-01-06T00:00:00"
    assert 0 <= info["missing_fraction"] < 0.2
    assert info["edges"] > 0


def test_train_ends_with_one_object(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train --json` reports the run, its losses and its test errors beside the baselines."""
    assert run("train", store, "--run", tmp_path / "r", "--max-steps", 3, *TINY, "--json") == 0
    result = printed_json(capsys)
    assert (result["steps"], result["epochs"]) == (3, 1)
    for name in ("train_loss", "windows_per_second", "seconds", "peak_pss_bytes"):
        assert result[name] > 0, name
    assert result["val"]["mae"] > 0
    assert set(result["test"]["mae"]) == {"1", "2", "3", "mean", "average"}
    for baseline in ("persistence", "historical-average"):
        assert result["test"][baseline]["rmse"]["mean"] >= result["test"][baseline]["mae"]["mean"]
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names >= {"config.toml", "run.json", "metrics.jsonl", "checkpoints", "test.json"}


def test_a_few_windows_are_told_of(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--val-windows`, `--test-windows` and `evaluate --windows` say what was left out."""
    path = tmp_path / "r"
    few = ("--val-windows", 5, "--test-windows", 7)
    assert run("train", store, "--run", path, "--max-steps", 1, *few, *TINY, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    total = result["test"]["split_windows"]
    assert result["test"]["windows"] == 7 < total
    assert result["test"]["count"] <= 7 * 3 * 6
    assert 0 < result["seconds_to_training"] < result["seconds_to_first_step"]
    assert "first optimizer step" in captured.err

    assert run("evaluate", path, "--windows", 7, "--json") == 0
    assert printed_json(capsys)["test"] == result["test"]
    assert run("evaluate", path, "--windows", 7) == 0
    assert f"on test (7 of {total} windows)" in capsys.readouterr().out
    assert run("evaluate", path) == 0
    assert f"on test ({total} windows)" in capsys.readouterr().out
    assert run("evaluate", path, "--windows", 0) == 2
    assert "max_windows is 0" in capsys.readouterr().err
    assert run("train", store, "--run", tmp_path / "n", "--test-windows", 0) == 2
    assert "test-windows is 0" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()


def test_the_end_of_a_training_says_what_was_trained(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows of each split, parameters, edges and the best epoch, in both forms."""
    options = ("--epochs", 2, *TINY)
    assert run("train", store, "--run", tmp_path / "a", *options, "--json") == 0
    result = printed_json(capsys)
    assert run("train", store, "--run", tmp_path / "b", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines[1:6]}
    assert lines[0] == f"the run in {tmp_path / 'b'}"
    assert facts["model"] == f"dcrnn, {result['parameters']} parameters"
    assert facts["graph"] == f"6 sensors, {result['edges']} edges"
    assert facts["windows"] == "train 399, val 57, test 114"
    assert facts["epochs"].startswith("2 of 2; 14 steps in ")
    mae = result["val"]["mae"]
    assert facts["best epoch"] == f"{result['best_epoch']}, validation MAE {mae:.4f} mph"
    assert result["windows"] == {"train": 399, "val": 57, "test": 114}
    assert SeriesStore.open(store).meta.num_edges == result["edges"]
    assert lines[7].startswith("dcrnn on test (114 windows): speed in mph")


def test_tensorboard_writes_into_the_run(store: Path, tmp_path: Path) -> None:
    """With --tensorboard a new run gets event files."""
    path = tmp_path / "run"
    assert run("train", store, "--run", path, "--max-steps", 1, *TINY, "--tensorboard") == 0
    (events,) = (path / "tensorboard").iterdir()
    assert events.stat().st_size > 0


def test_standard_and_index_train_alike(store: Path, tmp_path: Path) -> None:
    """Both strategies give the same parameters, bit for bit."""
    weights = []
    for batching in ("index", "standard"):
        path = tmp_path / batching
        assert run("train", store, "--run", path, "--max-steps", 4, *TINY,
                   "--batching", batching) == 0  # fmt: skip
        state = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
        weights.append(state["network"])
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_evaluate(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`evaluate` repeats what `train` wrote, and gives every split on request."""
    assert run("evaluate", trained, "--json", "--split", "all") == 0
    report = printed_json(capsys)
    assert report["test"] == json.loads((trained / "test.json").read_text())
    assert {"train", "val", "test"} <= set(report)


def test_evaluate_shows_where_the_model_errs(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short table by itself, every group with --by, and all of them in a file."""
    assert run("evaluate", trained) == 0
    short = capsys.readouterr().out
    assert "where dcrnn errs most, test" in short
    assert sum(line.startswith("sensor") for line in short.splitlines()) == 3
    assert len(short.splitlines()) < 30
    ranges = ("--ranges", "40,60", "--mape-threshold", 30)
    assert run("evaluate", trained, "--by", "sensor,range", *ranges) == 0
    long = capsys.readouterr().out
    assert "dcrnn by sensor, test" in long
    assert "40 to 60 mph" in long
    assert "errs most" not in long
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        out = tmp_path / f"errors{suffix}"
        assert run("evaluate", trained, "--out", out, *ranges) == 0
        assert f"rows in {out}" in capsys.readouterr().err
        frame = read(out)
        assert list(frame.columns) == [
            "split", "forecaster", "channel", "by", "group", "mae", "rmse", "mape", "count",
        ]  # fmt: skip
        assert set(frame["by"]) == {"sensor", "hour", "weekday", "hour-of-week", "range"}
        assert frame.query("by == 'sensor' and forecaster == 'dcrnn'")["count"].sum() > 0
        pooled = frame.query("by == 'weekday' and forecaster == 'dcrnn'")
        report = json.loads((trained / "test.json").read_text())
        mae = (pooled["mae"] * pooled["count"]).sum() / pooled["count"].sum()
        assert mae == pytest.approx(report["mae"]["mean"], rel=1e-6)


def test_ranges_of_several_targets_are_read() -> None:
    assert parse_ranges(()) is None
    assert parse_ranges(("30", "50")) == [30.0, 50.0]
    assert parse_ranges(("speed=30", "50", "flow=1e3")) == {"speed": [30, 50], "flow": [1000]}
    with pytest.raises(ConfigError, match="--ranges has 'fast'"):
        parse_ranges(("30", "fast"))


def test_predict_after_the_end(trained: Path, tmp_path: Path) -> None:
    """By default the steps after the last reading are forecast, one row each."""
    assert run("predict", trained, "--out", tmp_path / "f.csv") == 0
    frame = pd.read_csv(tmp_path / "f.csv", parse_dates=["timestamp", "origin"])
    assert len(frame) == 3 * 6
    assert frame["origin"].unique() == pd.Timestamp("2025-01-07T23:55")
    assert sorted(frame["timestamp"].unique()) == list(
        pd.date_range("2025-01-08", periods=3, freq="5min")
    )
    assert set(frame["sensor"].astype(str)) == set("012345")
    assert frame["forecast"].between(0, 100).all()


def test_predict_a_split_and_a_range(trained: Path, tmp_path: Path) -> None:
    """A split gives all its windows; a range those whose first step lies in it."""
    assert run("predict", trained, "--out", tmp_path / "s.npz", "--split", "test") == 0
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        info = json.loads((trained / "run.json").read_text())
        assert arrays["forecast"].shape == (info["windows"]["test"], 3, 6, 1)
    times = ("--from", "2025-01-07T23:00", "--to", "2025-01-08T00:00")
    assert run("predict", trained, "--out", tmp_path / "r.parquet", *times) == 0
    frame = pd.read_parquet(tmp_path / "r.parquet")
    firsts = frame.loc[frame["horizon"] == 1, "timestamp"].unique()
    expected = pd.date_range("2025-01-07T23:00", "2025-01-08T00:00", freq="5min")
    assert sorted(pd.to_datetime(firsts)) == list(expected)


def test_predict_from_recent_readings(trained: Path, tmp_path: Path) -> None:
    """Readings that came later, in a file with times, are forecast from with the run's graph."""
    index = pd.date_range("2025-03-01", periods=9, freq="5min")
    values = np.random.default_rng(0).integers(400, 700, (9, 6)) / 10
    frame = pd.DataFrame(values, index=index, columns=[str(i) for i in range(6)])
    frame.to_csv(tmp_path / "recent.csv", index_label="time")
    assert run("predict", trained, "--readings", tmp_path / "recent.csv",
               "--out", tmp_path / "f.csv") == 0  # fmt: skip
    forecast = pd.read_csv(tmp_path / "f.csv", parse_dates=["timestamp"])
    assert forecast["timestamp"].min() == pd.Timestamp("2025-03-01T00:45")
    assert len(forecast) == 18


def test_config_file_and_command_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A TOML file sets any option, and what is typed wins."""
    config = tmp_path / "run.toml"
    config.write_text(
        'batching = "standard"\n[windows]\ninput_steps = 4\nhorizon = 3\n'
        "fractions = [0.6, 0.2, 0.2]\n"
        '[model]\nname = "dcrnn"\nhidden = 4\nlayers = 1\nscheduled_sampling = false\n'
        "[training]\nepochs = 9\nmax_steps = 2\nbatch_size = 32\n"
        '[training.schedule]\nkind = "multistep"\nmilestones = [2, 5]\n'
    )
    path = tmp_path / "run"
    assert run("train", store, "--config", config, "--run", path, "--model.hidden", 3,
               "--windows.horizon=2", "--batching", "index") == 0  # fmt: skip
    text = (path / "config.toml").read_text()
    for line in ("hidden = 3", "horizon = 2", 'batching = "index"', "scheduled_sampling = false"):
        assert line in text
    content = tomllib.loads(text)
    assert content["training"]["schedule"]["milestones"] == [2, 5]
    assert content["windows"]["fractions"] == [0.6, 0.2, 0.2]
    # The resolved configuration of a run is such a file too.
    again = tmp_path / "again"
    assert run("train", store, "--config", path / "config.toml", "--run", again) == 0
    assert (again / "config.toml").read_text() == text
    capsys.readouterr()


def test_a_run_repeats_from_its_own_configuration(store: Path, tmp_path: Path) -> None:
    """An option that was switched off stays off when the file is read back."""
    config = tmp_path / "run.toml"
    config.write_text("[windows]\ncalendar = []\n[training]\nbatch_size = 16\n")
    for name in ("one", "two"):
        assert run("train", store, "--config", config, "--run", tmp_path / name, "--max-steps", 2,
                   "--batch_size", 64, *TINY[:-2]) == 0  # fmt: skip
        config = tmp_path / "one" / "config.toml"
    first, second = ((tmp_path / name / "config.toml").read_text() for name in ("one", "two"))
    assert first == second
    assert "calendar = []" in first
    assert "batch_size = 64" in first
    parameters = [json.loads((tmp_path / n / "run.json").read_text())["parameters"]
                  for n in ("one", "two")]  # fmt: skip
    assert parameters[0] == parameters[1]


def test_lists_are_written_with_commas(store: Path, tmp_path: Path) -> None:
    """Every option that takes a list takes it with commas."""
    path = tmp_path / "run"
    assert run("train", store, "--run", path, "--max-steps", 1, *TINY, "--schedule", "multistep",
               "--schedule.milestones", "3,7", "--windows.fractions", "0.5,0.25,0.25",
               "--windows.calendar", "time-of-day,day-of-week") == 0  # fmt: skip
    content = tomllib.loads((path / "config.toml").read_text())
    assert content["training"]["schedule"]["milestones"] == [3, 7]
    assert content["windows"]["fractions"] == [0.5, 0.25, 0.25]
    assert content["windows"]["calendar"] == ["time-of-day", "day-of-week"]


def test_sigterm_saves_and_resume_goes_on(
    process_pool: ProcessPool, store: Path, tmp_path: Path
) -> None:
    """SIGTERM ends the process with 143 after a checkpoint, and --resume finishes the run."""
    path = tmp_path / "run"
    options = ("--epochs", 200, "--log-every-steps", 1, *TINY)
    process = pgti_process("train", store, "--run", path, *options, log=tmp_path / "log")
    with process_pool.job([process]) as job:
        metrics = path / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.05)
        os.kill(job.pids[0], signal.SIGTERM)
        assert job.end(0) == 143, job.log()
    assert "resume it with --resume" in job.log()
    done = torch.load(path / "checkpoints" / "last.pt", weights_only=True)["position"]["step"]
    assert done > 0
    assert run("train", store, "--run", path, "--resume", "--max-steps", done + 2, *options) == 0
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [record["step"] for record in records if record["kind"] == "step"]
    assert steps == list(range(1, done + 3))


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself."""
    for command in ((), ("ingest",), ("info",), ("simulate",), ("train",), ("evaluate",),
                    ("predict",)):  # fmt: skip
        assert run(*command, "--help") == 0
        assert "Usage: pgti" in capsys.readouterr().out
    assert run("--version") == 0


def test_train_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Options of the windows and of the training are all in the help; those of a model are not."""
    assert run("train", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for config in (TrainingConfig, WindowConfig):
        for each in fields(config):
            assert each.name.replace("_", "-") in shown, each.name
    assert "pgti models NAME" in shown
    assert "sampling-decay" not in shown


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SIGTERM", 143),
        pytest.param(
            "SIGHUP",
            129,
            marks=pytest.mark.skipif(
                not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
                reason="there is no SIGHUP, or it is ignored, as under nohup",
            ),
        ),
    ],
)
def test_a_signal_leaves_nothing_of_a_simulation(
    process_pool: ProcessPool, tmp_path: Path, name: str, code: int
) -> None:
    """A store that was being written is removed when the process is asked to end."""
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    process = pgti_process("simulate", "--steps", 5000000, "--out", out / "new/store", log=log)
    with process_pool.job([process]) as job:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(out.glob("new/.store*")):
            time.sleep(0.05)
        os.kill(job.pids[0], getattr(signal, name))
        assert job.end(0) == code, job.log()
    assert list(out.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_a_hangup_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was started by nohup outlives its terminal."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    monkeypatch.setattr(sys, "argv", ["pgti", "--version"])
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with pytest.raises(SystemExit, match="0"):
            main()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        assert signal.getsignal(signal.SIGINT) is not before[2]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_several_channels_are_reported_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With several targets each channel has its own errors, in the JSON and as a table."""
    values = np.random.default_rng(0).normal([60.0, 900.0], [5.0, 90.0], size=(300, 3, 2))
    np.save(tmp_path / "two.npy", values)
    assert run("ingest", tmp_path / "two.npy", "--channels", "speed,flow", "--units", "mph,veh/h",
               "--out", tmp_path / "store") == 0  # fmt: skip
    path = tmp_path / "run"
    assert run("train", tmp_path / "store", "--run", path, "--max-steps", 2, *TINY, "--json",
               "--allow-no-edges") == 0  # fmt: skip
    captured = capsys.readouterr()
    assert "--windows.targets" in captured.err
    test = json.loads(captured.out)["test"]
    assert test["channels"]["flow"]["mae"]["mean"] > test["channels"]["speed"]["mae"]["mean"]
    assert run("evaluate", path) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name, unit in (("speed", "mph"), ("flow", "veh/h")):
        assert test["persistence"]["channels"][name]["mae"]["1"] > 0
        assert [name, "persistence", "MAE", unit] in [row[:4] for row in rows]
    assert ["all", "dcrnn", "MAE"] in [row[:3] for row in rows]


def test_readings_without_ids_take_those_of_the_run(tmp_path: Path) -> None:
    """An array of recent readings is forecast from by position, whatever the run's sensor ids."""
    index = pd.date_range("2025-03-01", periods=200, freq="5min")
    values = np.random.default_rng(0).integers(400, 700, (200, 3)) / 10
    frame = pd.DataFrame(values, index=index, columns=["north", "mid", "south"])
    frame.to_csv(tmp_path / "all.csv", index_label="time")
    assert run("ingest", tmp_path / "all.csv", "--out", tmp_path / "store") == 0
    path = tmp_path / "run"
    assert run("train", tmp_path / "store", "--run", path, "--max-steps", 1, *TINY,
               "--allow-no-edges") == 0  # fmt: skip
    np.save(tmp_path / "recent.npy", values[:9])
    assert run("predict", path, "--readings", tmp_path / "recent.npy", "--start", "2025-04-01",
               "--out", tmp_path / "f.csv") == 0  # fmt: skip
    assert set(pd.read_csv(tmp_path / "f.csv")["sensor"]) == {"north", "mid", "south"}
