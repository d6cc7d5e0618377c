"""A model that passes readings along edges, and a store that has none."""

from pathlib import Path

import pytest
from torch import Tensor, nn

from pgti import train
from pgti.cli.main import run_command
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.models import ModelShape
from pgti.run import Run
from pgti.store import SeriesStore, StoreWriter

from .small_runs import NUM_NODES, make_series

SMALL = {"windows": {"input_steps": 3, "horizon": 2}, "max_steps": 1, "progress": False}


class AlongEdges(nn.Module):
    """A network of a user's own that asks for the edges."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.layer = nn.Linear(shape.input_channels, shape.target_channels)
        self.horizon = shape.horizon

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Forecast from the last step."""
        assert edge_index.shape[0] == 2
        forecast: Tensor = self.layer(x[:, -1:]).expand(-1, self.horizon, -1, -1)
        return forecast


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> SeriesStore:
    with StoreWriter(
        tmp_path / "store",
        node_ids=("a", "b", "c"),
        channels=("c0",),
        graph=SensorGraph.empty(NUM_NODES),
    ) as writer:
        writer.append(make_series())
        writer.finish()
    return SeriesStore.open(tmp_path / "store")


@pytest.mark.parametrize("model", ["dcrnn", "tgcn", "stgcn", AlongEdges])
def test_it_is_refused_and_leaves_nothing(
    tmp_path: Path, store: SeriesStore, model: str | type[nn.Module]
) -> None:
    with pytest.raises(ConfigError, match=r"no edges.*graph.*allow_no_edges=True"):
        train(store, tmp_path / "run", model=model, **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["gru", "stid", "graph-wavenet", "agcrn"])
def test_models_that_need_no_edges_train(tmp_path: Path, store: SeriesStore, model: str) -> None:
    run = train(store, tmp_path / "run", model=model, **SMALL)
    assert run.forecast()["forecast"].notna().all()


def test_it_trains_where_that_is_meant_and_resumes(tmp_path: Path, store: SeriesStore) -> None:
    """The run knows that it was meant."""
    train(store, tmp_path / "run", model=AlongEdges, allow_no_edges=True, **SMALL)
    options = {**SMALL, "max_steps": 2}
    again = train(store, tmp_path / "run", model=AlongEdges, resume=True, **options)
    assert again.history["step"].iloc[-1] == 2
    assert isinstance(again, Run)


def test_the_command_names_its_flag(
    tmp_path: Path, store: SeriesStore, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["train", str(store.path), "--run", str(tmp_path / "run"), "--max-steps", "1"]
    assert run_command(tokens) == 2
    assert "--allow-no-edges" in capsys.readouterr().err
    assert run_command([*tokens, "--allow-no-edges"]) == 0
