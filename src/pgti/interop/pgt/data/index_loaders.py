"""`get_index_dataset`: PGT's function, on its data sets with index-batching and on any store."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.distributed import DistributedSampler

from pgti.errors import ConfigError, StoreError
from pgti.interop.pgt.data.compat import Scaling, standardize_as_pgt, standardize_lazily_as_pgt
from pgti.interop.pgt.data.data_sets import DATA_SETS, default_directory, find_data_set
from pgti.interop.pgt.data.index_dataset import IndexDataset, collate_windows
from pgti.interop.pgt.data.options import LoaderOptions
from pgti.interop.pgt.data.sampler import WindowSampler
from pgti.interop.pgt.data.sources import Source, StoreSource
from pgti.interop.pgt.data.standardize import Fill, LazySeries, load_series, standardize
from pgti.interop.pgt.edges import Edges
from pgti.store import SeriesStore
from pgti.store.meta import META_FILE

__all__ = ["get_index_dataset"]


def get_index_dataset(  # noqa: PLR0913, PLR0917 - PGT's arguments
    name_or_store: str | Path | SeriesStore,
    lags: int | None = None,
    batch_size: int | None = None,
    shuffle: bool = False,
    allGPU: int = -1,
    ratio: tuple[float, float, float] = (0.7, 0.1, 0.2),
    world_size: int = -1,
    ddp_rank: int = -1,
    dask_batching: bool = False,
    *,
    horizon: int | None = None,
    pgt_compat: bool = False,
    data_dir: str | Path | None = None,
    seed: int = 0,
    fill: Fill = "zero",
    masks: bool = False,
    num_workers: int = 0,
) -> tuple[Any, ...]:
    """Loaders of training, validation and test windows, the graph and the statistics.

    The arguments up to `dask_batching`, their defaults and the results are those of
    `get_index_dataset` of PyTorch Geometric Temporal 0.56.2. Batches are [x, y]: x [B, L, N, F] and
    y [B, H, N, F] in float32. The features are the standardised readings and, where a day has
    several rows, the time of day in [0, 1), which is not standardised.

    Mean and standard deviation are those of the observed readings in the inputs of training
    windows, of each channel, or of each windmill for WindmillLarge. They are rounded so that a
    missing reading, which stands in x and y as a reading of 0, is exactly 0 in `y * stds + means`,
    where PGT's masked losses look for it. In METR-LA, PEMS-BAY, PeMS and PeMS-All-LA a speed of 0
    is a missing reading.

    Args:
        name_or_store: METR-LA, PEMS-BAY, PeMS, PeMS-All-LA, WindmillLarge or Chickenpox; or a
            store, by path or opened. A `Path` is always a store.
        lags: rows of x; PGT's default if not given: 12, WindmillLarge 8, Chickenpox 4.
        batch_size: windows of a batch, on each rank; if not given 64, Chickenpox 4.
        shuffle: whether training windows come in an order drawn from (seed, epoch), a new one in
            each epoch. Validation and test windows always come in time order.
        allGPU: the GPU that holds the series and makes the batches; -1 for the CPU.
        ratio: shares of the windows for train, validation and test; they add up to 1.
        world_size: ranks of the job, or -1.
        ddp_rank: rank of this process, or -1. Every rank gets as many training windows; call
            `train_loader.sampler.set_epoch(epoch)` as with torch's sampler. Each validation and
            test window is one rank's, without padding. See `WindowSampler`.
        dask_batching: gather each batch from the file and hold nothing in memory. Stores and `.npy`
            files are memory-mapped, so that ranks of a machine share one copy; Dask is not needed.
        horizon: rows of y, if not as many as those of x.
        pgt_compat: give PGT's own numbers, to compare: statistics of the whole series, zeros among
            the readings, the time of day standardised; its dtypes (float64 for PeMS, PeMS-All-LA,
            WindmillLarge and Chickenpox on a CPU) and the edges in the order of the file; `shuffle`
            of all three splits, drawn as torch's samplers do; padded ranks; the second share of
            `ratio` ignored. This is PGT to the bit, with two exceptions: a test share of no window
            gives no window, and `dask_batching`, which fails there, works.
        data_dir: where the files of a data set are; `data` in the working directory if not given.
            They are never downloaded.
        seed: of the order of training windows.
        fill: what stands for a missing reading: "zero", see above, or "mean", which is 0 in x and y
            and better for readings whose zero is far from their mean (kelvins).
        masks: add to each batch which readings of y were observed, bool [B, H, N, F]; False for the
            time of day.
        num_workers: processes of each loader that prefetch batches.

    Returns:
        (train, val, test, edges, edge_weights, means, stds): three `DataLoader`s; sources and
        targets int64 [2, E], by source, then target, with the self loops of the file; float32 [E];
        mean and standard deviation of each feature, float32 [F], 0 and 1 for the time of day, or
        [N, 1] for WindmillLarge: `y * stds + means` is in original units. With `allGPU` means and
        stds are on the GPU. Chickenpox, whose file holds standardised numbers, has no means and
        stds.

    Raises:
        ConfigError: if an argument breaks its rule, there is no such data set, store or GPU, or the
            series does not fit in memory.
        DataError: if a file is missing, saying where to get it, or damaged.
        StoreError: if the store is damaged.
    """
    data_set = None
    if isinstance(name_or_store, str):
        data_set = find_data_set(name_or_store)
        if data_set is not None and (Path(name_or_store) / META_FILE).is_file():
            raise ConfigError(
                f"{name_or_store!r} is a data set, and a store in the working directory: give the "
                "store as a pathlib.Path, or the data set by its name in other letters"
            )
    if lags is None:
        lags = data_set.lags if data_set else 12
    if batch_size is None:
        batch_size = data_set.batch_size if data_set else 64
    options = LoaderOptions(
        lags=lags,
        batch_size=batch_size,
        shuffle=shuffle,
        all_gpu=allGPU,
        ratio=ratio,
        world_size=world_size,
        ddp_rank=ddp_rank,
        dask_batching=dask_batching,
        horizon=lags if horizon is None else horizon,
        pgt_compat=pgt_compat,
        seed=seed,
        fill=fill,
        masks=masks,
        num_workers=num_workers,
    )
    if data_set is not None:
        source, edges = data_set.open(default_directory(data_dir), pgt_compat=pgt_compat)
        return _loaders(source, edges, data_set.scaling, options)
    if data_dir is not None:
        raise ConfigError(
            f"data_dir is {data_dir} and {name_or_store} is not a data set of PGT: leave it out"
        )
    store = _open_store(name_or_store)
    return _loaders(StoreSource(store), Edges.from_graph(store.graph), "centred", options)


def _open_store(store: str | Path | SeriesStore) -> SeriesStore:
    if isinstance(store, SeriesStore):
        return store
    try:
        return SeriesStore.open(store)
    except StoreError as error:
        if isinstance(store, Path) or Path(store).exists():
            raise
        names = ", ".join(known.name for known in DATA_SETS)
        raise ConfigError(
            f"{store!r} is neither a data set ({names}) nor the path of a store"
        ) from error


def _loaders(
    source: Source, edges: Edges, scaling: Scaling, options: LoaderOptions
) -> tuple[Any, ...]:
    splits, device = options.splits(source.num_steps, source.holes), options.device
    if not options.pgt_compat:
        rows = None if scaling == "none" else splits.train_rows(options.spec)
        series = standardize(
            source,
            rows,
            per_node=scaling == "per-sensor",
            fill=options.fill,
            device=device,
            lazy=options.dask_batching,
        )
    elif options.dask_batching:
        series = standardize_lazily_as_pgt(source, scaling)
    else:
        series = standardize_as_pgt(source, scaling, device)
    mask = None
    if options.masks:
        observed = LazySeries(source, np.dtype(np.bool_), source.observed)
        mask = load_series(observed, device, lazy=options.dask_batching)
    loaders = []
    for name in ("train", "val", "test"):
        dataset = IndexDataset(
            np.asarray(getattr(splits, name), dtype=np.int64),
            series.data,
            options.horizon,
            lazy=options.dask_batching,
            gpu=device is not None,
            input_steps=options.lags,
            mask=mask,
        )
        loaders.append(_loader(dataset, options, is_training=name == "train"))
    if not options.pgt_compat:
        edges = edges.in_order()
    if series.mean is None:
        return (*loaders, edges.index, edges.weight)
    return (*loaders, edges.index, edges.weight, series.mean, series.std)


def _loader(dataset: IndexDataset, options: LoaderOptions, *, is_training: bool) -> DataLoader[Any]:
    """Batches of a split; in PGT's way all splits alike: shuffled by torch, padded over ranks."""
    shuffle, seed, generator = options.shuffle, options.seed, None
    sampler: Sampler[int] | None = None
    if not options.pgt_compat:
        sampler = WindowSampler(
            len(dataset),
            shuffle=shuffle and is_training,
            seed=seed,
            rank=max(0, options.ddp_rank),
            world_size=max(1, options.world_size),
            evenly=is_training,
        )
        # A generator of the loader's own: drawing seeds for workers changes nothing a model draws.
        generator = torch.Generator().manual_seed(seed)
    elif options.is_distributed:
        sampler = DistributedSampler(
            dataset, options.world_size, options.ddp_rank, shuffle=shuffle, seed=seed
        )
    return DataLoader(
        dataset,
        batch_size=options.batch_size,
        shuffle=shuffle and sampler is None and len(dataset) > 0,
        sampler=sampler,
        collate_fn=collate_windows,
        num_workers=options.num_workers,
        generator=generator,
    )
