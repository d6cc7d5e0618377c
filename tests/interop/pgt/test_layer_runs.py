"""Layers of PyTorch Geometric Temporal trained, evaluated and resumed like any other model."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import pgti
from pgti.batching import WindowConfig
from pgti.cli.main import run_command
from pgti.graph import from_dense
from pgti.interop.pgt import wrap_pgt_layer
from pgti.interop.pgt.package import pgt_layer_class
from pgti.store import SeriesStore, StoreWriter

WEEK = Path(__file__).parents[4] / "shared" / "data" / "metr_la_week.npz"
NUM_SENSORS = 12

needs_week = pytest.mark.skipif(not WEEK.exists(), reason=f"needs ../shared/data/{WEEK.name}")


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    """The first week of METR-LA: speeds of its first sensors and the graph among them."""
    path = tmp_path_factory.mktemp("week") / "store"
    with np.load(WEEK, allow_pickle=False) as file:
        first = slice(NUM_SENSORS)
        graph = from_dense(file["adj"][first, first])
        sensors = tuple(str(each) for each in file["sensor_id"][first])
        with StoreWriter(path, node_ids=sensors, channels=("speed",), graph=graph) as writer:
            writer.append(file["speed"][:, first, None])
            writer.finish(start=np.datetime64(str(file["start"])), interval_seconds=300)
    return SeriesStore.open(path)


def windows() -> WindowConfig:
    """Every fifteenth window of the week, 12 steps in and 3 out."""
    return WindowConfig(horizon=3, stride=15)


@needs_week
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("A3TGCN2", {"hidden": 16}),
        ("BatchedDCRNN", {"hidden": 16}),
        ("MSTGCN", {"hidden": 8}),
        pytest.param("STConv", {"hidden": 8}, marks=pytest.mark.slow),
        ("TGCN2", {"hidden": 16}),
    ],
)
def test_an_epoch_on_real_speeds(
    name: str, options: dict[str, object], week: SeriesStore, tmp_path: Path
) -> None:
    """Better than always forecasting the mean of the training rows; a run is taken up as it was."""
    run = pgti.train(
        week, tmp_path / "run", model=f"pgt:{name}", model_options=options, windows=windows(),
        device="cpu", epochs=1, batch_size=16, learning_rate=0.01,
    )  # fmt: skip
    errors = run.evaluate("val").mae
    speeds = week.read(0, week.meta.num_steps)[..., 0]
    first_val, first_test = (int(share * len(speeds)) for share in (0.7, 0.8))
    mean_forecast_error = np.nanmean(
        np.abs(speeds[first_val:first_test] - np.nanmean(speeds[:first_val]))
    )
    assert errors < 0.97 * mean_forecast_error
    again = pgti.Run.open(tmp_path / "run").evaluate("val").mae
    assert again == errors


@needs_week
def test_a_layer_of_ones_own(week: SeriesStore, tmp_path: Path) -> None:
    """From the function that makes a network."""

    def network(shape: pgti.ModelShape) -> torch.nn.Module:
        layer = pgt_layer_class("TGCN2")(shape.input_channels, 8, 1, improved=True)
        return wrap_pgt_layer(layer, shape)

    run = pgti.train(
        week, tmp_path / "run", model=network, windows=windows(), device="cpu", max_steps=2
    )
    assert np.isfinite(run.evaluate("val").mae)


@pytest.mark.parametrize("name", ["pgt:TGCN2", pytest.param("pgt-dcrnn", marks=pytest.mark.slow)])
def test_from_the_command_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train, go on, evaluate and predict; `config.toml` names the layer and all its options."""
    store, run = str(tmp_path / "store"), str(tmp_path / "run")
    assert run_command(["simulate", "--sensors", "5", "--steps", "200", "--out", store]) == 0
    options = ["--model", name, "--model.hidden", "4", "--batch-size", "16", "--run", run]
    assert run_command(["train", store, *options, "--epochs", "1", "--json"]) == 0
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["model"]["name"] == name
    assert config["model"]["hidden"] == 4
    assert run_command(["train", store, *options, "--epochs", "2", "--resume", "--json"]) == 0
    capsys.readouterr()
    again = str(tmp_path / "again")
    from_file = ["train", store, "--config", f"{run}/config.toml", "--run", again, "--json"]
    assert run_command(from_file) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert run_command(["evaluate", run, "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out.splitlines()[-1])
    # Two epochs with a stop between them are the two epochs without one.
    assert resumed["test"]["mae"] == whole["test"]["mae"]
    forecast = tmp_path / "forecast.csv"
    assert run_command(["predict", run, "--out", str(forecast)]) == 0
    assert len(forecast.read_text().splitlines()) > 1


def test_a_graph_that_dcrnn_cannot_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing leads to the first sensor of a road: PGT would divide by zero. Nothing is written."""
    store, run = str(tmp_path / "store"), tmp_path / "run"
    assert run_command(["simulate", "--sensors", "5", "--steps", "200", "--out", store]) == 0
    options = ["--model", "pgt:BatchedDCRNN", "--run", str(run)]
    assert run_command(["train", store, *options]) == 2
    assert "lead to sensor number 0, and none does" in capsys.readouterr().err
    assert not run.exists()


def test_layers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """All with a remark, and one with its options and the number of its parameters."""
    assert run_command(["models", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out.splitlines()[-1])["pgt_layers"]
    assert layers["pgt:A3TGCN2"]["ours"] == "a3tgcn"
    assert layers["pgt:A3TGCN2"]["remark"].startswith("known wrong")
    assert run_command(["models", "pgt:TGCN2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["models"]["pgt:TGCN2"]
    # Three gates of a convolution, 2 x 32 + 32, and a layer, 64 x 32 + 32; the head, 32 x 12 + 12.
    assert told["parameters"] == 3 * (2 * 32 + 32 + 64 * 32 + 32) + 32 * 12 + 12
    assert told["options"] == {"hidden": 32}
