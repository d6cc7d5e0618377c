"""The systems of the scaling study, each as a loader of a rank's shard of the global batches."""

from pathlib import Path
from typing import Any

from pgti.batching import Batcher, BatchLoader, WindowSource, build_loader
from pgti.distributed import Communicator
from pgti.windows import GlobalShuffle, Order, PartitionShuffle
from pgti_bench.scaling.dask import connect_batcher
from pgti_bench.scaling.options import DASK, EXCHANGE
from pgti_bench.scaling.windows import MaterializedBatcher

__all__ = ["build_system_loader"]

_BLOCK_SIZE = 8


def build_system_loader(
    system: str,
    source: WindowSource,
    starts: range,
    communicator: Communicator,
    *,
    batch_size: int,
    seed: int,
    place: str = "",
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

    Raises:
        BenchError: Dask is needed and not installed.
    """
    order: Order = GlobalShuffle(seed)
    batcher: Batcher[Any] | None = None
    if system == DASK:
        batcher = connect_batcher(source, starts, place)
    elif system == "windows":
        batcher = MaterializedBatcher(source, starts, Path(place))
    elif system == "partitioned":
        # As many partitions as ranks, each of which gives a rank's batch.
        order = PartitionShuffle(seed, communicator.world_size, _BLOCK_SIZE)
    return build_loader(
        source,
        starts,
        batch_size * communicator.world_size,
        order,
        batching="device" if system == "device" else "index",
        placement="partitioned" if system in ("partitioned", EXCHANGE) else "replicated",
        communicator=communicator,
        batcher=batcher,
    )
