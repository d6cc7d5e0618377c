"""Runs of versions without an option evaluate, forecast and resume as they did."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
import torch

import pgti
from pgti.batching import WindowConfig
from pgti.cli.main import run_command
from pgti.run import ModelConfig, train_run
from pgti.run.config import read_toml
from pgti.store import SeriesStore
from pgti.training import RunDirectory

from .small_runs import WINDOWS, make_config, make_series, make_store

NEW_OPTIONS = ("fill", "observed_mask")


@pytest.fixture
def store(tmp_path: Path) -> SeriesStore:
    values = make_series(num_steps=120)
    values[np.random.default_rng(0).random(values.shape) < 0.2] = np.nan
    values[-1, 1] = np.nan
    return make_store(tmp_path / "store", values)


def train_earlier(
    store: SeriesStore, path: Path, *, climatology: bool = False, **training: Any
) -> None:
    """A run as a version wrote it that had none of the new options, and other names of some."""
    config = make_config(store, **training)
    windows = replace(WINDOWS, fill="mean", climatology=climatology)
    train_run(replace(config, windows=windows), path, store=store)
    directory = RunDirectory(path)
    options = read_toml(directory.config_file)
    make_earlier(options["windows"])
    directory.write_config(tomli_w.dumps(options))
    for each in (directory.last_checkpoint, directory.best_checkpoint):
        content = torch.load(each, weights_only=True)
        make_earlier(content["settings"]["windows"])
        std = content["scaler"]["std"]
        content["scaler"]["std"] = np.nextafter(std, np.inf).tolist()  # summed in another order
        torch.save(content, each)


def make_earlier(windows: dict[str, Any]) -> None:
    for name in NEW_OPTIONS:
        del windows[name]
    windows["profile"] = windows.pop("climatology")


def parameters_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(RunDirectory.open(path).load_last().network)


def test_an_earlier_run_has_the_mean_for_what_is_missing(
    store: SeriesStore, tmp_path: Path
) -> None:
    """Its errors and forecasts are those of a run that names it, and not those of today's rule."""
    train_earlier(store, tmp_path / "run")
    run = pgti.Run.open(tmp_path / "run")
    assert run.config.windows.fill == "mean"
    named = shutil.copytree(tmp_path / "run", tmp_path / "named")
    (named / "config.toml").write_text(run.config.to_toml())
    again = pgti.Run.open(named)
    assert run.evaluate().to_dict() == again.evaluate().to_dict()
    forecast = run.forecast()
    pd.testing.assert_frame_equal(forecast, again.forecast())
    today = replace(run.config, windows=replace(run.config.windows, fill="last"))
    (named / "config.toml").write_text(today.to_toml())
    assert not forecast["forecast"].equals(pgti.Run.open(named).forecast()["forecast"])


def test_a_climatology_was_a_profile(store: SeriesStore, tmp_path: Path) -> None:
    """A run with it has its channels, evaluates and resumes; also as a file of options."""
    train_earlier(store, tmp_path / "whole", epochs=2, climatology=True)
    train_earlier(store, tmp_path / "run", epochs=1, climatology=True)
    run = pgti.Run.open(tmp_path / "run")
    assert run.config.windows.climatology
    file = shutil.copy(tmp_path / "run" / "config.toml", tmp_path / "own.toml")
    pgti.train(store, tmp_path / "run", epochs=2, resume=True, progress=False)
    for name, tensor in parameters_of(tmp_path / "whole").items():
        assert torch.equal(tensor, parameters_of(tmp_path / "run")[name])
    assert read_toml(tmp_path / "run" / "config.toml")["windows"]["climatology"] is True
    command = ["train", store.path, "--run", tmp_path / "new", "--config", file, "--epochs", 1]
    assert run_command([str(each) for each in command]) == 0
    assert pgti.Run.open(tmp_path / "new").config.windows.climatology


