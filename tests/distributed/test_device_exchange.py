"""Rows that are exchanged between GPUs: which group carries them, with torch.distributed mocked."""

from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from pgti.distributed import Message
from pgti.distributed.launch import Launch
from pgti.distributed.torch_communicator import TorchCommunicator

GPU = torch.device("cuda", 0)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Backends of the groups that are made; a group is its backend's name."""
    made = list[str]()

    def new_group(*_: Any, backend: str, **__: Any) -> str:
        made.append(backend)
        return backend

    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(dist, "new_group", new_group)
    return made


def communicator_of_rank_one() -> TorchCommunicator:
    launch = Launch(launcher="test", rank=1, world_size=3)
    return TorchCommunicator(launch, None, timedelta(seconds=5))


def rows(on_gpu: bool) -> Any:
    """Rows of int16, whose device is what they say."""
    made = mock.Mock(nbytes=24, is_cuda=on_gpu)
    made.view.return_value = f"bytes of {'a GPU' if on_gpu else 'the host'}"
    return made


@pytest.mark.parametrize("on_gpu", [False, True], ids=["host", "GPU"])
def test_rows_travel_in_the_group_of_their_device(
    groups: list[str], monkeypatch: pytest.MonkeyPatch, on_gpu: bool
) -> None:
    """In one batch, as bytes, receives and sends each in the order that was given."""
    reduced = list[Any]()
    monkeypatch.setattr(dist, "all_reduce", lambda _, group: reduced.append(group))
    monkeypatch.setattr(torch, "zeros", lambda *_, device: device)
    communicator = communicator_of_rank_one()
    for _ in range(2):  # the second finds what the first has made
        communicator.prepare_exchange(GPU if on_gpu else torch.device("cpu"))
    # Its communicator exists on all ranks before some of them exchange.
    assert groups == (["gloo", "nccl"] if on_gpu else ["gloo"])
    assert reduced == (["nccl"] if on_gpu else [])
    batches = list[Any]()
    monkeypatch.setattr(dist, "P2POp", lambda *arguments: arguments)
    monkeypatch.setattr(dist, "batch_isend_irecv", lambda each: batches.append(each) or [])
    sends = [Message(peer=peer, tag=tag, tensor=rows(on_gpu)) for peer, tag in ((2, 7), (0, 8))]
    receives = [Message(peer=0, tag=5, tensor=rows(on_gpu))]
    communicator.exchange(sends, receives).wait()
    group, what = groups[-1], rows(on_gpu).view()
    assert batches == [
        [
            (dist.irecv, what, 0, group, 5),
            (dist.isend, what, 2, group, 7),
            (dist.isend, what, 0, group, 8),
        ]
    ]
    assert communicator.traffic.sent_bytes["data"] == 2 * 24


@pytest.mark.usefixtures("groups")
def test_nothing_is_sent_where_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch refuses an empty batch."""
    monkeypatch.setattr(dist, "batch_isend_irecv", lambda _: pytest.fail("an empty batch"))
    communicator = communicator_of_rank_one()
    communicator.exchange([], []).wait()
    assert communicator.traffic.sent_bytes["data"] == 0
