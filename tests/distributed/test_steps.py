"""A step of several ranks: the sums of its gradients, and what it sends and waits for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgti.distributed import Communicator, Kind, SingleProcess, Work
from pgti.training import gradients
from pgti.training.gradients import STOP_BITS, GradientReducer

from .conftest import RunRanks
from .rank_jobs import make_store
from .step_jobs import LAYER_BYTES, NUM_LAYERS

JOBS = "step_jobs.py"


CASES = ["all", "plain", "without windows", "one of many", "later", "in parts"]


@pytest.mark.parametrize("bucket_bytes", [LAYER_BYTES, 2**20], ids=["buckets", "one bucket"])
def test_gradients_are_those_of_all_windows_in_one_process(
    run_ranks: RunRanks, bucket_bytes: int
) -> None:
    """Whatever parts of the network a step uses, on whatever rank; unused ones have none."""
    options = {"cases": CASES, "bucket_bytes": bucket_bytes, "steps": 8}
    for by_case in run_ranks("sum_gradients", 2, module=JOBS, **options):
        assert list(by_case) == CASES
        for case, result in by_case.items():
            assert result["largest"] < 1e-14, case
            assert result["differing"] == 0, case
        # Buckets leave while the backward pass runs, once the first has shown that gradients come
        # in one part. Where the last layer is not used, those behind it wait for the end.
        has_buckets = bucket_bytes == LAYER_BYTES
        all_early = [0] + [NUM_LAYERS + 1] * 7 if has_buckets else [0] * 8
        assert by_case["all"]["num_early"] == all_early
        assert by_case["in parts"]["num_early"] == [0] * 8


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_of_two_ranks_waits_for_no_collective_of_hosts(
    run_ranks: RunRanks, tmp_path: Path, accumulate: int
) -> None:
    """It sends the gradients and one small message, both without waiting for each."""
    store = str(make_store(tmp_path / "store").path)
    options = {"epochs": 2, "accumulate": accumulate}
    for result in run_ranks(
        "what_steps_send", 2, module=JOBS, store=store, run=str(tmp_path / "run"), options=options
    ):
        assert len(result["by_step"]) == result["steps"] == 2 * -(-11 // accumulate)
        firsts = (0, result["steps"] // 2)  # behind what begins an epoch
        for step, sent in enumerate(result["by_step"]):
            assert sent[-2:] == ["all_reduce float32", "all_reduce float64"]
            assert len(sent) == 2 or step in firsts


def test_a_callback_of_one_rank_stops_all_of_them_after_the_next_step(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    store = str(make_store(tmp_path / "store").path)
    options = {"epochs": 2}
    for result in run_ranks(
        "what_steps_send",
        2,
        module=JOBS,
        store=store,
        run=str(tmp_path / "run"),
        options=options,
        asks_after=4,
    ):
        assert (result["steps"], result["stopped_early"]) == (5, True)


class Twins(SingleProcess):
    """Two ranks that do the same: each sum is twice a rank's own."""

    def __init__(self) -> None:
        super().__init__()
        self.world_size = 2

    def all_reduce_async(self, tensor: Tensor, kind: Kind) -> Work:
        """Double it."""
        self.traffic.add(kind, tensor.nbytes)
        tensor.mul_(2)
        return Work()


class Event:
    """An event that is always over."""

    def record(self) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""


def on_gpu(monkeypatch: pytest.MonkeyPatch, parameters: Sequence[nn.Parameter]) -> GradientReducer:
    """A reducer that believes its parameters to be on a GPU."""
    monkeypatch.setattr(gradients, "_pinned", lambda size: torch.zeros(size, dtype=torch.float64))
    monkeypatch.setattr("torch.cuda.Event", Event)
    communicator: Communicator = Twins()
    reducer = GradientReducer(parameters, communicator)
    reducer._is_on_gpu = True
    return reducer


def reduce_step(
    reducer: GradientReducer, parameters: Sequence[nn.Parameter], used: Sequence[int], stop: int = 0
) -> tuple[list[Any], int]:
    """One step that uses some parameters; their gradients and the bits."""
    for place, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, place + 1.0) if place in used else None
    count, bits = reducer.reduce(torch.tensor(2.0, dtype=torch.float64), stop)
    assert float(count) == 4.0
    return [None if each.grad is None else each.grad.tolist() for each in parameters], bits


def test_on_gpus_requests_are_read_a_step_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step waits for the GPU, to see which parameters have a gradient; no later one."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    reducer = on_gpu(monkeypatch, parameters)
    assert reduce_step(reducer, parameters, (0, 1), 1) == ([[2.0], [4.0]], 1)
    stops = [0, 2, 0, 4, 0]
    found = [reduce_step(reducer, parameters, (0, 1), stop)[1] for stop in stops]
    assert found == [0, 0, 2, 0, 4]
    assert reducer._communicator.traffic.sent_bytes["counts"] == 8 * (6 * (1 + STOP_BITS) + 2)


def test_on_gpus_a_gradient_that_is_missing_later_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    reducer = on_gpu(monkeypatch, parameters)
    reduce_step(reducer, parameters, (0, 1))
    assert reduce_step(reducer, parameters, (1,))[0] == [[0.0], [4.0]]


def test_on_gpus_parameters_are_watched_where_one_has_no_gradient_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that one that gains a gradient later is right from its first step."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    reducer = on_gpu(monkeypatch, parameters)
    assert reduce_step(reducer, parameters, (0,), 1) == ([[2.0], None], 1)
    assert reduce_step(reducer, parameters, (0,), 2) == ([[2.0], None], 2)
    assert reduce_step(reducer, parameters, (0, 1)) == ([[2.0], [4.0]], 0)
    assert reduce_step(reducer, parameters, (1,)) == ([None, [4.0]], 0)
