"""One rank of `pgti-bench gradients`."""

import copy
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pgti.distributed import Communicator, init_communicator
from pgti.training.gradients import GradientReducer
from pgti_bench.gradients import ENGINES, Engine

Loss = Callable[[nn.Module], tuple[Tensor, Tensor]]
"""Sum over a rank's windows and the count behind it, of a network that it calls."""

BUCKET_BYTES = 25 * 2**20
SMALL_BUCKET = 2_000  # several buckets of a small network
WIDTH = 768


class Summing(Protocol):
    """Adds up the gradients of a loss over the ranks."""

    def __call__(self, loss: Loss | None, dummy: Loss) -> Tensor:
        """Forward, backward and sum; gives the count of all ranks."""
        ...


def build(engine: Engine, network: nn.Module, communicator: Communicator, size: int) -> Summing:
    """An engine over a network; `size` are the bytes of a bucket."""
    if engine == "ddp":
        return _ddp(network, size)
    reducer = GradientReducer(
        list(network.parameters()),
        communicator,
        bucket_bytes=size if engine == "buckets" else 2**40,
    )

    def sum_gradients(loss: Loss | None, dummy: Loss) -> Tensor:
        del dummy
        count = torch.zeros((), dtype=torch.float64)
        if loss is not None:
            total, count = loss(network)
            reducer.begin()
            total.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        return reducer.reduce(count.double(), 0)[0]

    return sum_gradients


def _ddp(network: nn.Module, size: int) -> Summing:
    """DistributedDataParallel whose buckets are summed, not averaged."""
    wrapped = DistributedDataParallel(
        network, gradient_as_bucket_view=True, bucket_cap_mb=size / 2**20
    )

    def add_up(
        _: object,
        bucket: dist.GradBucket,  # type: ignore[name-defined] # torch does not declare it
    ) -> torch.futures.Future[Tensor]:
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        assert work is not None
        summed: torch.futures.Future[Tensor] = work.get_future().then(lambda each: each.value()[0])
        return summed

    wrapped.register_comm_hook(None, add_up)

    def sum_gradients(loss: Loss | None, dummy: Loss) -> Tensor:
        total, count = (dummy if loss is None else loss)(wrapped)
        count = torch.zeros((), dtype=torch.float64) if loss is None else count.double()
        dist.all_reduce(count)
        masked = 0.0 * total if loss is None else total
        masked.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        return count

    return sum_gradients


class Block(nn.Module):
    """The products of a block of GPT-2's kind, without attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        parts = [
            nn.Sequential(nn.Linear(width, by * width), nn.GELU(), nn.Linear(by * width, width))
            for by in (3, 4)
        ]
        self.parts = nn.ModuleList(parts)

    def forward(self, h: Tensor) -> Tensor:
        """[M, width] -> [M, width]."""
        for part in self.parts:
            h = h + part(h)
        return h


def time_steps(communicator: Communicator, blocks: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Seconds of the sums by engine, alternated; the first of each are left out."""
    torch.manual_seed(0)
    network = nn.Sequential(*(Block(WIDTH) for _ in range(blocks)))
    x = torch.randn(tokens, WIDTH)

    def loss(called: nn.Module) -> tuple[Tensor, Tensor]:
        return called(x).square().sum(), torch.tensor(float(x.numel()))

    networks = {engine: _twin(network) for engine in ENGINES}
    sums = {
        engine: build(engine, networks[engine], communicator, BUCKET_BYTES) for engine in ENGINES
    }
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    backward: list[float] = []
    for _ in range(rounds + 2):
        for engine, sum_gradients in sums.items():
            communicator.barrier()
            began = time.perf_counter()
            sum_gradients(loss, loss)
            seconds[engine].append(time.perf_counter() - began)
            networks[engine].zero_grad(set_to_none=True)
        communicator.barrier()
        began = time.perf_counter()
        loss(network)[0].backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        backward.append(time.perf_counter() - began)
        network.zero_grad(set_to_none=True)
    return {
        "seconds": {engine: times[2:] for engine, times in seconds.items()},
        "backward": backward[2:],
        "parameters": sum(each.numel() for each in network.parameters()),
    }


def _twin(network: nn.Module) -> nn.Module:
    """A network with the same memory for its parameters, whose hooks are its own."""
    memo = {
        id(each): nn.Parameter(each.detach(), requires_grad=True) for each in network.parameters()
    }
    return copy.deepcopy(network, memo)


