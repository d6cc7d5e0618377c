"""What a recording that fails leaves behind, in a torch that does what it would do on a GPU."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch

from pgti.training.cuda_graphs import CudaRecorder

_DEVICE = torch.device("cuda", 0)


class _Torch:
    """What a recording changes in torch.

    Args:
        knows: whether the allocator learns of a failure by itself, as from torch 2.13 on.
    """

    def __init__(self, *, knows: bool) -> None:
        self.stream = "usual"
        self.pools: list[Any] = []
        self._knows = knows

    @contextmanager
    def graph(self, _: object, *, pool: Any, stream: Any, **__: object) -> Generator[None]:
        """`torch.cuda.graph`, of a function that does what cannot be recorded."""
        self.stream = stream
        self.pools.append(pool)
        try:
            yield
        except ValueError as error:
            if self._knows:
                self.end(0, pool)
            raise RuntimeError("operation failed due to a previous error") from error
        self.end(0, pool)
        self.stream = "usual"

    def end(self, _: int, pool: Any) -> None:
        """Of the allocations to a pool."""
        if pool not in self.pools:
            raise RuntimeError("not currently recording to mempool_id")
        self.pools.remove(pool)


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize(
    "name", ["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"]
)
def test_a_failed_recording_leaves_nothing_in_torch(
    monkeypatch: pytest.MonkeyPatch, name: str, knows: bool
) -> None:
    """Neither the stream nor the allocator, which would keep what several streams used."""
    there = _Torch(knows=knows)
    generator = mock.Mock()
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool", raising=False)
    monkeypatch.setattr(torch._C, name, there.end, raising=False)
    monkeypatch.setattr(torch, "Generator", lambda _: generator)
    for key, value in {
        "Stream": lambda _: "aside",
        "graph_pool_handle": lambda: (0, 1),
        "CUDAGraph": lambda: None,
        "graph": there.graph,
        "current_stream": lambda _: there.stream,
        "set_stream": lambda stream: setattr(there, "stream", stream),
        "default_generators": [generator],
    }.items():
        monkeypatch.setattr(torch.cuda, key, value)

    def fail() -> None:
        raise ValueError("a number was read")

    with pytest.raises(ValueError, match="a number was read"):
        CudaRecorder(_DEVICE).record(fail)
    assert there.stream == "usual"
    assert not there.pools
    generator.set_state.assert_called_once_with(generator.get_state())
