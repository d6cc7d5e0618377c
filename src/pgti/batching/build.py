"""Batchers and loaders from the names of a strategy and a placement; the choice between them."""

from typing import Any, get_args

import numpy as np
import torch

from pgti.batching.assembler import Assembler, TorchAssembler
from pgti.batching.batcher import Batcher, RowSource, WindowBatcher
from pgti.batching.decoded import DecodedBatcher, decoded_bytes
from pgti.batching.device_rows import DeviceRows, device_bytes
from pgti.batching.exchanged_rows import ExchangedDeviceRows, ExchangedRows
from pgti.batching.host_rows import HostRows
from pgti.batching.loader import BatchLoader
from pgti.batching.mapped_series import MappedSeries
from pgti.batching.numpy_assembler import NumpyAssembler
from pgti.batching.partitioned_rows import PartitionedDeviceRows, PartitionedRows
from pgti.batching.source import WindowSource
from pgti.batching.standard import StandardBatcher
from pgti.display import size_text
from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError
from pgti.memory import GPU_FRACTION, available_bytes
from pgti.windows import (
    EvenSharding,
    Order,
    PartitionSharding,
    PartitionShuffle,
    Placement,
    Sequential,
    Sharding,
    Starts,
)

__all__ = [
    "BATCHINGS",
    "PLACEMENTS",
    "PREFETCH_DEPTH",
    "build_batcher",
    "build_loader",
    "build_sharding",
    "choose_batching",
]

BATCHINGS = ("index", "device", "standard")
PLACEMENTS = get_args(Placement)
PREFETCH_DEPTH = 3
"""Batches in progress: one in use, one ready, one being fetched."""

_DECODED_BYTES = 1 << 28
_DECODED_FRACTION = 1 / 16  # of the memory that is available


def build_batcher(
    batching: str,
    source: WindowSource,
    device: torch.device,
    *,
    prefetch_depth: int = PREFETCH_DEPTH,
    budget_bytes: int | None = None,
) -> Batcher[Any]:
    """The strategy called `batching`; `choose_batching` names one that fits.

    Args:
        batching: index (rows copied from the mapped series), device (rows gathered on the compute
            device, which holds the series) or standard (all windows materialized).
        source: what the windows hold.
        device: where batches are made.
        prefetch_depth: batches that a loader has in progress; 1 where there is nothing to fetch.
        budget_bytes: index: on a CPU, a series whose decoded rows fit in it is decoded once and
            cached, 0 caches nothing; by default 256 MiB, or a sixteenth of the available memory if
            that is less. device, standard: the most memory that the series or its windows may
            take; by default what is available.

    Raises:
        ConfigError: if there is no such strategy, or what it holds does not fit in memory.
    """
    if batching == "standard":
        return StandardBatcher(source, device, prefetch_depth, budget_bytes)
    if batching == "device":
        rows = DeviceRows(source, device, budget_bytes)
        return WindowBatcher(source, device, rows, _assembler(source, device))
    if batching != "index":
        raise ConfigError(
            f"there is no batching {batching!r}: use one of {', '.join(BATCHINGS)}, or "
            "auto in training"
        )
    if budget_bytes is None:
        budget_bytes = min(_DECODED_BYTES, int(_DECODED_FRACTION * available_bytes()))
    if device.type == "cpu" and decoded_bytes(source) <= budget_bytes:
        return DecodedBatcher(source)
    return _window_batcher(
        source,
        device,
        HostRows(source, device, MappedSeries(source.store, sensors=source.sensors)),
        prefetch_depth,
    )


