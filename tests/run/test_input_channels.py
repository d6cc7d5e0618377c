"""`windows.inputs`: a model sees some channels, as on a store of those alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pgti import Run, WindowDataset, ingest, train
from pgti.batching import WindowConfig, WindowSource, build_batcher
from pgti.errors import ConfigError, DataError
from pgti.graph import SensorGraph
from pgti.models import MODELS
from pgti.run.build import build_forecaster
from pgti.run.config import ModelConfig, RunConfig
from pgti.store import SeriesStore

CHANNELS = ("occupancy", "flow", "speed")
SMALL = {"epochs": 1, "batch_size": 8, "device": "cpu", "progress": False}


def values() -> np.ndarray:
    """Readings with some missing, [T, N, C]."""
    rng = np.random.default_rng(4)
    readings = rng.integers(1, 90, (60, 3, 3)).astype(np.float64)
    readings[rng.random(readings.shape) < 0.05] = np.nan
    return readings


def stored(path: Path, channels: tuple[str, ...] = CHANNELS) -> SeriesStore:
    chosen = [CHANNELS.index(name) for name in channels]
    graph = SensorGraph.from_edges(3, [0, 1, 2], [1, 2, 0])
    options = {"channels": channels, "start": "2024-01-01", "interval": "1h"}
    return ingest(values()[..., chosen], path, graph=graph, **options)


def trained(store: SeriesStore, run: Path, model: str = "gru", **windows: Any) -> Run:
    windows = {"input_steps": 4, "horizon": 3, **windows}
    return train(store, run, model=model, windows=windows, **SMALL)


@pytest.mark.parametrize("model", [name for name in MODELS if ":" not in name and name != "stllm"])
def test_every_model_takes_some_channels(tmp_path: Path, model: str) -> None:
    """The networks have the shape of the chosen channels, and see those: not the others."""
    store = stored(tmp_path / "store")
    windows = WindowConfig(inputs=("speed", "flow"), targets=("speed",), input_steps=12, horizon=12)
    source = WindowSource.from_config(store, windows)
    config = RunConfig(store=store.path, windows=windows, model=ModelConfig(name=model))
    forecaster = build_forecaster(config, source, None).eval()
    batch = build_batcher("index", source, torch.device("cpu")).gather(np.arange(4)).clone()
    with torch.no_grad():
        before = forecaster(batch)
        batch.x[..., CHANNELS.index("occupancy")] += 7
        torch.testing.assert_close(forecaster(batch), before, rtol=0, atol=0)
        batch.x[..., CHANNELS.index("speed")] += 7
        assert not torch.equal(forecaster(batch), before)
    assert source.shape.input_channels == 2 + len(source.calendar)
    assert source.shape.target_indices == (1,)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("gru", {}),
        ("dcrnn", {"observed_mask": True, "climatology": True}),
        ("linear", {"fill": "mean"}),
    ],
)
def test_a_run_is_that_of_a_store_of_those_channels(
    tmp_path: Path, model: str, more: dict[str, Any]
) -> None:
    """Trained, evaluated, opened again and forecast: bit for bit."""
    names = ("flow", "speed")
    whole = trained(stored(tmp_path / "all"), tmp_path / "a", model, inputs=names, **more)
    alone = trained(stored(tmp_path / "two", names), tmp_path / "b", model, **more)
    assert whole.config.windows.inputs == names
    assert whole.source.target_names == names
    weights = alone.forecaster.state_dict()
    for name, weight in whole.forecaster.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    errors = [run.evaluate("test").to_dict()["test"] for run in (whole, alone)]
    for each in errors:
        del each["drift"]  # of all channels of a store
    assert errors[0] == errors[1]
    opened = Run.open(tmp_path / "a")
    pd.testing.assert_frame_equal(opened.forecast(), alone.forecast())


def test_targets_are_inputs_by_default(tmp_path: Path) -> None:
    store = stored(tmp_path / "store")
    flow = trained(store, tmp_path / "flow", inputs=("flow",))
    assert flow.source.target_names == ("flow",)
    both = trained(store, tmp_path / "both", inputs=("speed", "flow"), targets=("flow",))
    assert both.source.shape.target_indices == (0,)  # the store's order
    assert both.source.target_names == ("flow",)
    for inputs, targets, error, message in (
        (
            ("flow",),
            ("speed",),
            ConfigError,
            r"speed is a target and not among the inputs \(flow\)",
        ),
        (("flows",), (), DataError, "there is no channel 'flows': the store has occupancy, flow"),
        (("flow", "flow"), (), DataError, "named twice"),
    ):
        with pytest.raises(error, match=message):
            trained(store, tmp_path / "no", inputs=inputs, targets=targets)
        assert not (tmp_path / "no").exists()


def test_samples_have_what_a_network_sees(tmp_path: Path) -> None:
    options = {"input_steps": 4, "horizon": 3, "observed_mask": True}
    whole = WindowDataset.from_store(stored(tmp_path / "all"), inputs=("flow", "speed"), **options)
    alone = WindowDataset.from_store(stored(tmp_path / "two", ("flow", "speed")), **options)
    assert whole.shape == alone.shape
    for one, other in zip(whole[3], alone[3], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_newer_readings_and_resumed_runs(tmp_path: Path) -> None:
    run = trained(stored(tmp_path / "store"), tmp_path / "run", inputs=("flow",))
    options = {"start": "2024-01-03T08:00"}
    again = Run.open(tmp_path / "run").forecast(values()[-4:], options=options)
    pd.testing.assert_frame_equal(again, run.forecast())
    more = train(
        run.store, tmp_path / "run", resume=True, windows={"input_steps": 4, "horizon": 3,
                                                          "inputs": ("flow",)}, model="gru", **SMALL
    )  # fmt: skip
    assert more.config.windows.inputs == ("flow",)
