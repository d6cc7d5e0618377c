"""The user's own network on the command line: `MODULE:CLASS`, also in the current directory."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pgti.cli.main import run_command

MODULE = '''
from torch import nn


class Net(nn.Module):
    """A linear map of the inputs."""

    def __init__(self, shape, hidden: int = 4, widths=(2, 3), kind="a", gain: float = 1):
        super().__init__()
        self.shape, self.gain = shape, gain
        self.first = nn.Linear(shape.input_steps * shape.input_channels, hidden)
        self.last = nn.Linear(hidden, shape.horizon)

    def forward(self, x):
        return self.last(self.first(x.transpose(1, 2).flatten(2))).transpose(1, 2)[..., None]


def build(shape, hidden):
    return Net(shape, hidden)
'''
CONFIG = """
[windows]
input_steps = 3
horizon = 2

[model]
name = "{name}"
hidden = 2

[training]
max_steps = 2
batch_size = 16
"""


@pytest.fixture(name="here", autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a store, a module and a configuration that names its network."""
    assert (
        run_command(["simulate", "--sensors", "4", "--steps", "96", "--out", f"{tmp_path}/s"]) == 0
    )
    (tmp_path / "cwd_models.py").write_text(MODULE)
    (tmp_path / "run.toml").write_text(CONFIG.format(name="cwd_models:Net"))
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch)
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: neither is the module imported, nor the directory searched."""
    monkeypatch.setattr(
        sys, "path", [each for each in sys.path if each not in ("", str(Path.cwd()))]
    )
    monkeypatch.delitem(sys.modules, "cwd_models", raising=False)


def model_of(run: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(Path(run, "config.toml").read_text())["model"]
    return table


def refused(capsys: pytest.CaptureFixture[str], *tokens: str) -> str:
    capsys.readouterr()
    assert run_command(list(tokens)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_train_evaluate_and_predict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options get their types; a run from elsewhere does not import what lies in this directory."""
    options = [
        "--model.hidden",
        "3",
        "--model.widths",
        "5,6",
        "--model.kind",
        "7",
        "--model.gain",
        "2",
    ]
    sizes = ["--windows.input-steps", "3", "--windows.horizon", "2", "--max-steps", "2"]
    arguments = ["--run", "r", "--model", "cwd_models:Net", *options, *sizes, "--json"]
    assert run_command(["train", "s", *arguments]) == 0
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert model_of("r") == {
        "name": "cwd_models:Net", "hidden": 3, "widths": [5, 6], "kind": "7", "gain": 2.0
    }  # fmt: skip

    forget(monkeypatch)
    for command in (["evaluate", "r"], ["predict", "r", "--out", "f.csv"]):
        line = refused(capsys, *command)
        assert (
            "Python finds no module cwd_models. On the command line --model cwd_models:Net" in line
        )
    assert "cwd_models" not in sys.modules
    assert not Path("f.csv").exists()

    assert run_command(["evaluate", "r", "--model", "cwd_models:Net", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["test"]["mae"] == trained["test"]["mae"]
    assert run_command(["predict", "r", "--model", "cwd_models:Net", "--out", "f.csv"]) == 0
    assert Path("f.csv").stat().st_size > 0


def test_an_installed_module_is_found_by_the_run_itself(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any import finds it."""
    assert run_command(["train", "s", "--config", "run.toml", "--run", "r"]) == 0
    forget(monkeypatch)
    (here / "site").mkdir()
    (here / "cwd_models.py").rename(here / "site/cwd_models.py")
    monkeypatch.syspath_prepend(here / "site")
    assert run_command(["evaluate", "r"]) == 0


def test_a_configuration_names_the_network() -> None:
    """Flags change its options, or take another model in its place."""
    assert (
        run_command(["train", "s", "--config", "run.toml", "--model.kind", "b", "--run", "r"]) == 0
    )
    assert model_of("r")["hidden"] == 2
    assert model_of("r")["kind"] == "b"
    tokens = ["train", "s", "--config", "run.toml", "--run", "o", "--model", "cwd_models:build"]
    assert run_command([*tokens, "--model.hidden", "5"]) == 0
    assert model_of("o") == {"name": "cwd_models:build", "hidden": 5}
    assert run_command(["train", "s", "--config", "run.toml", "--run", "p", "--model", "gru"]) == 0
    assert model_of("p")["name"] == "gru"


def test_a_run_is_resumed_with_its_network(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named again, from this directory, and may have moved; its options stay."""
    assert run_command(["train", "s", "--config", "run.toml", "--run", "r"]) == 0
    forget(monkeypatch)
    resume = ["train", "s", "--run", "r", "--resume", "--max-steps", "3"]
    assert "Python finds no module cwd_models" in refused(capsys, *resume)
    (here / "moved_models.py").write_text(MODULE)
    assert run_command([*resume, "--model", "moved_models:Net"]) == 0
    assert model_of("r")["name"] == "moved_models:Net"
    assert model_of("r")["hidden"] == 2
    assert "cannot be resumed with 5" in refused(
        capsys, *resume, "--model", "moved_models:Net", "--model.hidden", "5"
    )
    assert "trained with the model moved_models:Net: leave --model out" in refused(
        capsys, *resume, "--model", "gru"
    )


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--model", "cwd_models:Net", "--model.hiden", "3"], "did you mean 'hidden'?"),
        (["--model", "cwd_models:Net", "--model.hidden", "x"], "hidden is 'x': it must be a whole"),
        (["--model", "cwd_models:build"], "requires the option hidden: give --model.hidden"),
        (["--model", "cwd_models:Nte"], "cwd_models has no 'Nte'; did you mean 'Net'?"),
        (["--model", "cwd_models.py:Net"], "is not MODULE:CLASS, such as cwd_models:Net"),
        (
            ["--model", "custom"],
            "give its class or function as model= from Python, or --model my_mo",
        ),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], tokens: list[str], words: str
) -> None:
    assert words in refused(capsys, "train", "s", "--run", "r", *tokens)
    assert not Path("r").exists()


def test_a_network_that_fails_says_where(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (here / "cwd_models.py").read_text()
    (here / "cwd_models.py").write_text(
        text.replace("self.first(x.tr", "self.first(x * 3 + None.tr")
    )
    line = refused(capsys, "train", "s", "--run", "r", "--model", "cwd_models:Net")
    assert "the network failed on one window, x [1, 12, 4, 2]: AttributeError: " in line
    assert line.endswith("cwd_models.py, line 15)")


def test_models_describes_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Options with their defaults, and parameters counted for METR-LA or a store."""
    assert run_command(["models", "cwd_models:Net", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["models"].values()
    assert found["options"] == {"hidden": 4, "widths": [2, 3], "kind": "a", "gain": 1}
    assert found["parameters"] == (24 + 1) * 4 + (4 + 1) * 12
    assert found["paper"] == "A linear map of the inputs."
    assert run_command(["models", "cwd_models:Net", "--store", "s"]) == 0
    shown = capsys.readouterr().out
    assert "--model.widths" in shown
    assert f"{found['parameters']:,} for 4 sensors, 12 steps in, 12 out" in shown
    assert run_command(["models", "cwd_models:build"]) == 0
    shown = capsys.readouterr().out
    assert "cwd_models:build requires the option hidden" in shown
    assert "required" in shown