def build_loader(  # noqa: PLR0913 - each names one part of a loader
    source: WindowSource,
    starts: Starts,
    batch_size: int,
    order: Order | None = None,
    *,
    device: torch.device | None = None,
    batching: str = "index",
    placement: str = "replicated",
    communicator: Communicator | None = None,
    batcher: Batcher[Any] | None = None,
    with_targets: bool = True,
    prefetch_depth: int = PREFETCH_DEPTH,
) -> BatchLoader:
    """This rank's windows of every batch, from where the placement has their rows.

    Args:
        source: what the windows hold.
        starts: window starts of the split: a range or int64 [S].
        batch_size: windows in a global batch.
        order: in which order the windows are used; time order if not given.
        device: where batches are made; the batcher's, or else the CPU, if not given.
        batching: strategy; of a partitioned placement, where a rank holds its rows: index, in host
            memory, or device, on its compute device.
        placement: replicated, every rank reads the whole series; partitioned, each holds a part.
        communicator: the ranks that share the batches; one process if not given.
        batcher: of a replicated placement, in place of a new one.
        with_targets: False for windows whose horizon lies past the end of the series.
        prefetch_depth: batches in progress.

    Raises:
        ConfigError: if there is no such batching or placement, or it does not fit in memory.
    """
    order = Sequential() if order is None else order
    if device is None:
        device = torch.device("cpu") if batcher is None else batcher.device
    communicator = SingleProcess() if communicator is None else communicator
    rank, size = communicator.rank, communicator.world_size
    if source.sensors is not None:  # ranks that have the other sensors take the same windows
        rank, size = communicator.data_rank, communicator.data_size
    sharding = build_sharding(order, placement, rank, size)
    if placement == "partitioned":
        if not isinstance(starts, range) and (np.diff(starts) <= 0).any():
            raise ConfigError(
                "the window starts do not rise: a partitioned placement takes them in time order"
            )
        is_resident = batching == "device"
        rows: RowSource[Any]
        if isinstance(sharding, PartitionSharding):
            partitioned = PartitionedDeviceRows if is_resident else PartitionedRows
            rows = partitioned(source, device, starts, sharding, communicator)
        else:
            prefetch_depth = max(2, prefetch_depth)  # rows travel while another batch is used
            exchanged = ExchangedDeviceRows if is_resident else ExchangedRows
            rows = exchanged(source, device, starts, communicator, prefetch_depth)
        batcher = _window_batcher(source, device, rows, 1 if is_resident else prefetch_depth)
    elif batcher is None:
        batcher = build_batcher(batching, source, device, prefetch_depth=prefetch_depth)
    return BatchLoader(
        batcher, starts, batch_size, order, with_targets=with_targets, sharding=sharding
    )


def build_sharding(order: Order, placement: str, rank: int, world_size: int) -> Sharding:
    """Which windows of a batch are a rank's.

    Raises:
        ConfigError: if there is no such placement or rank, or there are fewer partitions than
            ranks.
    """
    if placement not in PLACEMENTS:
        raise ConfigError(
            f"there is no placement {placement!r}: use one of {', '.join(PLACEMENTS)}"
        )
    if placement == "partitioned" and isinstance(order, PartitionShuffle):
        return PartitionSharding(order, rank, world_size)
    return EvenSharding(rank, world_size)


def choose_batching(
    source: WindowSource, device: torch.device, budget_bytes: int | None = None
) -> tuple[str, str]:
    """The fastest strategy that fits, and why it was chosen, in one line.

    On a GPU the series moves there if it fits; whether the model fits beside it, a trial step
    shows. On a CPU the memory map is as fast as a copy: the page cache holds the series where it
    fits, and the disk serves it where it does not.

    Args:
        source: what the windows hold.
        device: where batches are made.
        budget_bytes: memory of the device that may be used, if that is less than what is free.
    """
    needed, free = device_bytes(source), available_bytes(device)
    if budget_bytes is not None:
        free = min(free, budget_bytes)
    sizes = f"the series takes {size_text(needed)} of {size_text(free)} free"
    if device.type == "cuda":
        if needed <= GPU_FRACTION * free:
            return "device", f"batching device: {sizes} on {device}"
        return "index", f"batching index: {sizes} on {device}, which is too much"
    if needed <= free:
        return "index", f"batching index, in memory: {sizes} on this machine"
    return "index", f"batching index, from disk: {sizes} on this machine"


def _window_batcher(
    source: WindowSource, device: torch.device, rows: RowSource[Any], prefetch_depth: int
) -> WindowBatcher[Any]:
    return WindowBatcher(source, device, rows, _assembler(source, device), prefetch_depth)


def _assembler(source: WindowSource, device: torch.device) -> Assembler:
    return NumpyAssembler(source) if device.type == "cpu" else TorchAssembler(source, device)
