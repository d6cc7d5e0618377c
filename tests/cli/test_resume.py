"""`pgti train --resume` and `--overwrite` on runs that exist."""

from pathlib import Path

import pytest
import torch

from pgti import Run
from pgti.cli.main import run_command
from pgti.training import RunDirectory

OPTIONS = ("--model", "gru", "--model.hidden", "4", "--windows.input-steps", "4",
           "--windows.horizon", "3", "--batch-size", "64", "--learning-rate", "0.02",
           "--schedule", "multistep", "--schedule.milestones", "1", "--epochs", "2")  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "store"
    assert run("simulate", "--sensors", 5, "--steps", 400, "--out", path) == 0
    return path


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def parameters_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(RunDirectory.open(path).load_last().network)


def test_a_bare_resume_has_the_runs_own_options(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = tmp_path / "whole", tmp_path / "run"
    assert run("train", store, "--run", whole, *OPTIONS) == 0
    assert run("train", store, "--run", path, *OPTIONS, "--max-steps", 5) == 0
    assert run("train", store, "--run", path, "--resume", "--max-steps", 1000) == 0
    for name, tensor in parameters_of(whole).items():
        assert torch.equal(tensor, parameters_of(path)[name])
    config = Run.open(path).config
    assert (config.model.name, config.training.learning_rate) == ("gru", 0.02)
    assert config.training.max_steps == 1000
    capsys.readouterr()
    assert run("train", store, "--run", path, "--resume", "--learning-rate", 0.5) == 2
    assert "learning_rate = 0.02 and cannot be resumed with 0.5" in capsys.readouterr().err


def test_a_finished_run_says_so_and_does_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    assert run("train", store, "--run", path, *OPTIONS) == 0
    first = capsys.readouterr().out
    before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    assert run("train", store, "--run", path, "--resume") == 0
    shown = capsys.readouterr()
    assert "is finished after 2 epochs: there is nothing to train" in shown.err
    assert {each: each.read_bytes() for each in path.rglob("*") if each.is_file()} == before
    errors = [line for line in first.splitlines() if "MAE" in line or "RMSE" in line]
    assert errors
    assert all(line in shown.out for line in errors if "validation" not in line)


def test_resume_without_a_run_begins_one(store: Path, tmp_path: Path) -> None:
    assert run("train", store, "--run", tmp_path / "run", "--resume", *OPTIONS) == 0
    assert Run.open(tmp_path / "run").config.model.name == "gru"


def test_overwrite_replaces_a_run(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    assert run("train", store, "--run", path, *OPTIONS) == 0
    assert run("train", store, "--run", path, *OPTIONS) == 2
    assert "resume it with --resume, replace it with --overwrite" in capsys.readouterr().err
    assert run("train", store, "--run", path, *OPTIONS[:-2], "--overwrite", "--epochs", 1) == 0
    assert len(Run.open(path).history) == 1
    assert run("train", store, "--run", path, "--overwrite", "--resume") == 2
    assert "exclude each other" in capsys.readouterr().err
