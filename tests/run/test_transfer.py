"""A run's weights on other sensors: every model, by the ids of the sensors alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import pgti
from pgti.errors import RunError
from pgti.graph import SensorGraph, from_dense
from pgti.models import MODELS, ModelShape
from pgti.run import Run
from pgti.run.transfer import carry_over, find_sensor_dimensions
from pgti.store import SeriesStore, StoreWriter

from ..models.small_models import SMALL, shape

IDS = ("a", "b", "c", "d", "e")
NUM_STEPS = 60
WINDOWS = {"input_steps": 12, "horizon": 3, "targets": ("speed",)}
OPTIONS = {"batch_size": 16, "max_steps": 3, "seed": 2, "device": "cpu", "progress": False}
NAMES = [name for name, entry in MODELS.items() if not entry.library]
HAVE_VECTORS = {
    "agcrn",
    "d2stgnn",
    "gman",
    "graph-wavenet",
    "himnet",
    "megacrn",
    "mtgnn",
    "patchstg",
    "st-balance",
    "st-llm",
    "staeformer",
    "stgcn",
    "stid",
}
"""Models with weights of each sensor; stgcn's and mtgnn's are those of a layer normalization."""

OF_ORDER = ("patchstg", "st-llm", "pgt-dcrnn")
"""Models whose forecasts depend on the order of the sensors, whatever their weights: it gives them
their places in the patches of the first, attention of the second is causal over them, and the third
aligns edges as PGT does."""


def make_store(path: Path, ids: Sequence[str] = IDS) -> SeriesStore:
    """Readings and edges that a sensor's id determines: the same in any order."""
    every = [*IDS, "new", "newer"]
    random = np.random.default_rng(5)
    values = 50 + random.normal(size=(NUM_STEPS, len(every), 2)) * (3, 8)
    matrix = random.random((len(every), len(every)))
    np.fill_diagonal(matrix, 0)
    chosen = [every.index(each) for each in ids]
    graph: SensorGraph = from_dense(np.where(matrix > 0.4, matrix, 0)[np.ix_(chosen, chosen)])
    with StoreWriter(path, node_ids=ids, channels=("flow", "speed"), graph=graph) as writer:
        writer.append(values[:, chosen].astype(np.float32))
        writer.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=3600)
    return SeriesStore.open(path)


def train_old(tmp_path: Path, name: str) -> Run:
    """A few steps, so that no weight has its initial value."""
    store = make_store(tmp_path / "old")
    return pgti.train(
        *(store, tmp_path / "run"),
        model=name,
        model_options=SMALL[name],
        windows=WINDOWS,
        learning_rate=0.05,
        **OPTIONS,
    )


def take_over(tmp_path: Path, run: Run, ids: Sequence[str]) -> Run:
    """The run on a store of other sensors, not trained further."""
    store = make_store(tmp_path / "new", ids)
    return pgti.train(store, tmp_path / "taken", init_from=run, epochs=0, progress=False)


def forecasts(run: Run) -> pd.DataFrame:
    """Of the test windows, a row per sensor and step in one order."""
    keys = ["origin", "horizon", "sensor", "channel"]
    frame = run.forecast(split="test")[[*keys, "forecast"]].astype({"sensor": str})
    return frame.sort_values(keys, ignore_index=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_ORDER])
