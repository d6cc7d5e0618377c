"""The study: each row is what its trainings gave, and finished ones are not repeated."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pgti.cli.main import run_command
from pgti.errors import ConfigError, RunError
from pgti.run import study_processes
from pgti.run.model_study import StudyResult, study
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


@pytest.mark.usefixtures("_in_process")
def test_a_study_brings_trainings_together_and_does_not_repeat_them(
    store: SeriesStore, tmp_path: Path
) -> None:
    """Two seeds of one model and a model that fails: two rows of baselines, one of the model."""
    good, bad = config(tmp_path, "dcrnn", 2), config(tmp_path, "gru", 0)
    logged: list[str] = []

    def run(*configs: Path) -> StudyResult:
        logged.clear()
        workdir = tmp_path / "work"
        return study(store, configs, workdir=workdir, seeds=(0, 1), log=logged.append)

    result = run(good, bad)

    assert [row.model for row in result.models] == ["persistence", "historical-average", "dcrnn"]
    assert [each.split(":")[0] for each in result.left_out] == ["gru, seed 0", "gru, seed 1"]
    assert all("hidden is 0" in each for each in result.left_out)
    row = result.models[-1]
    tests = [
        json.loads((tmp_path / f"work/dcrnn-{seed}/run/test.json").read_text()) for seed in (0, 1)
    ]
    maes = [test["mae"]["2"] for test in tests]
    assert row.seeds == (0, 1)
    assert (row.errors["mae"]["2"].minimum, row.errors["mae"]["2"].maximum) == (
        min(maes),
        max(maes),
    )
    assert maes[0] != maes[1]
    assert result.models[0].errors["rmse"]["1"].median == tests[0]["persistence"]["rmse"]["1"]
    assert row.parameters > 0
    assert row.epochs is not None
    assert row.epochs.median == 1
    assert result.test_windows == tests[0]["windows"]

    lines = result.to_markdown().splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert sum(line.startswith("| dcrnn | 2 | ") for line in lines) == 1

    finished = (tmp_path / "work/dcrnn-0/run/test.json").stat().st_mtime_ns
    again = run(good)
    assert again.models == result.models
    assert len(logged) == 1
    assert logged[0].startswith("2 trainings, 0 of them not finished")
    assert (tmp_path / "work/dcrnn-0/run/test.json").stat().st_mtime_ns == finished

    config(tmp_path, "dcrnn", 3)  # the same file, with another option
    with pytest.raises(ConfigError, match="another store or configuration"):
        run(good, bad)


def test_trainings_run_in_processes(store: SeriesStore, tmp_path: Path) -> None:
    """At the same time; what one prints is its result, and the last line of its log is why not."""
    configs = [config(tmp_path, "dcrnn", 2), config(tmp_path, "gru", 0)]
    result = study(store, configs, workdir=tmp_path / "work", seeds=(0,), jobs=2)
    assert [row.model for row in result.models][2:] == ["dcrnn"]
    assert result.models[2].seeds == (0,)
    (line,) = result.left_out
    assert line.startswith("gru, seed 0: model.hidden is 0: ")
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
    arguments = [*map(str, configs), "--seeds", "3", "--json"]
    arguments += ["--workdir", str(tmp_path / "work"), "--table", str(tmp_path / "out/table.md")]
    assert run_command(["study", str(store.path), *arguments]) == 0
    captured = capsys.readouterr()
    rows = {row["model"]: row for row in json.loads(captured.out.splitlines()[-1])["models"]}
    assert set(rows) == {"persistence", "historical-average", "dcrnn", "gru"}
    assert "gru" in captured.err
    lines = (tmp_path / "out/table.md").read_text().splitlines()[2:]
    found = [line.split(" | ") for line in lines]
    wanted = sorted(rows.values(), key=lambda row: row["errors"]["mae"]["mean"]["median"])
    assert [cells[0] for cells in found] == [f"| {row['model']}" for row in wanted]
    for cells, row in zip(found, wanted, strict=True):
        assert cells[2] == f"{row['errors']['mae']['2']['median']:.3f}"


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
    configs = [config(tmp_path, "dcrnn", 0)]
    with pytest.raises(RunError, match=r"nothing was trained: dcrnn, seed 0: model\.hidden is 0"):
        study(store, configs, workdir=tmp_path / "work", seeds=(0,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "at least one configuration"),
        (["a.toml", "b.toml"], "two configurations train the model 'dcrnn'"),
        (["a.toml", "--seeds", "1,1"], "each must be different"),
        (["a.toml", "--seeds", "one"], "one"),
        (["a.toml", "--jobs", "0"], "jobs is 0"),
        (["a.toml", "--test-windows", "0"], "test_windows is 0"),
        (["missing.toml"], "missing.toml cannot be read"),
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
    tokens = [str(tmp_path / each) if each.endswith(".toml") else each for each in arguments]
    workdir = tmp_path / "work"
    code = run_command(["study", str(store.path), *tokens, "--workdir", str(workdir)])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not workdir.exists()
