"""The study: each row is what its trainings gave, and finished ones are not repeated."""

import contextlib
import dataclasses
import io
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pgti.cli.main import run_command
from pgti.errors import ConfigError, RunError
from pgti.forecasting import BASELINES
from pgti.run import study_processes
from pgti.run.model_study import study
from pgti.run.results import Machine
from pgti.run.study_result import OverSeeds, StudyResult
from pgti.store import SeriesStore

CONFIG = """
[windows]
input_steps = 3
horizon = 2

[model]
name = "{name}"
hidden = {hidden}

[training]
epochs = 1
batch_size = 16
"""


def train_in_process(command: Sequence[str], *_more: object) -> dict[str, Any]:
    """As `run_training`, in this process: the same options and checks, faster."""
    output, messages = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages):
        code = run_command(list(command[3:]))
    if code:
        raise RunError(messages.getvalue().splitlines()[-1].removeprefix("pgti: error: "))
    result: dict[str, Any] = json.loads(output.getvalue())
    return result


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_processes, "run_training", train_in_process)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    """A store of 4 sensors and 120 steps."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run_command(["simulate", "--sensors", "4", "--steps", "120", "--out", str(path)]) == 0
    return SeriesStore.open(path)


def config(directory: Path, name: str, hidden: int, file_name: str = "") -> Path:
    path = directory / f"{file_name or name}.toml"
    path.write_text(CONFIG.format(name=name, hidden=hidden))
    return path


def too_large(directory: Path, name: str) -> Path:
    """A configuration whose training fails."""
    path = config(directory, name, 2)
    path.write_text(f"memory_budget = 1000\n{path.read_text()}")
    return path


@pytest.mark.usefixtures("_in_process")
def test_a_study_brings_trainings_together_and_does_not_repeat_them(
    store: SeriesStore, tmp_path: Path
) -> None:
    """Two seeds of one model and a model that fails: two rows of baselines, one of the model."""
    good, bad = config(tmp_path, "dcrnn", 2), too_large(tmp_path, "gru")
    logged: list[str] = []

    def run(*configs: Path) -> StudyResult:
        logged.clear()
        workdir = tmp_path / "work"
        return study(store, configs, workdir=workdir, seeds=(0, 1), log=logged.append)

    result = run(good, bad)

    assert [row.name for row in result.models] == [*BASELINES, "dcrnn"]
    assert [each.split(":")[0] for each in result.left_out] == ["gru, seed 0", "gru, seed 1"]
    assert all("memory_budget is 1.0 KiB" in each for each in result.left_out)
    row = result.models[-1]
    tests = [
        json.loads((tmp_path / f"work/dcrnn-{seed}/run/test.json").read_text()) for seed in (0, 1)
    ]
    maes = [test["mae"]["2"] for test in tests]
    assert row.seeds == (0, 1)
    mae = row.errors["mae"]["2"]
    assert mae.values == tuple(maes)
    assert (mae.mean, mae.std) == (statistics.mean(maes), statistics.stdev(maes))
    assert maes[0] != maes[1]
    assert result.models[0].errors["rmse"]["1"] == OverSeeds.of(
        [tests[0]["persistence"]["rmse"]["1"]]
    )
    assert row.parameters > 0
    assert row.epochs == OverSeeds(mean=1, std=0, values=(1, 1))
    assert result.test_windows == tests[0]["windows"]

    finished = (tmp_path / "work/dcrnn-0/run/test.json").stat().st_mtime_ns
    again = run(good)
    assert again.models == result.models
    assert len(logged) == 1
    assert logged[0].startswith("2 trainings, 0 of them not finished")
    assert (tmp_path / "work/dcrnn-0/run/test.json").stat().st_mtime_ns == finished

    config(tmp_path, "dcrnn", 3)  # the same file, with another option
    with pytest.raises(ConfigError, match="another store, configuration"):
        run(good, bad)


def test_trainings_run_in_processes(store: SeriesStore, tmp_path: Path) -> None:
    """At the same time; what one prints is its result, and the last line of its log is why not."""
    configs = [config(tmp_path, "dcrnn", 2), too_large(tmp_path, "gru")]
    result = study(store, configs, workdir=tmp_path / "work", seeds=(0,), jobs=2)
    assert [(row.name, row.seeds) for row in result.models if row.seeds] == [("dcrnn", (0,))]
    (line,) = result.left_out
    assert line.startswith("gru, seed 0: memory_budget is 1.0 KiB ")
    assert {path.name for path in (tmp_path / "work/dcrnn-0").iterdir()} == {
        "log.txt", "output.txt", "result.json", "run"
    }  # fmt: skip


@pytest.mark.usefixtures("_in_process")
def test_the_command_compares_models_of_other_batch_sizes(
    store: SeriesStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose sums of the same errors differ in their last bits; the best comes first."""
    configs = []
    for name, hidden, batch_size in (("dcrnn", 2, 16), ("gru", 3, 7)):
        configs.append(config(tmp_path, name, hidden))
        text = configs[-1].read_text().replace("batch_size = 16", f"batch_size = {batch_size}")
        configs[-1].write_text(text)
    table = tmp_path / "out/table.md"
    arguments = [*map(str, configs), "--seeds", "3", "--json"]
    arguments += ["--workdir", str(tmp_path / "work"), "--table", str(table)]
    assert run_command(["study", str(store.path), *arguments]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert set(rows) == {*BASELINES, "dcrnn", "gru"}
    heading, _, *lines = table.read_text().splitlines()
    assert heading.startswith(
        "| model | MAE 10 min | MAE mean | MAE average | RMSE 10 min | RMSE mean | RMSE "
    )
    assert (
        run_command(["study", str(store.path), *(each for each in arguments if each != "--json")])
        == 0
    )
    shown = capsys.readouterr().out
    found = [line.split(" | ") for line in lines]
    wanted = sorted(rows.values(), key=lambda row: row["errors"]["mae"]["mean"]["mean"])
    assert [cells[0] for cells in found] == [f"| {row['name']}" for row in wanted]
    for cells, row in zip(found, wanted, strict=True):
        assert cells[1] == f"{row['errors']['mae']['2']['mean']:.3f}"
        assert cells[1] in shown


@pytest.mark.usefixtures("_in_process")
def test_configurations_of_one_model_are_ablations(
    store: SeriesStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows have the names of the files; every seed is in the JSON object, and in no other row."""
    (tmp_path / "wide").mkdir()
    configs = [
        config(tmp_path, "gru", 2, "narrow"),
        config(tmp_path / "wide", "gru", 3, "narrow"),
        config(tmp_path, "dcrnn", 2, "any"),
    ]
    work = tmp_path / "work"
    arguments = [*map(str, configs), "--seeds", "3,1", "--workdir", str(work), "--json"]
    assert run_command(["study", str(store.path), *arguments]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["models"][len(BASELINES) :]
    parent = tmp_path.name
    assert [(row["name"], row["model"]) for row in rows] == [
        (f"{parent}/narrow", "gru"), ("wide/narrow", "gru"), ("dcrnn", "dcrnn"),
    ]  # fmt: skip
    assert {path.name for path in work.iterdir()} == {
        f"{parent}-narrow-1", f"{parent}-narrow-3", "wide-narrow-1", "wide-narrow-3",
        "any-1", "any-3",
    }  # fmt: skip
    for row in rows:
        assert row["seeds"] == [1, 3]
        mae = row["errors"]["mae"]["mean"]
        assert mae["mean"] == pytest.approx(sum(mae["values"]) / 2)
        assert mae["std"] == pytest.approx(abs(mae["values"][0] - mae["values"][1]) / 2**0.5)
    assert rows[0]["parameters"] < rows[1]["parameters"]


@pytest.mark.usefixtures("_in_process")
def test_an_own_network_is_studied_and_its_changes_are_seen(
    store: SeriesStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a module in the current directory; a changed file is another network."""
    text = """
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, hidden=3):
        super().__init__()
        self.map = nn.Linear(shape.input_steps, shape.horizon)

    def forward(self, x):
        return self.map(x[..., :1].transpose(1, 3)).transpose(1, 3)
"""
    (tmp_path / "studied_models.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "studied_models", raising=False)
    configs = [config(tmp_path, "studied_models:Net", 2, "mine")]
    result = study(store, configs, workdir=tmp_path / "work", seeds=(0,))
    assert (result.models[-1].name, result.models[-1].parameters) == ("studied_models:Net", 8)
    (tmp_path / "studied_models.py").write_text(f"{text}\n")
    with pytest.raises(ConfigError, match="another store, configuration or network of your own"):
        study(store, configs, workdir=tmp_path / "work", seeds=(0,))


@pytest.mark.parametrize(
    ("setting", "jobs", "expected"),
    [("3", 1, 3), ("2,1", 1, 2), ("", 1, 8), ("", 3, 2), ("", 16, 1), ("no", 4, 2), ("0", 4, 2)],
)
def test_omp_num_threads_is_the_number_of_threads(
    store: SeriesStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    jobs: int,
    expected: int,
) -> None:
    """Of each training; without it, trainings at the same time share the cores."""
    given: list[int] = []

    def run_training(_: object, __: object, threads: int, ___: object) -> dict[str, Any]:
        given.append(threads)
        raise RunError("enough")

    monkeypatch.setattr(study_processes, "run_training", run_training)
    machine = dataclasses.replace(Machine.here(), cores=8)
    monkeypatch.setattr(Machine, "here", lambda: machine)
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    with pytest.raises(RunError, match="enough"):
        study(store, [config(tmp_path, "gru", 2)], workdir=tmp_path / "w", seeds=(0,), jobs=jobs)
    assert given == [expected]


@pytest.mark.usefixtures("_in_process")
def test_different_tests_are_not_compared(store: SeriesStore, tmp_path: Path) -> None:
    """Finished trainings whose baselines differ were tested on other windows."""
    work, configs = tmp_path / "work", []
    for name, horizon in (("dcrnn", 2), ("gru", 1)):
        configs.append(config(tmp_path, name, 2))
        text = configs[-1].read_text().replace("horizon = 2", f"horizon = {horizon}")
        configs[-1].write_text(text)
    with pytest.raises(ConfigError, match="different windows or targets"):
        study(store, configs, workdir=work, seeds=(0,))


@pytest.mark.usefixtures("_in_process")
def test_a_study_of_failures_fails(store: SeriesStore, tmp_path: Path) -> None:
    """If nothing was trained there is no table, and the error has the reason."""
    configs = [too_large(tmp_path, "dcrnn")]
    with pytest.raises(RunError, match=r"nothing was trained: dcrnn, seed 0: memory_budget is"):
        study(store, configs, workdir=tmp_path / "work", seeds=(0,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "at least one configuration"),
        (["a.toml", "b.toml", "a.toml"], "a.toml is given twice"),
        (["a.toml", "--table", "t.txt"], "t.txt must end in .md, .csv or .tex"),
        (["a.toml", "--seeds", "1,1"], "each must be different"),
        (["a.toml", "--seeds", "one"], "one"),
        (["a.toml", "--jobs", "0"], "jobs is 0"),
        (["a.toml", "--test-windows", "0"], "test_windows is 0"),
        (["missing.toml"], "missing.toml does not exist"),
        (["a.toml", "option.toml"], "option.toml: model.hidden is 0"),
        (["a.toml", "table.toml"], "table.toml: training.no_such is not an option"),
        (["a.toml", "windows.toml"], "windows.toml: no training window"),
    ],
)
def test_wrong_studies_are_refused(
    store: SeriesStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    """One line, exit 2, and nothing trained."""
    config(tmp_path, "dcrnn", 2, "a")
    config(tmp_path, "dcrnn", 3, "b")
    config(tmp_path, "gru", 0, "option")
    table = config(tmp_path, "gru", 2, "table")
    table.write_text(table.read_text() + "no_such = 3\n")
    windows = config(tmp_path, "gru", 2, "windows")
    windows.write_text(windows.read_text().replace("horizon = 2", "horizon = 200"))
    tokens = [str(tmp_path / each) if each.endswith(".toml") else each for each in arguments]
    workdir = tmp_path / "work"
    code = run_command(["study", str(store.path), *tokens, "--workdir", str(workdir)])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not workdir.exists()
