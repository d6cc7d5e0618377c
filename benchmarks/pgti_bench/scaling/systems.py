"""The systems of the scaling study, each as a loader of a rank's shard of the global batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pgti.batching import (
    PREFETCH_DEPTH,
    Batch,
    Batcher,
    BatchLoader,
    BatchRequest,
    WindowSource,
    build_loader,
)
from pgti.distributed import Communicator
from pgti.windows import GlobalShuffle, Order, PartitionShuffle
from pgti_bench.scaling.dask import connect_batcher
from pgti_bench.scaling.options import DASK, DDP, EXCHANGE
from pgti_bench.scaling.windows import MaterializedBatcher

__all__ = ["build_system_loader"]

_BLOCK_SIZE = 8
_BATCHING = {"device": "device", DDP: "standard"}


class _MovingBatcher(Batcher[Any]):
    """Moves the batches of a batcher of the CPU to a GPU, from pinned memory."""

    def __init__(self, batcher: Batcher[Any], device: torch.device) -> None:
        super().__init__(batcher.source, device, batcher.prefetch_depth)
        self.rows = batcher.rows
        self._batcher = batcher

    def fetch(self, request: BatchRequest) -> Any:
        """What the batcher fetches."""
        return self._batcher.fetch(request)

    def assemble(self, fetched: Any) -> Batch:
        """The batch of the batcher, on the GPU."""
        batch = self._batcher.assemble(fetched)
        assert batch.y is not None
        assert batch.y_mask is not None
        pinned = (each.pin_memory() for each in (batch.x, batch.y, batch.y_mask))
        x, y, y_mask = (each.to(self.device, non_blocking=True) for each in pinned)
        return replace(batch, x=x, y=y, y_mask=y_mask).to(self.device)


def build_system_loader(
    system: str,
    source: WindowSource,
    starts: range,
    communicator: Communicator,
    *,
    batch_size: int,
    seed: int,
    place: str = "",
    device: torch.device | None = None,
) -> BatchLoader:
    """A rank's loader, built as in training if the system is one of pgti's.

    Args:
        system: a name out of `SYSTEMS`.
        source: what the windows contain.
        starts: the training starts.
        communicator: the ranks.
        batch_size: windows per rank.
        seed: of the order.
        place: directory of the written windows, or address of Dask's scheduler.
        device: of the batches; the CPU by default.

    Raises:
        BenchError: Dask is needed and not installed.
    """
    device = torch.device("cpu") if device is None else device
    order: Order = GlobalShuffle(seed)
    batcher: Batcher[Any] | None = None
    if system == DASK:
        batcher = connect_batcher(source, starts, place)
    elif system == "windows":
        batcher = MaterializedBatcher(source, starts, Path(place))
    elif system == "partitioned":
        # As many partitions as ranks, each of which gives a rank's batch.
        order = PartitionShuffle(seed, communicator.world_size, _BLOCK_SIZE)
    if batcher is not None and device.type != "cpu":
        batcher = _MovingBatcher(batcher, device)
    return build_loader(
        source,
        starts,
        batch_size * communicator.world_size,
        order,
        device=device,
        batching=_BATCHING.get(system, "index"),
        prefetch_depth=1 if system == DDP else PREFETCH_DEPTH,
        placement="partitioned" if system in ("partitioned", EXCHANGE) else "replicated",
        communicator=communicator,
        batcher=batcher,
    )