def test_permuted_sensors_have_the_same_forecasts(name: str, tmp_path: Path) -> None:
    """The weights of a sensor go with its id, and so does everything else."""
    run = train_old(tmp_path, name)
    permuted = take_over(tmp_path, run, ("d", "a", "e", "c", "b"))
    expected, found = forecasts(run), forecasts(permuted)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5, check_exact=False)
    if name in HAVE_VECTORS:  # weights in the old order would be seen
        permuted.forecaster.network.load_state_dict(run.forecaster.network.state_dict())
        wrong = forecasts(permuted)["forecast"]
        assert not np.allclose(wrong, expected["forecast"], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ids", [("c", "a"), ("new", "b", "a", "newer", "c", "d", "e")])
def test_weights_of_other_sensors(
    name: str, ids: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Entries of known sensors stay, new ones are the mean; shared weights are the same bits."""
    run = train_old(tmp_path, name)
    old = run.forecaster.network.state_dict()
    store = make_store(tmp_path / "new", ids)
    taken = pgti.train(store, tmp_path / "taken", init_from=run, epochs=0)
    said = capsys.readouterr().err
    has_vectors = False
    for key, tensor in taken.forecaster.network.state_dict().items():
        before = old[key]
        if tensor.shape == before.shape:
            assert torch.equal(tensor, before), key
            continue
        has_vectors = True
        (axis,) = (i for i in range(tensor.ndim) if tensor.shape[i] != before.shape[i])
        for position, each in enumerate(ids):
            entry = tensor.select(axis, position)
            if each in IDS:
                assert torch.equal(entry, before.select(axis, IDS.index(each))), key
            else:
                torch.testing.assert_close(entry, before.mean(dim=axis))
    assert has_vectors == (name in HAVE_VECTORS)
    assert ("weights per sensor" in said) == has_vectors
    if has_vectors:
        known = sum(each in IDS for each in ids)
        assert f"{known} sensors carried over by id" in said
        assert ("2 new as the mean of the others: new, newer" in said) == ("new" in ids)
    assert len(forecasts(taken)) > 0
    assert np.isfinite(forecasts(taken)["forecast"]).all()


def test_linear_maps_of_each_sensor_are_carried_over() -> None:
    """An option decides whether a model has weights of each sensor: nothing declares it."""
    dimensions = find_sensor_dimensions("linear", {"individual": True}, shape())
    assert set(dimensions.values()) == {(0,)}
    assert find_sensor_dimensions("linear", {"individual": False}, shape()) == {}


class Own(nn.Module):
    """Per-sensor weights in two dimensions, positions, and a constructor that computes."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        n = shape.num_nodes
        self.mix = nn.Parameter(torch.randn(n, n))
        self.register_buffer("positions", torch.arange(n))
        self.register_buffer("level", torch.arange(n) / 10.0)
        self.scale = float(torch.ones(3).sum())  # does not work without data
        self.horizon, self.channels = shape.horizon, shape.target_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, N, C_in] -> [B, H, N, C_out]."""
        last = (self.mix[:, self.positions] @ x[:, -1, :, : self.channels]) / self.scale
        return (last + self.level[:, None])[:, None].expand(-1, self.horizon, -1, -1)


def test_a_network_of_the_users_own_is_carried_over(tmp_path: Path) -> None:
    """Both dimensions of a matrix of sensors, float buffers, and positions as they are built."""
    store = make_store(tmp_path / "old")
    run = pgti.train(store, tmp_path / "run", model=Own, windows=WINDOWS, **OPTIONS)
    ids = ("e", "new", "a")
    new = make_store(tmp_path / "new", ids)
    taken = pgti.train(new, tmp_path / "taken", init_from=run, model=Own, epochs=0, progress=False)
    old, found = (each.forecaster.network.state_dict() for each in (run, taken))
    assert torch.equal(found["positions"], torch.arange(3))
    assert torch.equal(found["level"][[0, 2]], old["level"][[4, 0]])
    torch.testing.assert_close(found["level"][1], old["level"].mean())
    chosen = torch.tensor([0, 2])
    assert torch.equal(found["mix"][chosen][:, chosen], old["mix"][[4, 0]][:, [4, 0]])
    torch.testing.assert_close(found["mix"][0, 1], old["mix"][4].mean())
    torch.testing.assert_close(found["mix"][1, 1], old["mix"].mean())


class Flat(nn.Module):
    """Weights over all sensors at once: several numbers for each, in an order nobody knows."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        size = shape.num_nodes * shape.target_channels * 2
        self.linear = nn.Linear(size, size)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, N, C_in] -> [B, H, N, C_out]."""
        return x[:, -1:, :, :1].expand(-1, self.shape.horizon, -1, -1) + self.linear.bias.sum()


def test_weights_that_mix_sensors_are_refused(tmp_path: Path) -> None:
    """One line that names the parameter; nothing is written."""
    store = make_store(tmp_path / "old")
    run = pgti.train(store, tmp_path / "run", model=Flat, windows=WINDOWS, **OPTIONS)
    new = make_store(tmp_path / "new", ("b", "a", "c"))
    with pytest.raises(
        RunError, match=r"linear\.weight is \[10, 10\] for 5 sensors and \[12, 12\]"
    ):
        pgti.train(new, tmp_path / "taken", init_from=run, model=Flat, epochs=0, progress=False)
    assert not (tmp_path / "taken").exists()
    same = pgti.train(store, tmp_path / "same", init_from=run, model=Flat, epochs=0, progress=False)
    pd.testing.assert_frame_equal(forecasts(same), forecasts(run))


def test_the_same_sensors_take_over_the_same_tensors() -> None:
    """Nothing is looked for, and nothing said."""
    weights = {"a": torch.ones(2)}
    assert carry_over(weights, {}, {}, ("x", "y"), ("x", "y")) == (weights, [])
