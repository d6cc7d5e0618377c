"""`pgti models` lists what can be trained, and the sizes that models really have."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pgti.cli.main import run_command
from pgti.models import MODELS

HEADING = ["option", "type", "default", "meaning"]


def listed(capsys: pytest.CaptureFixture[str], *tokens: str) -> dict[str, dict[str, object]]:
    assert run_command(["models", *tokens, "--json"]) == 0
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    models: dict[str, dict[str, object]] = content["models"]
    return models


def test_all_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With parameters, paper and options."""
    models = listed(capsys)
    assert list(models) == sorted(name for name, entry in MODELS.items() if not entry.library)
    assert all(each["parameters"] and each["paper"] for each in models.values())
    assert models["dcrnn"]["options"] == {
        "hidden": 32,
        "layers": 2,
        "hops": 2,
        "scheduled_sampling": False,
        "sampling_decay": 2000.0,
    }


def test_models_that_read_any_history_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    """In the list, in JSON, and in the description of one."""
    takers = {name for name, each in listed(capsys).items() if each["history"] == "any"}
    assert takers == {"linear", "stid", "st-balance"}
    assert run_command(["models", "stid"]) == 0
    assert "--windows.history 14d or 1d..7d" in capsys.readouterr().out
    assert run_command(["models", "dcrnn"]) == 0
    assert "whole earlier days, such as --windows.history 1d..7d" in capsys.readouterr().out


def test_models_have_the_calendar_of_their_papers(capsys: pytest.CaptureFixture[str]) -> None:
    """And so the parameters that are published for METR-LA."""
    models = listed(capsys)
    assert models["stid"]["parameters"] == 117_868
    assert models["staeformer"]["parameters"] == 1_258_980


@pytest.mark.parametrize("model", ["dcrnn", "stid"])
def test_parameters_are_those_of_a_run(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted for a store, they are what `train` says of the same store."""
    store, run = str(tmp_path / "store"), str(tmp_path / "run")
    assert run_command(["simulate", "--sensors", "4", "--steps", "120", "--out", store]) == 0
    arguments = ["--run", run, "--max-steps", "1", "--batch-size", "2", "--json"]
    assert run_command(["train", store, "--model", model, *arguments]) == 0
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"]
    assert run_command(["models", model, "--store", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][model]["parameters"] == trained
    assert run_command(["models", model, "--store", store]) == 0
    assert f"{trained:,} for 4 sensors, 12 steps in, 12 out" in capsys.readouterr().out


def test_options_have_types_defaults_and_a_sentence_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For every model of ours; `train --help` does not list them."""
    for name, entry in MODELS.items():
        if entry.library:
            continue
        assert run_command(["models", name]) == 0
        rows = [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()]
        found = {row[0]: row[1:] for row in rows[rows.index(HEADING) + 1 :]}
        assert list(found) == [f"--model.{e.name.replace('_', '-')}" for e in fields(entry.config)]
        for row in found.values():
            assert len(row) == 3, row
            assert row[2].endswith("."), row
    assert run_command(["models", "graph-wavenet"]) == 0
    rows = [re.split(r" {2,}", line)[:3] for line in capsys.readouterr().out.splitlines()]
    for row in (["--model.hidden", "whole number", "32"], ["--model.dropout", "number", "0.3"],
                ["--model.adjacency", "text", "auto"]):  # fmt: skip
        assert row in rows


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the nearest name."""
    assert run_command(["models", "dcrn"]) == 2
    assert "did you mean 'dcrnn'" in capsys.readouterr().err