def small(dtype: torch.dtype, *, norm: bool = False) -> nn.Module:
    """A small network, the same on every rank."""
    torch.manual_seed(0)
    middle: list[nn.Module] = [nn.BatchNorm1d(32)] if norm else []
    return nn.Sequential(
        nn.Linear(6, 32), *middle, nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 6)
    ).to(dtype)


def windows(step: int, first: int, stop: int, dtype: torch.dtype) -> Loss:
    """The masked sum over some windows of a step, each of five sensors."""
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(2, 9, 5, 6, dtype=torch.float64, generator=generator).to(dtype)
    observed = torch.rand(y.shape, generator=generator) < 0.7

    def loss(network: nn.Module) -> tuple[Tensor, Tensor]:
        forecast = network(x[first:stop].flatten(0, 1)).view_as(y[first:stop])
        errors = torch.where(observed[first:stop], forecast - y[first:stop], 0.0).abs()
        return errors.sum(), observed[first:stop].sum()

    return loss


def check(communicator: Communicator) -> dict[str, Any]:
    """Exactness and resuming of every engine, on three ranks."""
    return {
        "error": {engine: _error(engine, communicator) for engine in ENGINES},
        "norm_error": {engine: _norm_error(engine, communicator) for engine in ENGINES},
        "resumes_bitwise": {engine: _resumes(engine, communicator) for engine in ENGINES},
    }


def _uneven(communicator: Communicator, step: int) -> Loss | None:
    """Two windows on rank 0, one on rank 1, none on rank 2."""
    parts = {0: (0, 2), 1: (2, 3)}
    part = parts.get(communicator.rank)
    return None if part is None else windows(step, *part, torch.float64)


def _error(engine: Engine, communicator: Communicator) -> float:
    network, alone = small(torch.float64), small(torch.float64)
    sum_gradients = build(engine, network, communicator, SMALL_BUCKET)
    largest = 0.0
    for step in range(3):
        network.zero_grad(set_to_none=True)
        alone.zero_grad(set_to_none=True)
        count = sum_gradients(_uneven(communicator, step), windows(step, 0, 1, torch.float64))
        total, wanted_count = windows(step, 0, 3, torch.float64)(alone)
        total.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        for found, wanted in zip(network.parameters(), alone.parameters(), strict=True):
            assert found.grad is not None
            assert wanted.grad is not None
            exact = wanted.grad / wanted_count
            error = (found.grad / count - exact).abs().max() / exact.abs().max()
            largest = max(largest, float(error))
    return _largest(largest, communicator)


def _norm_error(engine: Engine, communicator: Communicator) -> float:
    network = small(torch.float64, norm=True)
    before = network[1].running_mean.clone()  # type: ignore[index]
    sum_gradients = build(engine, network, communicator, SMALL_BUCKET)
    sum_gradients(_uneven(communicator, 0), windows(0, 0, 1, torch.float64))
    moved = (network[1].running_mean - before).abs().max()  # type: ignore[index]
    return _largest(float(moved) if communicator.rank == 2 else 0.0, communicator)


def _largest(number: float, communicator: Communicator) -> float:
    return max(float(text) for text in communicator.all_gather_text(f"{number}"))


def _resumes(engine: Engine, communicator: Communicator) -> bool:
    def train(steps: range, state: Any) -> tuple[Any, Any]:
        network = small(torch.float32)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        if state is not None:
            network.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        sum_gradients = build(engine, network, communicator, SMALL_BUCKET)
        for step in steps:
            optimizer.zero_grad(set_to_none=engine != "ddp")
            first = 3 * communicator.rank
            part = windows(step, first, first + 3, torch.float32)
            count = sum_gradients(part, part)
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter.grad /= count
            optimizer.step()
        return copy.deepcopy((network.state_dict(), optimizer.state_dict()))

    unbroken = train(range(6), None)[0]
    resumed = train(range(3, 6), train(range(3), None))[0]
    return all(torch.equal(resumed[name], each) for name, each in unbroken.items())


def main() -> None:
    """Measure, and print on rank 0."""
    what, *sizes = sys.argv[1:]
    torch.set_num_threads(1)
    with init_communicator() as communicator:
        found = (
            check(communicator) if what == "check" else time_steps(communicator, *map(int, sizes))
        )
        if communicator.is_main:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
