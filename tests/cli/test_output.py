"""Where output goes: results on standard output as tables or JSON, everything else beside them."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgti.cli.error_tables import error_tables
from pgti.cli.main import run_command
from pgti.cli.output import build_table, facts_table, print_results
from pgti.forecasting import Report

LONG = "a sentence that no terminal has room for, " * 10 + "and its end"


class Terminal(io.StringIO):
    """Standard output on a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int, *tables: Any) -> list[str]:
    """The lines of tables on a terminal, without control codes."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    print_results({}, *tables, as_json=False)
    return [
        line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    ]


@pytest.mark.parametrize("width", ["20", "80", None])
def test_without_a_terminal_a_table_is_neither_cut_nor_wrapped(
    width: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the environment says of the width, and whatever the cells hold."""
    if width is not None:
        monkeypatch.setenv("COLUMNS", width)
    rows = [("[/x]", LONG, "1"), ("b", ":-)", "20")]
    table = build_table("a [bold]title[/bold]", ("sensor", "text", "value"), rows, num_texts=2)
    print_results({}, table, facts_table("", {"name": LONG}), as_json=False)
    captured = capsys.readouterr()
    title, heading, first, second, empty, fact = captured.out.splitlines()
    assert title == "a [bold]title[/bold]"
    assert heading.split() == ["sensor", "text", "value"]
    assert first == f"[/x]    {LONG}      1"
    assert second.split() == ["b", ":-)", "20"]
    assert second.index("20") == first.rindex("1") - 1
    assert (empty, fact) == ("", f"name  {LONG}")
    assert captured.err == ""


def test_a_terminal_wraps_texts_and_never_cuts_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, row = ("model", "text", "error"), ("dcrnn", LONG, "12.345")
    table = build_table("title", columns, [row], num_texts=2)
    lines = shown_on_a_terminal(monkeypatch, 60, table)
    assert max(map(len, lines)) <= 60
    assert len(lines) > 5
    assert " ".join(lines).count("12.345") == 1
    wide = build_table("title", columns, [("d" * 50, LONG, "12.345")], num_texts=1)
    assert shown_on_a_terminal(monkeypatch, 60, wide)[-1] == f"{'d' * 50}  {LONG}  12.345"


def report(num_steps: int, units: dict[str, str], interval_seconds: int | None = 300) -> Report:
    """A report of one model, whose error at a step is its number."""
    errors = {str(step): float(step) for step in range(1, num_steps + 1)} | {"mean": 7.25}
    table = {"mae": errors, "rmse": errors, "mape": dict.fromkeys(errors), "count": 9}
    of_channels = {"channels": dict.fromkeys(units, table)} if len(units) > 1 else {}
    content = {"test": {**table, **of_channels, "windows": 5, "split_windows": 5}}
    return Report(content, model="dcrnn", units=units, interval_seconds=interval_seconds)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 7, 12, 13, 288])
def test_the_last_step_and_the_mean_are_always_shown(
    num_steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the unit of the channel, and the minutes of each step."""
    print_results({}, *error_tables(report(num_steps, {"speed": "mph"})), as_json=False)
    _, heading, mae, _, mape = capsys.readouterr().out.splitlines()
    assert re.search(rf"step {num_steps} \(.+\)  +mean  +average$", heading)
    assert heading.count("step") <= 4
    assert mae.split()[:3] == ["dcrnn", "MAE", "mph"]
    average = (num_steps + 1) / 2  # added to the tables of earlier versions
    assert mae.split()[-3:] == [f"{num_steps:.3f}", "7.250", f"{average:.3f}"]
    assert mape.split()[:3] == ["dcrnn", "MAPE", "%"]
    assert mape.split()[-1] == "-"


def test_minutes_are_those_of_the_interval(capsys: pytest.CaptureFixture[str]) -> None:
    for interval, wanted in ((300, "step 12 (60 min)"), (900, "step 12 (3 h)"), (None, "step 12 ")):
        units = {"speed": "mph"}
        print_results({}, *error_tables(report(12, units, interval)), as_json=False)
        assert wanted in capsys.readouterr().out


def test_channels_have_their_own_units(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors over channels of different units have none."""
    print_results({}, *error_tables(report(2, {"speed": "mph", "flow": "veh/h"})), as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for start in (["all", "dcrnn", "MAE", "1.000"], ["speed", "dcrnn", "MAE", "mph"],
                  ["flow", "dcrnn", "RMSE", "veh/h"]):  # fmt: skip
        assert start in [line[:4] for line in lines]
    same = error_tables(report(2, {"in": "veh/h", "out": "veh/h"}))
    print_results({}, *same, as_json=False)
    assert "all      dcrnn       MAE veh/h" in capsys.readouterr().out


COMMANDS = (
    ("info", "STORE"),
    ("datasets",),
    ("datasets", "METR-LA"),
    ("models", "gru"),
    ("evaluate", "RUN"),
    ("plan", "STORE", "--world-size", "2", "--windows.horizon", "2", "--windows.input-steps", "3"),
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store of 4 sensors with a dead one, and a run on it."""
    path = tmp_path_factory.mktemp("data")
    values = np.random.default_rng(0).normal(60, 5, (120, 4)).round(1)
    values[:, 2] = np.nan
    np.save(path / "values.npy", values)
    found = {"STORE": str(path / "store"), "RUN": str(path / "run")}
    start = ("--start", "2025-10-25T12:00", "--interval", "15min", "--time-zone", "Europe/Berlin",
             "--channels", "speed", "--units", "km/h")  # fmt: skip
    assert run_command(["ingest", str(path / "values.npy"), "--out", found["STORE"], *start]) == 0
    options = ("--windows.horizon", "2", "--windows.input-steps", "3", "--max-steps", "2",
               "--model", "gru", "--model.hidden", "3", "--batch-size", "8")  # fmt: skip
    assert run_command(["train", found["STORE"], "--run", found["RUN"], *options]) == 0
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_tables_or_one_object_are_alone_on_standard_output(
    command: tuple[str, ...], paths: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = [paths.get(token, token) for token in command]
    capsys.readouterr()
    assert run_command([*tokens, "--json"]) == 0
    captured = capsys.readouterr()
    assert isinstance(json.loads(captured.out), dict)
    assert captured.out.count("\n") == 1
    assert "  " not in captured.err, "a table on standard error"
    assert run_command(tokens) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) > 3
    assert "pgti: " not in captured.out
    assert "\x1b" not in captured.out
    assert "  " not in captured.err


@pytest.mark.parametrize("command", ["simulate", "train", "predict"])
def test_what_was_written_is_said_on_standard_error(
    command: str, paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command whose result is a file has nothing for standard output but JSON."""
    out = str(tmp_path / "out.csv")
    tokens = {
        "simulate": ["--out", out, "--steps", "40", "--sensors", "3"],
        "train": [paths["STORE"], "--run", out, "--max-steps", "1", "--model", "linear"],
        "predict": [paths["RUN"], "--out", out],
    }[command]
    capsys.readouterr()
    assert run_command([command, *tokens]) == 0
    captured = capsys.readouterr()
    assert (captured.out == "") == (command != "train")
    assert captured.err.startswith("pgti: ") or command == "train"
    if command == "predict":
        said, missing = captured.err.splitlines()
        assert said == f"pgti: 1 forecast of 2 steps in {out}"
        assert "lacks 25.0% of its inputs; never observed in the window: 2" in missing
