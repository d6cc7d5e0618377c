"""What a researcher writes in the first hour, as whole scripts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FIRST = """
import numpy as np, pandas as pd, pgti

times = pd.date_range("2025-10-01", periods=800, freq="5min")
speeds = pd.DataFrame(60 + 5 * np.sin(np.arange(800) / 40)[:, None] + np.zeros((800, 4)),
                      index=times, columns=["A", "B", "C", "D"])
road = pgti.SensorGraph.from_edges(4, [0, 1, 2], [1, 2, 3])
store = pgti.ingest(speeds[:700], "build/store", graph=road, channels="speed", units="mph")
run = pgti.train(store, "build/run", model="gru", model_options={"hidden": 8}, epochs=2)
print(run.evaluate())
newer = run.forecast(speeds[700:])
print(newer.head())
run.plot("B").write_html("build/run.html")
store.plot().write_html("build/store.html")
"""

SECOND = """
import torch, pgti
from own_network import Network

class StopAtThree(pgti.Callback):
    def on_step(self, status):
        if status.step == 3:
            status.stop()

def huber(prediction, target, mask):
    error = torch.where(mask, prediction - target, 0.0)
    return torch.nn.functional.huber_loss(error, 0 * error, reduction="sum"), mask.sum()

store = pgti.simulate("build/store", sensors=5, steps=600)
run = pgti.train(store, "build/run", model=Network, model_options={"hidden": 4}, loss=huber,
                 callbacks=[StopAtThree()], epochs=5, progress=False)
print(run.history["step"].iloc[-1])
"""

NETWORK = """
from torch import nn

class Network(nn.Module):
    def __init__(self, shape, hidden: int = 16):
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(
            nn.Linear(shape.input_steps * shape.input_channels, hidden), nn.ReLU(),
            nn.Linear(hidden, shape.horizon * shape.target_channels))

    def forward(self, x):
        out = self.layers(x.transpose(1, 2).flatten(2))
        return out.unflatten(2, (self.shape.horizon, self.shape.target_channels)).transpose(1, 2)
"""


EXECUTE = """
import json, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.v4.new_notebook()
notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in json.load(sys.stdin)]
NotebookClient(notebook, kernel_name="python3", timeout=100).execute()
print(json.dumps([[output for output in cell.outputs] for cell in notebook.cells]))
"""

CELLS = [
    "import pgti",
    "store = pgti.simulate('build/store', sensors=5, steps=600)\nstore",
    "run = pgti.train(store, 'build/run', model='gru', model_options={'hidden': 4}, epochs=2)",
    "run",
    "run.evaluate()",
    "run.history",
    "run.forecast().head()",
]


def run_python(
    arguments: list[str], directory: Path, text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_dataframe_becomes_forecasts_and_pictures_in_fifteen_lines(tmp_path: Path) -> None:
    """Ingest, train, evaluate, forecast newer readings, plot."""
    pytest.importorskip("plotly")
    assert len(FIRST.strip().splitlines()) <= 15
    (tmp_path / "script.py").write_text(FIRST)
    done = run_python(["script.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gru on test" in done.stdout
    assert "historical-average" in done.stdout
    assert "timestamp" in done.stdout
    assert "epoch 2: train loss" in done.stderr
    for name in ("run", "store"):
        assert "plotly" in (tmp_path / f"build/{name}.html").read_text()


def test_an_own_network_with_an_own_loss_is_stopped_and_evaluated_by_the_command_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "script.py").write_text(SECOND)
    done = run_python(["script.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3\n"
    shown = run_python(
        ["-m", "pgti", "evaluate", "build/run", "--model", "own_network:Network"], tmp_path
    )
    assert shown.returncode == 0, shown.stderr
    assert "persistence" in shown.stdout + shown.stderr


def test_a_notebook_shows_progress_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays in an executed notebook: a line per epoch, tables, and no bar."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    done = run_python(["-c", EXECUTE], tmp_path, json.dumps(CELLS))
    assert done.returncode == 0, done.stderr
    _, store, training, *tables = json.loads(done.stdout)
    assert "<table" in store[0]["data"]["text/html"]
    text = "".join(
        output.get("text", "") or output["data"].get("text/plain", "") for output in training
    )
    assert "epoch 1: train loss" in text
    assert "epoch 2: train loss" in text
    assert "memory: about" in text
    assert "ipywidgets" not in text
    assert "\u2501" not in text  # the bar of a training that has ended
    for cell in tables:
        assert "<table" in cell[0]["data"]["text/html"]
    assert "historical-average" in tables[1][0]["data"]["text/html"]
