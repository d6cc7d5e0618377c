"""Evaluations on newer readings: equal to those of one store split by dates."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti import ConfigError, RunError, SeriesStore
from pgti.batching import WindowConfig
from pgti.cli.main import run_command
from pgti.run import Run, train_run

from .small_runs import make_config, make_series, make_store

SEEN, TOTAL = 140, 200
NODES = ["a", "b", "c"]
TIMES = pd.date_range("2025-10-01", periods=TOTAL, freq="h")
VALUES = make_series(num_steps=TOTAL)
FIRST = str(TIMES[SEEN])
WINDOWS = WindowConfig(input_steps=3, horizon=2, val_from=str(TIMES[110]), test_from=FIRST)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newer")


def train_on(directory: Path, name: str, num_steps: int) -> Run:
    store = make_store(directory / f"{name}-store", VALUES[:num_steps])
    config = replace(make_config(store, epochs=1), windows=WINDOWS)
    return train_run(config, directory / name)[0]


@pytest.fixture(scope="module")
def expected(directory: Path) -> dict[str, Any]:
    """The test errors of a run whose store has all rows, split by dates."""
    return train_on(directory, "whole", TOTAL).evaluate("test").to_dict()["test"]


@pytest.fixture(scope="module")
def run(directory: Path) -> Run:
    """A run that has seen the first rows alone."""
    return train_on(directory, "early", SEEN)


def rest(first: int = SEEN - 3, columns: list[str] = NODES) -> pd.DataFrame:
    """The rows after those that the run has seen, with the inputs before them."""
    frame = pd.DataFrame(VALUES[first:, :, 0], index=TIMES[first:].rename("time"), columns=NODES)
    return frame[columns]


def errors_of(report: pgti.Report, name: str) -> dict[str, Any]:
    return report.to_dict()[name]


def test_a_store_of_newer_rows(run: Run, expected: dict[str, Any], tmp_path: Path) -> None:
    """Every number of the report, the baselines', groups' and drift among them."""
    pgti.ingest(rest(), tmp_path / "s", channels=("c0",), graph=run.store.graph)
    for newer in (SeriesStore.open(tmp_path / "s"), tmp_path / "s", str(tmp_path / "s")):
        assert errors_of(run.evaluate(newer), "newer") == expected
    opened = Run.open(run.directory.path, store=tmp_path / "s")
    report = opened.evaluate()
    assert report.splits == ("newer",)
    assert errors_of(report, "newer") == expected
    assert f"dcrnn on newer readings (59 windows, {FIRST} to {TIMES[-1]}): c0" == report.title


@pytest.mark.parametrize("form", ["frame", "permuted", "csv", "later", "earlier"])
def test_tables_and_files(run: Run, expected: dict[str, Any], tmp_path: Path, form: str) -> None:
    readings: Any = rest(columns=["c", "a", "b"] if form == "permuted" else NODES)
    between = None
    if form == "csv":
        readings.to_csv(tmp_path / "newer.csv")
        readings = tmp_path / "newer.csv"
    elif form in ("later", "earlier"):
        readings, between = rest(100), (FIRST, None)
    report = run.evaluate(readings, between=between)
    assert errors_of(report, "newer") == expected
    assert not any("trained on" in note for note in report.notes)


def test_windows_of_the_training_time_are_said(run: Run) -> None:
    report = run.evaluate(rest(60))
    # Training targets are rows 3 to 109.
    notes = [note for note in report.notes if "trained on" in note]
    assert notes == [
        "47 of 136 windows begin in the time that the run was trained on, which ends at "
        f"{TIMES[109]}"
    ]


def test_a_store_that_has_grown(run: Run, expected: dict[str, Any], tmp_path: Path) -> None:
    """Its splits are as ever, and a range of time reaches the rows that are newer."""
    make_store(tmp_path / "grown", VALUES)
    opened = Run.open(run.directory.path, store=tmp_path / "grown")
    report = opened.evaluate("val")
    assert errors_of(report, "val") == errors_of(run.evaluate("val"), "val")
    assert report.notes == (
        f"60 rows of the store are newer than the run, the first at {FIRST}: "
        "between evaluates them",
    )
    report = opened.evaluate(between=(FIRST, None))
    assert errors_of(report, "between") == expected
    last = opened.evaluate(between=(FIRST, FIRST))
    assert last.num_windows == 1
    assert errors_of(last, "between")["from"] == FIRST


def test_without_the_training_store(run: Run, expected: dict[str, Any], tmp_path: Path) -> None:
    """The run stands alone: persistence, and a line for the baselines that are left out."""
    shutil.copytree(run.directory.path, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("early-store", "absent"))
    info = tmp_path / "run" / "run.json"
    info.write_text(info.read_text().replace("early-store", "absent"))
    opened = Run.open(tmp_path / "run")
    report = opened.evaluate(rest())
    found = errors_of(report, "newer")
    assert "historical-average" not in found
    assert any("other than persistence are left out" in note for note in report.notes)
    assert found["persistence"] == expected["persistence"]
    assert found["mae"] == expected["mae"]
    assert found["drift"] == expected["drift"]
    with pytest.raises(RunError, match="needs the readings that the run was trained on"):
        opened.evaluate("test")


def test_the_command_line(
    run: Run, expected: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--store with newer rows, with a grown store and a time, and --readings with a file."""
    pgti.ingest(rest(), tmp_path / "s", channels=("c0",), graph=run.store.graph)
    make_store(tmp_path / "grown", VALUES)
    rest().to_csv(tmp_path / "newer.csv")
    command = ["evaluate", str(run.directory.path), "--json"]
    for name, options in (
        ("newer", ["--store", f"{tmp_path / 's'}"]),
        ("between", ["--store", f"{tmp_path / 'grown'}", "--from", FIRST]),
        ("newer", ["--readings", f"{tmp_path / 'newer.csv'}", "--to", "2026-01-01"]),
    ):
        assert run_command([*command, *options]) == 0
        captured = capsys.readouterr()
        content = json.loads(captured.out)
        assert content[name] == json.loads(json.dumps(expected))
        assert isinstance(content["notes"], list)
    assert run_command([*command, "--split", "test", "--store", f"{tmp_path / 's'}"]) == 2
    assert "newer readings have no splits: leave --split out" in capsys.readouterr().err
    assert run_command([*command, "--split", "val", "--from", FIRST]) == 2
    assert "either a split or the windows between two times" in capsys.readouterr().err
    assert run_command([*command, "--from", "2031-01-01"]) == 2
    assert "no window to evaluate whose first step is after 2031-01-01: the series has" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.csv",), "no split 'nothing.csv', and no file or store of that name"),
        ((["test", "nothing"],), "there is no split 'nothing'"),
        (("test", (FIRST, None)), "either a split or the windows between two times"),
        ((None, FIRST), "it must be two times"),
        ((None, ("soon", None)), "'soon': it must be a time such as"),
        ((None, None, {"missing": (0,)}), "options of ingest say how newer readings are read"),
        ((3,), "splits is 3: it must be a split, a list of them, or newer readings"),
    ],
)
def test_choices_that_mean_nothing_are_refused(
    run: Run, arguments: tuple[Any, ...], message: str
) -> None:
    names = ("splits", "between", "options")
    with pytest.raises(ConfigError, match=message):
        run.evaluate(**dict(zip(names, arguments, strict=False)))


def test_windows_across_a_hole_are_left_out(run: Run, tmp_path: Path) -> None:
    """Each of the four places in which a window of five rows has the hole inside it."""
    frame = rest(0).drop(TIMES[150:160])
    store = pgti.ingest(frame, tmp_path / "s", channels="c0", graph=run.store.graph, gaps="keep")
    config = replace(make_config(store, epochs=1), windows=WINDOWS)
    holed = train_run(config, tmp_path / "run")[0]
    report = holed.evaluate(between=(FIRST, None))
    # Of the 59 windows, 14 have one of the missing rows.
    assert report.num_windows == 59 - 14
    assert report.notes[0] == "4 more windows reach across missing rows: left out"


def test_too_few_newer_rows_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"4 steps from .* to .*, and a window takes 3 and the 2"):
        run.evaluate(rest(TOTAL - 4))
    assert run.evaluate(rest(TOTAL - 5)).num_windows == 1
    assert np.isfinite(run.evaluate(rest(TOTAL - 5)).mae or np.nan)
