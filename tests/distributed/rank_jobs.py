"""What ranks do in tests: `run_ranks` calls one of these functions on every rank of a job."""

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

from pgti.batching import Batch, WindowConfig
from pgti.batching.standard import StandardBatcher
from pgti.distributed import Communicator, Message, init_communicator
from pgti.distributed.torch_communicator import TorchCommunicator
from pgti.errors import Interrupted, PeerError, PgtiError
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import ModelShape
from pgti.nn import Supports
from pgti.run import ModelConfig, Run, RunConfig, train_run
from pgti.run import prepare as prepare_module
from pgti.run.prepare import prepare
from pgti.run.rolling import BacktestOptions, run_backtest
from pgti.run.warm_start import StartRun
from pgti.store import SeriesStore, StoreWriter
from pgti.store.static_features import StaticFeatures
from pgti.training import Callback, Extensions, RunDirectory, TrainingConfig, TrainingStatus

NUM_NODES = 3
LEVEL = 40_000_001.0
"""Of readings of which float32 would have no decimal."""


def make_store(
    path: Path,
    num_steps: int = 160,
    holes: tuple[tuple[int, int], ...] = (),
    *,
    covariates: bool = False,
    dtype: str | None = None,
) -> SeriesStore:
    """Hourly readings; the second half of the series, and one sensor more than others, has gaps.

    Where there are holes, each is a row and the hours that are missing before it. With covariates
    a channel is known in advance, and sensors have features. With a dtype, "int32" or "float64",
    the readings are large and the store is exact.
    """
    random = np.random.default_rng(0)
    values = 50 + 10 * np.sin(
        np.arange(num_steps)[:, None, None] / 5 + np.arange(NUM_NODES)[:, None]
    )
    values = values + random.normal(size=(num_steps, NUM_NODES, 1))
    missing = random.random(values.shape) < np.array([0.05, 0.2, 0.6])[:, None]
    missing[: num_steps // 2] &= random.random((num_steps // 2, NUM_NODES, 1)) < 0.1
    values[missing] = np.nan
    graph = SensorGraph.from_edges(NUM_NODES, np.array([0, 1]), np.array([1, 2]))
    values += 0 if dtype is None else LEVEL * np.arange(1, 4)[:, None]
    described: dict[str, Any] = {"channels": ("speed",)}
    if covariates:
        rain = random.random(values.shape)
        values = np.concatenate([values, np.where(rain < 0.3, np.nan, rain)], axis=2)
        described = {"channels": ("speed", "rain"), "known_future": ("rain",)}
        described["static"] = StaticFeatures(
            names=("lanes", "kind"),
            units=("", ""),
            values=np.array([[2, 0], [3, 1], [np.nan, np.nan]]),
            categories=((), ("ramp", "main")),
        )
    described["exact"] = dtype is not None
    with StoreWriter(path, node_ids=("a", "b", "c"), graph=graph, **described) as writer:
        writer.append(values if dtype == "float64" else values.round(1))
        start = np.datetime64("2025-10-01T00:00")
        steps = np.full(num_steps, 3600)
        steps[0] = start.astype("datetime64[s]").astype(np.int64)
        for row, hours in holes:
            steps[row] += 3600 * hours
        seconds = np.cumsum(steps) if holes else None
        writer.finish(start=start, interval_seconds=3600, seconds=seconds)
    store = SeriesStore.open(path)
    assert store.meta.dtype == (dtype or "int16")
    return store


class Linear(nn.Module):
    """A linear map; with dropout it draws random numbers; part of it may never be used."""

    def __init__(self, shape: ModelShape, dtype: torch.dtype, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(
            shape.input_steps * shape.input_channels,
            shape.horizon * shape.target_channels,
            dtype=dtype,
        )
        self.unused = nn.Linear(2, 2, dtype=dtype)
        self.scale = nn.Parameter(torch.tensor(1.0, dtype=dtype))  # of no dimension
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """[B, L, N, C_in] -> [B, H, N, C_out]."""
        flat = x.permute(0, 2, 1, 3).flatten(2).to(self.linear.weight.dtype)
        sizes = (self.shape.horizon, self.shape.target_channels)
        forecasts: Tensor = self.scale * self.linear(self.dropout(flat))
        return forecasts.unflatten(2, sizes).transpose(1, 2)


def make_config(store: str, options: dict[str, Any]) -> RunConfig:
    """A small run: `placement` and `model` apart, `options` are those of training."""
    training = {"epochs": 2, "batch_size": 10, "seed": 3, "log_every_steps": 4, **options}
    placement = training.pop("placement", "replicated")
    batching = training.pop("batching", "auto")
    dtype = training.pop("dtype", None)
    training.pop("dropout", None)
    training = {name: value for name, value in training.items() if value is not None}
    model = ModelConfig(name="custom")
    if dtype is None:
        model = ModelConfig(name="dcrnn", options={"hidden": 4, "layers": 1})
    return RunConfig(
        store=Path(store),
        windows=WindowConfig(input_steps=3, horizon=2),
        model=model,
        training=TrainingConfig(**training),
        placement=placement,
        batching=batching,
        device="cpu",
    )


def warm(
    communicator: Communicator, *, store: str, start: str, run: str, freeze: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Train from a run, whose weights every rank reads, and give the parameters."""
    opened = SeriesStore.open(store)
    begin = StartRun.of(start)
    config = begin.config_for(opened)
    config = replace(config, training=replace(config.training, epochs=2, freeze=freeze))
    trained, result = train_run(config, run, store=opened, start=begin, communicator=communicator)
    return {
        "parameters": dict(trained.forecaster.network.state_dict()),
        "val": result.best_val_mae,
        "num_trained": result.parameters,
    }


def backtest(communicator: Communicator, *, store: str, out: str, refit: str) -> dict[str, Any]:
    """The errors of a backtest of three folds."""
    options = BacktestOptions(folds=3, refit=refit)  # type: ignore[arg-type]
    config = make_config(store, {"epochs": 1})
    result = run_backtest(config, Path(out), options, communicator=communicator)
    again = run_backtest(config, Path(out), options, communicator=communicator)
    return {
        "mae": [fold.errors["mae"]["mean"] for fold in result.folds] + [result.mae],
        "count": result.errors["count"],
        "is_read_again": again == result,
    }


def train(
    communicator: Communicator,
    *,
    store: str,
    run: str,
    options: dict[str, Any],
    resume: bool = False,
) -> dict[str, Any]:
    """Train, evaluate, and give the parameters and what was sent."""
    config = make_config(store, options)
    dtype = {"float64": torch.float64, "float32": torch.float32}.get(options.get("dtype", ""))

    lines: list[str] = []

    def custom(shape: ModelShape) -> nn.Module:
        assert dtype is not None
        return Linear(shape, dtype, options.get("dropout", 0.0))

    trained, result = train_run(
        config,
        run,
        model=None if dtype is None else custom,
        resume=resume,
        communicator=communicator,
        log=lines.append,
    )
    report = trained.evaluate(["val", "test"]).to_dict()
    newer = trained.evaluate(store)  # each rank opens the readings, and takes its part of them
    return {
        "parameters": dict(trained.forecaster.network.state_dict()),
        "errors": [
            report["val"]["mae"]["mean"],
            report["test"]["rmse"]["mean"],
            newer.mean("rmse"),
            *numbers_in(report["test"]["by"]),
            *numbers_in(report["test"]["drift"]),
        ],
        "counts": [report["val"]["count"], report["test"]["count"]],
        "steps": result.steps,
        "sent": communicator.traffic.sent_bytes,
        "lines": lines,
        "batch_size": trained.config.training.batch_size,
    }


def train_and_die(
    communicator: Communicator, *, store: str, run: str, options: dict[str, Any], step: int
) -> dict[str, Any]:
    """Train until all ranks die after the same step."""

    class Death(Callback):
        def on_step(self, status: TrainingStatus) -> None:
            if status.step == step:
                os._exit(9)

    train_run(
        make_config(store, options),
        run,
        communicator=communicator,
        extensions=Extensions(callbacks=[Death()]),
    )
    return {}


def numbers_in(content: Any) -> list[float]:
    """Every number of nested tables and lists, in their order."""
    if isinstance(content, dict | list):
        parts = content.values() if isinstance(content, dict) else content
        return [number for part in parts for number in numbers_in(part)]
    return [float(content)] if isinstance(content, int | float) else []


def refuse(communicator: Communicator, *, rank: int) -> dict[str, Any]:
    """One rank finds fault with what the user gave."""
    try:
        with communicator.raise_together():
            if communicator.rank == rank:
                raise PgtiError("this rank's disk is full")
    except PgtiError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": ""}


def collectives(communicator: Communicator) -> dict[str, Any]:
    """Everything that ranks can do together."""
    rank, world_size = communicator.rank, communicator.world_size
    total = torch.tensor([1.0, rank], dtype=torch.float64)
    communicator.all_reduce_(total, "metrics")
    later = torch.tensor(rank + 1)
    communicator.all_reduce_async(later, "counts").wait()
    several = [torch.full((2, 2), float(rank)), torch.ones(3)]
    communicator.all_reduce_coalesced_(several, "gradients")
    given = torch.tensor([rank])
    communicator.broadcast_(given)
    dense = torch.eye(3) * (rank + 1)
    sparse = [dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc()]
    columns = torch.arange(8).reshape(2, 4)[:, ::2] * (rank + 1)
    for each in (*sparse, short := torch.full((3,), rank, dtype=torch.int16), columns):
        communicator.broadcast_(each)
    return {
        "sum": total,
        "later": later,
        "several": several,
        "given": given,
        "short": short,
        "columns": columns,
        "sparse": [each.to_dense() for each in sparse],
        "largest": communicator.all_reduce_max([rank, -rank]),
        "share": communicator.broadcast_bytes(b"from 0" if rank == 0 else b"something longer"),
        "texts": communicator.all_gather_text("" if rank % 2 else f"text {rank}"),
        "no texts": communicator.all_gather_text(""),
        "any": communicator.any(rank == world_size - 1),
        "sent": communicator.traffic.sent_bytes,
    }


def attack(communicator: Communicator, *, seconds: float) -> dict[str, Any]:
    """Rank 0 sends garbage to all sockets of this rank, and writes it in place of heartbeats."""
    listening = [
        each.laddr
        for each in psutil.Process().net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    for place in listening:
        for garbage in (b"", b"\0" * 100, b"\xff" * 10_000, b"GET / HTTP/1.1\r\n\r\n"):
            with suppress(OSError), socket.create_connection(place, timeout=5) as connection:
                connection.sendall(garbage)
    assert isinstance(communicator, TorchCommunicator)
    heartbeat, ends = communicator._heartbeat, time.monotonic() + seconds
    assert heartbeat is not None
    while communicator.is_main and time.monotonic() < ends:
        for rank in range(communicator.world_size):
            heartbeat._store.set(f"heartbeat/{rank}", "[0, garbage")
    return {
        "hosts": [place.ip for place in listening],
        "texts": communicator.all_gather_text(f"\x00{communicator.rank}"),
        "beats": heartbeat._thread.is_alive(),
    }


def lie(communicator: Communicator, *, length: int) -> dict[str, Any]:
    """Rank 0 announces a message of some length, and sends none."""
    if communicator.is_main:
        communicator.broadcast_(torch.tensor(length, dtype=torch.int64))
        return {}
    with pytest.raises(PeerError, match=r"a message of rank 0 has .* it is damaged"):
        communicator.broadcast_bytes(b"")
    return {}


def reopen(communicator: Communicator) -> dict[str, Any]:
    """Leave and meet again, twice, as a script that trains two networks in turn."""
    communicator.close()
    sums = []
    for _ in range(2):
        with init_communicator(timeout_seconds=30) as again:
            total = torch.ones(1)
            again.all_reduce_(total, "metrics")
            sums.append(total.item())
    return {"sums": sums}


def leave(communicator: Communicator, *, first: int, seconds: float) -> dict[str, Any]:
    """Rank `first` is done at once; the others meet it in rows a while later, and nobody waits."""
    if communicator.rank != first:
        time.sleep(seconds)
        tensor = torch.ones(1000)
        communicator.exchange([Message(peer=first, tag=communicator.rank, tensor=tensor)], [])
        return {}
    others = [rank for rank in range(communicator.world_size) if rank != first]
    arriving = [Message(peer=rank, tag=rank, tensor=torch.zeros(1000)) for rank in others]
    communicator.exchange([], arriving)
    return {}


def train_apart(communicator: Communicator, *, store: str, run: str) -> dict[str, Any]:
    """Train with a batch size of the rank's own."""
    return train(communicator, store=store, run=run, options={"batch_size": 8 + communicator.rank})


def batches(
    communicator: Communicator, *, store: str, options: dict[str, Any], epochs: int
) -> dict[str, Any]:
    """How many batches of this rank's training loader differ from materialised windows."""
    config = make_config(store, {**options, "dtype": "float32"}).resolved()
    config = replace(config, windows=replace(config.windows, climatology=True, observed_mask=True))
    opened = SeriesStore.open(store)
    prepared = prepare(
        config,
        RunDirectory(Path(store).parent / "nowhere"),
        opened,
        lambda shape: Linear(shape, torch.float32),
        None,
        communicator,
    )
    oracle = StandardBatcher(prepared.run.source, torch.device("cpu"))
    differing, starts = 0, []
    loader = prepared.training
    for epoch in range(epochs):
        for batch in loader.epoch(epoch):
            starts.append([int(start) for start in batch.starts])
            if not batch.num_windows:
                continue
            expected = oracle.gather(batch.starts)
            pairs = zip(batch.tensors, expected.tensors, strict=True)
            differing += sum(not torch.equal(found, wanted) for found, wanted in pairs)
        loader.prefetch_epoch(epoch + 1)
    return {"differing": differing, "starts": starts, "sent": communicator.traffic.sent_bytes}


class Signalled(nn.Module):
    """A network whose rank is sent a signal in its third step: two passes are the trial before."""

    def __init__(self, network: nn.Module, signal_number: int) -> None:
        super().__init__()
        self.network = network
        self.passes = 0
        self.signal_number = signal_number

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """As the network."""
        self.passes += self.training
        if self.training and self.passes == 5 and self.signal_number:
            os.kill(os.getpid(), self.signal_number)
        forecast: Tensor = self.network(x, supports)
        return forecast


def interrupted(
    communicator: Communicator, *, store: str, run: str, options: dict[str, Any], rank: int
) -> dict[str, Any]:
    """Training that a signal to one rank stops."""
    number = signal.SIGUSR1 if communicator.rank == rank else 0
    config = make_config(store, {**options, "dtype": "float32", "activation_checkpointing": "off"})
    try:
        train_run(
            config,
            run,
            model=lambda shape: Signalled(Linear(shape, torch.float32), number),
            communicator=communicator,
        )
    except Interrupted as error:
        return {"error": str(error), "signal": error.signal_number}
    return {"error": "", "signal": 0}


def evaluate_in_batches(communicator: Communicator, *, run: str) -> dict[str, Any]:
    """Errors of a run by the size of the batches that compute them, and the width of intervals."""
    trained = Run.open(run, device="cpu", communicator=communicator)
    sizes = {"default": None, "one": 1, "seven": 7, "all": 500}
    errors = {
        name: trained.evaluate("val", batch_size=size).to_dict()["val"]["mae"]["mean"]
        for name, size in sizes.items()
    }
    report = trained.evaluate("val", intervals=(0.5,))
    return {"errors": errors, "width": report.mean("width_50"), "crps": report.mean("crps")}


def sharded_store(
    path: Path,
    num_nodes: int = 11,
    num_steps: int = 90,
    *,
    exact: bool = False,
    covariates: bool = False,
) -> SeriesStore:
    """Hourly readings of sensors along a road, with gaps; one was never observed in training.

    Those of an exact store are large. With covariates there is a channel that is known in advance,
    and a feature of the sensors.
    """
    random = np.random.default_rng(1)
    hours = np.arange(num_steps)[:, None, None]
    values = 50 + 10 * np.sin(hours / 5 + np.arange(num_nodes)[:, None])
    values = values + random.normal(size=(num_steps, num_nodes, 1))
    values[random.random(values.shape) < 0.1] = np.nan
    values[: num_steps // 2, 4] = np.nan
    order = random.permutation(num_nodes)  # neighbours are not next to one another
    graph = SensorGraph.from_edges(
        num_nodes,
        np.concatenate([order[:-1], order[2:], order[3:]]),
        np.concatenate([order[1:], order[:-2], order[:-3]]),
        random.random(3 * num_nodes - 6) + 0.1,
    )
    ids = tuple(f"s{sensor}" for sensor in range(num_nodes))
    values = (values + LEVEL * exact).round(1)
    channels, known, static = ("speed",), (), None
    if covariates:
        values = np.concatenate([values, random.integers(0, 9, values.shape)], axis=2)
        channels, known = ("speed", "rain"), ("rain",)
        static = StaticFeatures(
            names=("lanes",),
            units=("",),
            values=random.integers(1, 5, (num_nodes, 1)).astype(np.float64),
            categories=((),),
        )
    with StoreWriter(
        path,
        node_ids=ids,
        channels=channels,
        graph=graph,
        exact=exact,
        known_future=known,
        static=static,
    ) as writer:
        writer.append(values)
        writer.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=3600)
    return SeriesStore.open(path)


def train_shards(
    communicator: Communicator,
    *,
    store: str,
    run: str,
    shards: int,
    model: dict[str, Any],
    training: dict[str, Any],
    windows: dict[str, Any] | None = None,
    batching: str = "index",
    resume: bool = False,
) -> dict[str, Any]:
    """Train with the sensors split over ranks, in float64; or give the error's message."""
    lines: list[str] = []
    size = {} if "batch_size_per_rank" in training else {"batch_size": 6}
    build, forward = prepare_module.build_forecaster, NetworkForecaster.outputs

    def double(*args: Any, **kwargs: Any) -> NetworkForecaster:
        return build(*args, **kwargs).double()

    def of_double(self: Any, batch: Batch, *, step: int | None = None) -> Tensor:
        return forward(self, replace(batch, x=batch.x.double()), step=step)

    with (
        patch.object(prepare_module, "build_forecaster", double),
        patch.object(NetworkForecaster, "outputs", of_double),
    ):
        try:
            config = RunConfig(
                store=Path(store),
                windows=WindowConfig(input_steps=4, horizon=2, **(windows or {})),
                model=ModelConfig(name=model["name"], options=model["options"]),
                training=TrainingConfig(epochs=2, seed=3, **{**size, **training}),
                batching=batching,
                shard_sensors=shards,
                device="cpu",
            )
            trained, result = train_run(
                config, run, resume=resume, communicator=communicator, log=lines.append
            )
            report = trained.evaluate(["val", "test"]).to_dict()
            newer = trained.evaluate(store)
        except PgtiError as error:
            return {"error": f"{type(error).__name__}: {error}"}
    return {
        "parameters": dict(trained.forecaster.network.state_dict()),
        "errors": [*numbers_in(report), newer.mean("rmse"), result.best_val_mae],
        "loss": result.train_loss,
        "steps": result.steps,
        "sent": communicator.traffic.sent_bytes,
        "lines": lines,
        "sensors": trained.forecaster.supports.num_local,
    }
