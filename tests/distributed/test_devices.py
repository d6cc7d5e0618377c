"""Which GPU a rank takes, with CUDA imitated: no GPU is needed, and nothing computes on one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from pgti.distributed import Communicator, find_launch, init_communicator
from pgti.errors import ConfigError
from pgti.run import resolve_device

CLUSTERS = {"1 x 8": (1, 8), "8 x 1": (8, 1), "4 x 2": (4, 2)}
"""Machines x GPUs of each."""


def torchrun(machines: int, gpus: int, machine: int, gpu: int) -> dict[str, str]:
    return {
        "RANK": f"{machine * gpus + gpu}",
        "WORLD_SIZE": f"{machines * gpus}",
        "LOCAL_RANK": f"{gpu}",
        "LOCAL_WORLD_SIZE": f"{gpus}",
        "MASTER_ADDR": "node0",
        "MASTER_PORT": "29500",
    }


def srun(machines: int, gpus: int, machine: int, gpu: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "17",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": f"node[0-{machines - 1}]" if machines > 1 else "node0",
        "SLURM_STEP_NUM_TASKS": f"{machines * gpus}",
        "SLURM_STEP_TASKS_PER_NODE": f"{gpus}(x{machines})" if machines > 1 else f"{gpus}",
        "SLURM_PROCID": f"{machine * gpus + gpu}",
        "SLURM_NODEID": f"{machine}",
        "SLURM_LOCALID": f"{gpu}",
    }


class Cuda:
    """What a process does to CUDA.

    Attributes:
        current: the devices that it made the current one.
        groups: backend, rank, number of ranks and device of the process groups that it opened.
    """

    def __init__(self) -> None:
        self.current: list[int] = []
        self.groups: list[tuple[str, int, int, torch.device | None]] = []


class SilentHeartbeat:
    """Takes the place of a heartbeat."""

    def __init__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """A machine with GPUs, and the network of its job; torch checks the devices it is given."""
    found, init_process_group = Cuda(), dist.init_process_group

    def set_device(device: torch.device) -> None:
        found.current.append(torch.cuda._utils._get_device_index(device))

    def open_group(
        backend: str, *, rank: int, world_size: int, device_id: torch.device | None, **_: object
    ) -> None:
        found.groups.append((backend, rank, world_size, device_id))
        init_process_group(
            "fake", store=FakeStore(), rank=rank, world_size=world_size, device_id=device_id
        )

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.set_device", set_device)
    monkeypatch.setattr("torch.distributed.init_process_group", open_group)
    monkeypatch.setattr("torch._C._distributed_c10d.TCPStore", lambda *_, **__: dist.HashStore())
    monkeypatch.setattr("pgti.distributed.heartbeat.Heartbeat", SilentHeartbeat)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


def show_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)


@contextmanager
def opened(environ: Mapping[str, str], device: str = "auto") -> Iterator[Communicator]:
    """A rank as a command opens it."""
    launch = find_launch(environ)
    own = resolve_device(device, launch.local_rank, launch.local_world_size)
    with init_communicator(own, launch=launch) as communicator:
        yield communicator


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("launcher", [torchrun, srun])
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_rank_opens_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, cuda: Cuda, cluster: str, launcher: Any, device: str
) -> None:
    machines, gpus = CLUSTERS[cluster]
    show_gpus(monkeypatch, gpus)
    for machine in range(machines):
        for gpu in range(gpus):
            with opened(launcher(machines, gpus, machine, gpu), device) as communicator:
                rank = machine * gpus + gpu
                assert (communicator.rank, communicator.world_size) == (rank, machines * gpus)
            assert cuda.current.pop() == gpu
            own = torch.device("cuda", gpu)
            assert cuda.groups.pop() == ("cpu:gloo,cuda:nccl", rank, machines * gpus, own)


@pytest.mark.parametrize("launcher", [torchrun, srun])
def test_a_gpu_that_the_launcher_shows_alone(
    monkeypatch: pytest.MonkeyPatch, cuda: Cuda, launcher: Any
) -> None:
    """`srun --gpus-per-task 1`: each of a machine's ranks counts its own GPU as the first."""
    show_gpus(monkeypatch, 1)
    for gpu in range(2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{gpu}")
        with opened(launcher(4, 2, 3, gpu)):
            pass
    assert cuda.current == [0, 0]
    assert [group[-1] for group in cuda.groups] == [torch.device("cuda", 0)] * 2


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_one_process_makes_its_gpu_the_current_one(
    monkeypatch: pytest.MonkeyPatch, cuda: Cuda, device: str, index: int
) -> None:
    """Pinned memory of `cuda:1` would open a context on the first GPU otherwise."""
    show_gpus(monkeypatch, 2)
    with opened({}, device):
        assert cuda.current == [index]
    assert not cuda.groups


@pytest.mark.usefixtures("cuda")
def test_one_process_takes_the_current_gpu_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, 4)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    assert resolve_device("cuda") == torch.device("cuda", 3)


@pytest.mark.usefixtures("cuda")
def test_ranks_whose_group_is_open_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers: it has set torchrun's variables, shown GPUs, and opened the process group."""
    show_gpus(monkeypatch, 2)
    for name, value in torchrun(4, 2, 2, 1).items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("cpu:gloo,cuda:nccl", rank=5, world_size=8, device_id=None)
    try:
        with init_communicator() as communicator:
            own = resolve_device("cuda", communicator.local_rank, communicator.local_world_size)
            assert (communicator.rank, own) == (5, torch.device("cuda", 1))
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    show_gpus(monkeypatch, 1)
    with (
        pytest.raises(ConfigError, match="2 ranks run on this machine and it has 1 GPU: each rank"),
        opened(torchrun(1, 2, 0, 1)),
    ):
        pass
    assert not cuda.groups


def test_a_gpu_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    def refuse(_: torch.device) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nor unavailable")

    show_gpus(monkeypatch, 1)
    monkeypatch.setattr("torch.cuda.set_device", refuse)
    message = (
        r"^cuda:0 cannot be used: CUDA error: all CUDA-capable devices are busy or unavailable; "
        r"see nvidia-smi .*, or use device='cpu'$"
    )
    with pytest.raises(ConfigError, match=message), opened(torchrun(8, 1, 4, 0)):
        pass
    assert not cuda.groups
