"""`pgti-bench models`: models within a memory limit."""

import json
from pathlib import Path

import pytest

from pgti_bench import models
from pgti_bench.app import run_command

from .in_process_commands import PEAK_BYTES, InProcessCommands


def test_models_are_trained_within_the_limit(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that trains has its figures, one that is killed says so."""
    commands = InProcessCommands(killed=("gru",))
    monkeypatch.setattr(models, "run_limited", commands)
    options = ["--models", "linear,gru", "--limit", "4GiB", "--json"]
    assert run_command(["models", str(store), *options]) == 0
    linear, gru = json.loads(capsys.readouterr().out)["models"]
    assert (linear["model"], linear["outcome"]) == ("linear", "done")
    assert linear["parameters"] > 0
    assert linear["seconds_per_step"] > 0
    assert not linear["is_checkpointed"]
    assert linear["peak_pss_bytes"] == PEAK_BYTES + 1
    assert linear["group_peak_bytes"] == 2 << 30
    assert (gru["outcome"], gru["parameters"]) == ("killed by its limit", None)
    assert all(line[line.index("--memory-budget") + 1] == str(4 << 30) for line in commands.ran)


def test_an_unknown_model_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["models", str(store), "--models", "lstm"]) == 2
    assert "there is no model 'lstm'" in capsys.readouterr().err
