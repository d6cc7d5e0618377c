"""What ranks do in tests of single steps: sums of gradients, and what a step sends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pgti.batching import WindowConfig
from pgti.distributed import Communicator
from pgti.run import ModelConfig, RunConfig, train_run
from pgti.training import Callback, TrainingConfig, TrainingStatus
from pgti.training.callbacks import Extensions
from pgti.training.gradients import GradientReducer

NUM_LAYERS, WIDTH = 4, 3
LAYER_BYTES = 8 * WIDTH * (WIDTH + 1)


class Layers(nn.Module):
    """Layers of which a step may use some, in a way that the case names; the last is never used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            nn.Linear(WIDTH, WIDTH, dtype=torch.float64) for _ in range(NUM_LAYERS + 1)
        )

    def loss(self, case: str, step: int, rank: int) -> Tensor | None:
        """A sum over the windows of a rank in a step; None if it has none."""
        if case == "without windows" and (step + rank) % 2:
            return None
        generator = torch.Generator().manual_seed(100 * step + rank)
        h = torch.randn(5, WIDTH, dtype=torch.float64, generator=generator)
        for place in range(NUM_LAYERS + (case == "all")):
            layer = self.layers[place]
            if case == "one of many" and (place + step + rank) % NUM_LAYERS > 1:
                continue
            if case == "later" and place == 1 and step < 2:
                continue
            if case == "in parts":
                for _ in range(2):
                    h = checkpoint(layer, h.requires_grad_(), use_reentrant=True)
            h = layer(h).tanh()
        return h.square().sum()


def sum_gradients(
    communicator: Communicator, *, cases: list[str], bucket_bytes: int, steps: int
) -> dict[str, Any]:
    """For each case: see `sum_in_case`."""
    return {case: sum_in_case(communicator, case, bucket_bytes, steps) for case in cases}


def sum_in_case(
    communicator: Communicator, case: str, bucket_bytes: int, steps: int
) -> dict[str, Any]:
    """Steps whose gradients are compared with those of all ranks' windows in one process."""
    network, alone = Layers(), Layers()
    parameters = list(network.parameters())
    reducer = GradientReducer(parameters, communicator, bucket_bytes=bucket_bytes)
    largest, differing, num_early = 0.0, 0, []
    for step in range(steps):
        network.zero_grad()
        alone.zero_grad()
        loss = network.loss(case, step, communicator.rank)
        if loss is not None:
            reducer.begin()
            loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        num_early.append(reducer._num_launched)
        count, stop = reducer.reduce(torch.tensor(3.0, dtype=torch.float64), 1 << communicator.rank)
        assert float(count) == 3.0 * communicator.world_size
        assert stop == 2**communicator.world_size - 1
        for rank in range(communicator.world_size):
            part = alone.loss(case, step, rank)
            if part is not None:
                part.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        for found, wanted in zip(parameters, alone.parameters(), strict=True):
            if found.grad is None or wanted.grad is None:
                differing += (found.grad is None) != (wanted.grad is None)
            else:
                largest = max(largest, float((found.grad - wanted.grad).abs().max()))
    return {"largest": largest, "differing": differing, "num_early": num_early}


class Recorder(Callback):
    """Records what torch sends in each step, and may ask to stop after one of them."""

    def __init__(self, asks_after: int | None) -> None:
        self.sent: list[str] = []
        self.by_step: list[list[str]] = []
        self._asks_after = asks_after

    def record(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are recorded."""

        def call(tensor: Any, *arguments: Any, async_op: bool = False, **options: Any) -> Any:
            kind = str(tensor.dtype).removeprefix("torch.") if isinstance(tensor, Tensor) else ""
            self.sent.append(f"{name} {kind}{'' if async_op else ', waits'}")
            return function(tensor, *arguments, async_op=async_op, **options)

        return call

    def on_begin(self, status: TrainingStatus) -> None:
        """Record from here."""
        for name in ("all_reduce", "broadcast", "all_gather", "all_to_all_single", "reduce"):
            setattr(dist, name, self.record(name, getattr(dist, name)))

    def on_step(self, status: TrainingStatus) -> None:
        """Close the list of the step."""
        self.by_step.append(self.sent[:])
        self.sent.clear()
        if status.step == self._asks_after:
            status.stop()


def what_steps_send(
    communicator: Communicator,
    *,
    store: str,
    run: str,
    options: dict[str, Any],
    asks_after: int | None = None,
) -> dict[str, Any]:
    """The collectives of each step of a training; rank 1 may ask to stop."""
    recorder = Recorder(asks_after if communicator.rank == 1 else None)
    functions = dict(vars(dist))
    training = TrainingConfig(batch_size=10, log_every_steps=0, checkpoint_every_steps=0, **options)
    config = RunConfig(
        store=Path(store),
        windows=WindowConfig(input_steps=3, horizon=2),
        model=ModelConfig(name="linear"),
        training=training,
        device="cpu",
    )
    try:
        _, result = train_run(
            config,
            run,
            communicator=communicator,
            extensions=Extensions(callbacks=[recorder]),
        )
    finally:
        for name in ("all_reduce", "broadcast", "all_gather", "all_to_all_single", "reduce"):
            setattr(dist, name, functions[name])
    return {
        "by_step": recorder.by_step,
        "steps": result.steps,
        "stopped_early": result.stopped_early,
    }
