"""A series, networks and a run so small that a whole training takes a fraction of a second."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import Batch, BatchLoader, WindowSource, build_loader
from pgti.forecasting import AbstractForecaster, NetworkForecaster, Observer
from pgti.graph import SensorGraph
from pgti.models import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.nn import Supports
from pgti.store import Scaler, SeriesStore, StoreWriter
from pgti.training import RunDirectory, RunFingerprint, Trainer, TrainingConfig
from pgti.training.schedules import PlateauSchedule
from pgti.windows import GlobalShuffle, Sequential, WindowSpec

# More threads only wait for one another at this size, and another machine's number of threads
# must not decide about bits.
torch.set_num_threads(1)

SPEC = WindowSpec(input_steps=4, horizon=3)
NUM_NODES = 3
SHAPE = ModelShape(
    input_steps=SPEC.input_steps,
    horizon=SPEC.horizon,
    num_nodes=NUM_NODES,
    input_channels=1,
    target_channels=1,
    target_indices=(0,),
)


def make_series(num_steps: int = 90, num_channels: int = 1, seed: int = 0) -> np.ndarray:
    """Readings around 50 with a rhythm, some of them missing, [T, N, C]."""
    random = np.random.default_rng(seed)
    time = np.arange(num_steps)[:, None, None]
    values = 50 + 10 * np.sin(time / 5 + np.arange(NUM_NODES)[:, None]) + 0 * time
    values = values + random.normal(size=(num_steps, NUM_NODES, num_channels))
    values[random.random(values.shape) < 0.2] = np.nan
    return values.round(1).astype(np.float32)


def make_store(
    path: Path,
    values: np.ndarray,
    *,
    interval_seconds: int = 3600,
    dated: bool = True,
    start: str = "2025-10-01T00:00",
    time_zone: str | None = None,
) -> SeriesStore:
    """A store of the readings, beginning on a Wednesday (in UTC where there is a zone)."""
    graph = SensorGraph.from_edges(NUM_NODES, np.array([0, 1]), np.array([1, 2]))
    ids = tuple(f"s{node}" for node in range(NUM_NODES))
    channels = tuple(f"c{channel}" for channel in range(values.shape[2]))
    with StoreWriter(
        path, node_ids=ids, channels=channels, graph=graph, time_zone=time_zone
    ) as writer:
        writer.append(values)
        if dated:
            writer.finish(start=np.datetime64(start), interval_seconds=interval_seconds)
        else:
            writer.finish()
    return SeriesStore.open(path)


def make_source(store: SeriesStore, target_indices: tuple[int, ...] = (0,)) -> WindowSource:
    """Windows of the store."""
    scaler = Scaler.fit(store, range(60))
    return WindowSource(store=store, spec=SPEC, scaler=scaler, target_indices=target_indices)


def make_loader(
    source: WindowSource,
    starts: range,
    batch_size: int = 8,
    *,
    seed: int | None = None,
    with_targets: bool = True,
) -> BatchLoader:
    """Batches of the windows, shuffled if there is a seed."""
    order = Sequential() if seed is None else GlobalShuffle(seed)
    return build_loader(
        source, starts, batch_size, order, with_targets=with_targets, prefetch_depth=2
    )


class LinearNet(nn.Module):
    """A linear map from a sensor's inputs to its forecasts, with dropout to need random numbers."""

    def __init__(self, num_targets: int = 1, num_channels: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_targets = num_targets
        self.linear = nn.Linear(SPEC.input_steps * num_channels, SPEC.horizon * num_targets)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """[B, L, N, C] -> [B, H, N, C_out]."""
        assert supports.num_nodes == x.shape[2]
        flat = x.permute(0, 2, 1, 3).flatten(2).to(self.linear.weight.dtype)
        out = self.linear(self.dropout(flat))
        return out.unflatten(2, (SPEC.horizon, self.num_targets)).transpose(1, 2)


class SampledNet(AbstractModel):
    """A recurrent decoder that sees the truth or its own forecast, by a coin of (seed, step)."""

    pause_seconds = 0.0

    def __init__(self) -> None:
        super().__init__(ModelConfig(), SHAPE)
        self.first = nn.Linear(SPEC.input_steps, 1)
        self.next = nn.Linear(1, 1)

    def forward(
        self, x: Tensor, supports: Supports, teacher: TeacherForcing | None = None
    ) -> Tensor:
        """[B, L, N, 1] -> [B, H, N, 1]."""
        time.sleep(self.pause_seconds)
        current = self.first(x[..., 0].transpose(1, 2))
        outputs = [current]
        for step in range(1, SPEC.horizon):
            if teacher is not None and _coin(teacher, step):
                current = teacher.targets_BHNC[:, step - 1]
            current = self.next(current)
            outputs.append(current)
        return torch.stack(outputs, dim=1)


def _coin(teacher: TeacherForcing, step: int) -> bool:
    generator = np.random.Generator(np.random.Philox(key=[teacher.seed, teacher.step]))
    return bool(generator.random(step + 1)[step] < 0.5)


class Constant(AbstractForecaster):
    """Always forecasts the same number."""

    def __init__(self, value: float, horizon: int = SPEC.horizon) -> None:
        super().__init__()
        self.value = value
        self.horizon = horizon

    def forward(self, batch: Batch, *, step: int | None = None) -> Tensor:
        """The number, [B, H, N, 1]."""
        return torch.full((batch.num_windows, self.horizon, batch.x.shape[2], 1), self.value)


class KilledError(Exception):
    """What `Killer` raises."""


class Killer(Observer):
    """Ends the run, without any tidying, when the given number of batches or steps has passed."""

    def __init__(self, after: int) -> None:
        self.left = after

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """Nothing."""

    def advance(self, num_windows: int, loss: object = None) -> None:
        """Count, and raise at zero."""
        self.left -= 1
        if self.left <= 0:
            raise KilledError

    def record(self, record: object) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a trainer is made of."""

    source: WindowSource
    config: TrainingConfig
    network: str = "sampled"
    train_starts: range = range(50)
    val_starts: range = range(54, 70)


CONFIG = TrainingConfig(
    epochs=3,
    batch_size=5,
    accumulate=3,
    learning_rate=0.05,
    schedule=PlateauSchedule(patience=0, factor=0.5),
    checkpoint_every_steps=1,
    log_every_steps=2,
    seed=7,
)
SLOW_CONFIG = replace(CONFIG, epochs=15)
"""60 steps, each followed by a checkpoint: for a process that is killed."""


def make_setting(tmp_path: Path, config: TrainingConfig = CONFIG, **changes: object) -> Setting:
    """The usual setting over a store under `tmp_path`."""
    path = tmp_path / "store"
    store = SeriesStore.open(path) if path.exists() else make_store(path, make_series())
    return Setting(source=make_source(store), config=config, **changes)


def make_forecaster(setting: Setting) -> NetworkForecaster:
    """The setting's network with its initial parameters."""
    torch.manual_seed(setting.config.seed)
    networks = {
        "sampled": SampledNet,
        "linear": LinearNet,
        "dropout": lambda: LinearNet(dropout=0.5),
    }
    source = setting.source
    return NetworkForecaster(
        networks[setting.network](),
        Supports.from_graph(source.store.graph),
        source.scaler,
        source.target_indices,
        seed=setting.config.seed,
    )


def open_run(path: Path, config: TrainingConfig = CONFIG) -> RunDirectory:
    """The run at `path`, made if it is not there."""
    if RunDirectory.exists(path):
        return RunDirectory.open(path)
    return RunDirectory.create(path, config=f"epochs = {config.epochs}\n", info={})


def make_trainer(
    setting: Setting, run: RunDirectory, *observers: Observer, **changes: object
) -> Trainer:
    """A trainer with fresh parameters."""
    source, config = setting.source, setting.config
    settings = {"model": {"name": setting.network}, "training": asdict(config)}
    fingerprint = RunFingerprint(store=source.store.fingerprint, settings=settings)
    arguments = {
        "forecaster": make_forecaster(setting),
        "training": make_loader(source, setting.train_starts, config.batch_size, seed=config.seed),
        "validation": make_loader(source, setting.val_starts, 6),
        "config": config,
        "run": run,
        "fingerprint": fingerprint,
        "observers": observers,
    }
    return Trainer(**{**arguments, **changes})


def resume_trainer(setting: Setting, run: RunDirectory, *observers: Observer) -> Trainer:
    """A trainer that continues from the run's last checkpoint, if there is one."""
    trainer = make_trainer(setting, run, *observers)
    trainer.restore(run.load_last() if run.last_checkpoint.exists() else None)
    return trainer
