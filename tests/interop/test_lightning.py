"""Lightning trains, validates, tests and predicts on the batches of pgti."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgti.batching import Batch, WindowDataset, build_loader
from pgti.errors import ConfigError, MissingExtraError, StoreError
from pgti.models import build_model
from pgti.store import SeriesStore
from pgti.windows import BlockShuffle, GlobalShuffle, Order

from ..batching.sources import assert_same
from ..distributed.rank_jobs import make_store

JOB = Path(__file__).with_name("lightning_job.py")

needs_lightning = pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None,
    reason="lightning is not installed: pip install 'pgti[lightning]'",
)
pytestmark = [
    # Lightning advises more workers than the tests have cores for, and calls torch in an old way.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    return make_store(tmp_path_factory.mktemp("lightning") / "store")


def same_batches(seen: Iterable[Batch], expected: Iterable[Batch]) -> None:
    """Bit for bit, and as many; the batches of a pgti loader live until the next one."""
    for batch, other in zip(seen, expected, strict=True):
        assert_same(batch, other)


@needs_lightning
@pytest.mark.parametrize(
    ("workers", "order"), [(0, GlobalShuffle(3)), (2, GlobalShuffle(3)), (0, BlockShuffle(1, 4))]
)
def test_lightning_trains_on_the_batches_of_pgti(
    store: SeriesStore, workers: int, order: Order
) -> None:
    """In each epoch the next shuffle; validation, test and prediction see each window in order."""
    from pgti.interop.lightning import DataModule  # noqa: PLC0415 - an extra

    from .lightning_job import WINDOWS, Network, make_trainer  # noqa: PLC0415 - an extra

    data = DataModule(store, num_workers=workers, order=order, **WINDOWS)
    network, trainer = Network(data), make_trainer()
    trainer.fit(network, data)
    (validated,) = trainer.validate(network, data, verbose=False)
    (tested,) = trainer.test(network, data, verbose=False)
    forecasts = trainer.predict(network, data)
    for epoch in (0, 1):
        loader = build_loader(data.train.source, data.train.starts, 5, order)
        same_batches(network.batches[f"train/{epoch}"], loader.epoch(epoch))
    splits = {"val": data.val, "test": data.test}
    for metrics, (name, part) in zip((validated, tested), splits.items(), strict=True):
        in_time = list(map(Batch.clone, build_loader(part.source, part.starts, 5).epoch(0)))
        same_batches(network.batches[f"{name}/2"], in_time)
        assert metrics[name] == pytest.approx(masked_mae(network, in_time), rel=1e-6)
    same_batches(network.batches["predict"], in_time)
    assert isinstance(forecasts, list)
    assert [len(each) for each in forecasts] == [batch.num_windows for batch in in_time]
    assert not any("supports" in name for name in network.state_dict())


def masked_mae(network: Any, batches: list[Batch]) -> float:
    """Mean absolute error over all observed targets."""
    with torch.no_grad():
        sums = [((network(each) - each.y).abs() * each.y_mask).sum() for each in batches]
    return float(sum(sums) / sum(each.y_mask.sum() for each in batches))  # type: ignore[union-attr]


@needs_lightning
@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)]
)
def test_lightning_converts_a_batch_to_its_precision(
    store: SeriesStore, precision: Any, dtype: torch.dtype
) -> None:
    from pgti.interop.lightning import DataModule  # noqa: PLC0415 - an extra

    from .lightning_job import WINDOWS, Network, make_trainer  # noqa: PLC0415 - an extra

    data = DataModule(store, **WINDOWS)
    network = Network(data)
    make_trainer(precision=precision, max_epochs=1, limit_train_batches=2).fit(network, data)
    first = network.batches["train/0"][0]
    assert first.x.dtype == first.y.dtype == first.calendar.dtype == dtype  # type: ignore[union-attr]
    assert first.x_mask.dtype == torch.bool


@needs_lightning
def test_options_are_checked_at_once_and_nothing_is_opened(tmp_path: Path) -> None:
    from pgti.interop.lightning import DataModule  # noqa: PLC0415 - an extra

    with pytest.raises(ConfigError, match="input_step is not an option of windows; did you mean"):
        DataModule(tmp_path, input_step=3)
    with pytest.raises(ConfigError, match="batch_size is 0: it must be a whole number of at lea"):
        DataModule(tmp_path, batch_size=0)
    with pytest.raises(ConfigError, match="num_workers is -1"):
        DataModule(tmp_path, num_workers=-1)
    data = DataModule(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="nowhere"):
        _ = data.train


@needs_lightning
def test_a_network_is_built_before_there_is_a_trainer(store: SeriesStore) -> None:
    from pgti.interop.lightning import DataModule  # noqa: PLC0415 - an extra

    data = DataModule(store.path, input_steps=3, horizon=2, batch_size=4)
    assert isinstance(data.train, WindowDataset)
    assert data.train is data.train
    assert data.train.scaler == data.val.scaler == data.test.scaler
    network = build_model("gru", {}, data.train.shape)
    batch = next(iter(data.train_dataloader()))
    assert network(batch.x, data.train.supports("none")).shape == batch.y.shape
    np.testing.assert_array_equal(
        next(iter(data.predict_dataloader())).starts, data.test.starts[:4]
    )


def test_without_lightning_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "pgti.interop.lightning", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'pgti\[lightning\]'"):
        importlib.import_module("pgti.interop.lightning")


@needs_lightning
@pytest.mark.slow
def test_two_ranks_of_lightning_share_the_batches_of_pgti(
    store: SeriesStore, tmp_path: Path
) -> None:
    """Each step trains on one batch of pgti's order, and evaluation takes each window once."""
    done = subprocess.run(
        [sys.executable, str(JOB), str(store.path), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    options: dict[str, Any] = {"input_steps": 3, "horizon": 2}
    train = WindowDataset.from_store(store, **options)
    test = WindowDataset.from_store(store, "test", **options)
    for use_distributed_sampler in (True, False):
        stem = f"{use_distributed_sampler}"
        ranks = [json.loads((tmp_path / f"{stem}-{rank}.json").read_text()) for rank in (0, 1)]
        for epoch in (0, 1):
            expected = list(
                build_loader(train.source, train.starts, 10, GlobalShuffle(3)).epoch(epoch)
            )
            steps = zip(*(rank["seen"][f"train/{epoch}"] for rank in ranks), strict=True)
            for step, (batch, parts) in enumerate(zip(expected, steps, strict=True)):
                wanted = batch.starts.tolist()
                if step == len(expected) - 1:
                    wanted += expected[0].starts[: len(train) % 2].tolist()
                assert sorted(parts[0] + parts[1]) == sorted(wanted)
        for name in ("test/2", "predict"):
            seen = [start for rank in ranks for part in rank["seen"][name] for start in part]
            assert sorted(seen) == test.starts.tolist()
        parameters = [
            torch.load(tmp_path / f"{stem}-{rank}.pt", weights_only=True) for rank in (0, 1)
        ]
        network = build_model("gru", {"hidden": 4}, train.shape)
        network.load_state_dict(parameters[0])
        assert all(map(torch.equal, parameters[0].values(), parameters[1].values()))
        supports = train.supports("none")

        def forecast(batch: Batch, network: Any = network, supports: Any = supports) -> Any:
            return train.unscale(network(batch.x, supports))

        batches = list(map(Batch.clone, build_loader(test.source, test.starts, 5).epoch(0)))
        mae = masked_mae(forecast, batches)
        assert [rank["test"] for rank in ranks] == pytest.approx([mae, mae], rel=1e-6)