@pytest.mark.parametrize("how", ["cli", "cli with a file", "python", "python with windows"])
def test_an_earlier_run_is_resumed(
    store: SeriesStore, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the parameters that one training would have had; its own options say what it does."""
    train_earlier(store, tmp_path / "whole", epochs=3)
    train_earlier(store, tmp_path / "run", epochs=1)
    resume: dict[str, Any] = {"resume": True, "epochs": 3, "progress": False}
    command = ["train", store.path, "--run", tmp_path / "run", "--resume", "--epochs", 3]
    if how == "cli with a file":
        file = tmp_path / "own.toml"
        shutil.copy(tmp_path / "run" / "config.toml", file)
        command += ["--config", file]
    if how.startswith("cli"):
        assert run_command([str(each) for each in command]) == 0
    elif how == "python":
        pgti.train(store, tmp_path / "run", **resume)
    else:
        pgti.train(
            store, tmp_path / "run", windows=WindowConfig(input_steps=3, horizon=2), **resume
        )
    for name, tensor in parameters_of(tmp_path / "whole").items():
        assert torch.equal(tensor, parameters_of(tmp_path / "run")[name])
    assert read_toml(tmp_path / "run" / "config.toml")["windows"]["fill"] == "mean"
    is_said = "the run is of an earlier version: --windows.fill mean stays"
    assert (is_said in capsys.readouterr().err) == (how == "cli with a file")


def test_a_new_run_has_the_rule_of_today(store: SeriesStore, tmp_path: Path) -> None:
    """Also where it replaces an earlier one."""
    train_earlier(store, tmp_path / "run", epochs=1)
    config = make_config(store, epochs=1)
    run, _ = train_run(config, tmp_path / "run", store=store, overwrite=True)
    assert run.config.windows.fill == "last"
    assert read_toml(tmp_path / "run" / "config.toml")["windows"]["fill"] == "last"


def test_models_without_the_time_of_day_had_it_in_earlier_runs(
    store: SeriesStore, tmp_path: Path
) -> None:
    """Those evaluate and resume with it; a new run has none, unless the default is asked for."""
    config = replace(
        make_config(store, epochs=2), model=ModelConfig(name="tgcn", options={"hidden": 2})
    )
    run, _ = train_run(config, tmp_path / "new", store=store)
    assert run.source.calendar == pgti.Run.open(tmp_path / "new").config.windows.calendar == ()
    for calendar in (("time-of-day",), ("default",)):
        windows = replace(WINDOWS, calendar=calendar)
        run, _ = train_run(
            replace(config, windows=windows), tmp_path / "whole", store=store, overwrite=True
        )
        assert run.source.calendar == ("time-of-day",)
    first = replace(config, windows=windows, training=replace(config.training, epochs=1))
    train_run(first, tmp_path / "run", store=store)
    directory = RunDirectory(tmp_path / "run")
    options = read_toml(directory.config_file)
    del options["windows"]["calendar"]
    directory.write_config(tomli_w.dumps(options))
    for each in (directory.last_checkpoint, directory.best_checkpoint):
        content = torch.load(each, weights_only=True)
        content["settings"]["windows"]["calendar"] = None
        torch.save(content, each)
    assert pgti.Run.open(tmp_path / "run").source.calendar == ("time-of-day",)
    pgti.train(store, tmp_path / "run", epochs=2, resume=True, progress=False)
    for name, tensor in parameters_of(tmp_path / "whole").items():
        assert torch.equal(tensor, parameters_of(tmp_path / "run")[name])


@pytest.mark.parametrize(
    ("model", "option"), [("stgcn", "self_loops"), ("stid", "history_embedding")]
)
def test_an_earlier_run_of_a_model_with_a_new_option_is_resumed(
    store: SeriesStore, tmp_path: Path, model: str, option: str
) -> None:
    """Its default is what the model did before it had it."""
    config = make_config(store, epochs=1)
    windows = replace(WINDOWS, input_steps=9)
    config = replace(config, windows=windows, model=ModelConfig(name=model))
    train_run(config, tmp_path / "run", store=store)
    directory = RunDirectory(tmp_path / "run")
    options = read_toml(directory.config_file)
    content = torch.load(directory.last_checkpoint, weights_only=True)
    del options["model"][option], content["settings"]["model"][option]
    directory.write_config(tomli_w.dumps(options))
    torch.save(content, directory.last_checkpoint)
    run = pgti.train(store, tmp_path / "run", epochs=2, resume=True, progress=False)
    assert run.directory.load_last().progress.epoch == 2
