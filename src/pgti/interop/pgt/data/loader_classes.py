"""PGT's loader classes for its data sets with index-batching: the same names, calls and results.

A constructor reads nothing and downloads nothing; files are opened when a data set is asked for.
`index`, with which PGT is told beforehand what will be asked for, decides nothing here.
"""

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from pgti.interop.pgt.data.data_sets import default_directory
from pgti.interop.pgt.data.index_loaders import IndexLoader, get_index_dataset
from pgti.interop.pgt.data.snapshots import Snapshots, published_snapshots

__all__ = [
    "ChickenpoxDatasetLoader",
    "METRLADatasetLoader",
    "PemsAllLADatasetLoader",
    "PemsBayDatasetLoader",
    "PemsDatasetLoader",
    "WindmillOutputLargeDatasetLoader",
]

WithStatistics = tuple[IndexLoader, IndexLoader, IndexLoader, Tensor, Tensor, Tensor, Tensor]
WithoutStatistics = tuple[IndexLoader, IndexLoader, IndexLoader, Tensor, Tensor]

Ratio = tuple[float, float, float]


class _FileLoader:
    """A data set whose files lie in a directory.

    Args:
        raw_data_dir: the directory; `data` in the working directory if not given.
        index: not used.
    """

    _name: ClassVar[str]

    def __init__(self, raw_data_dir: str | Path | None = None, index: bool = False) -> None:
        self.raw_data_dir = default_directory(raw_data_dir)
        self.index = index


class _TrafficLoader(_FileLoader):
    """A data set of speeds, and the time of day."""

    def get_index_dataset(
        self,
        lags: int = 12,
        batch_size: int = 64,
        shuffle: bool = False,
        allGPU: int = -1,
        ratio: Ratio = (0.7, 0.1, 0.2),
        world_size: int = -1,
        ddp_rank: int = -1,
        dask_batching: bool = False,
        **options: Any,
    ) -> WithStatistics:
        """(train, val, test, edges, edge_weights, means, stds): see `get_index_dataset`.

        Args:
            lags: rows of x and y.
            batch_size: windows of a batch, on each rank.
            shuffle: whether training windows are shuffled.
            allGPU: the GPU that holds the series, or -1.
            ratio: shares of train, validation and test.
            world_size: ranks, or -1.
            ddp_rank: which of them this is, or -1.
            dask_batching: gather each batch from the file.
            **options: what follows `dask_batching` there, but for `data_dir`.
        """
        made: Any = get_index_dataset(
            self._name, lags, batch_size, shuffle, allGPU, ratio, world_size, ddp_rank,
            dask_batching, data_dir=self.raw_data_dir, **options,
        )  # fmt: skip
        loaders: WithStatistics = made
        return loaders


class METRLADatasetLoader(_TrafficLoader):
    """METR-LA: speeds at 207 sensors in Los Angeles County, every 5 minutes for four months."""

    _name = "METR-LA"

    def get_dataset(
        self,
        num_timesteps_in: int = 12,
        num_timesteps_out: int = 12,
        **options: Any,
    ) -> Snapshots:
        """Snapshots x [N, 2, T_in] and y [N, T_out], the speed: see `published_snapshots`."""
        return published_snapshots(
            self._name, self.raw_data_dir, num_timesteps_in, num_timesteps_out, **options
        )


class PemsBayDatasetLoader(_TrafficLoader):
    """PEMS-BAY: speeds at 325 sensors in the Bay Area, every 5 minutes for half a year."""

    _name = "PEMS-BAY"

    def get_dataset(
        self,
        num_timesteps_in: int = 12,
        num_timesteps_out: int = 12,
        **options: Any,
    ) -> Snapshots:
        """Snapshots x [N, 2, T_in] and y [N, 2, T_out]: see `published_snapshots`."""
        return published_snapshots(
            self._name, self.raw_data_dir, num_timesteps_in, num_timesteps_out, **options
        )


class PemsDatasetLoader(_TrafficLoader):
    """PeMS: speeds at 11,160 sensors of California, every 5 minutes for a year."""

    _name = "PeMS"


class PemsAllLADatasetLoader(_TrafficLoader):
    """PeMS-All-LA: speeds at 2,716 sensors of Los Angeles, every 5 minutes for a year."""

    _name = "PeMS-All-LA"


class WindmillOutputLargeDatasetLoader(_FileLoader):
    """WindmillLarge: hourly output of 319 windmills for two years."""

    _name = "WindmillLarge"

    def get_index_dataset(
        self,
        lags: int = 8,
        batch_size: int = 64,
        shuffle: bool = False,
        allGPU: int = -1,
        ratio: Ratio = (0.7, 0.1, 0.2),
        dask_batching: bool = False,
        **options: Any,
    ) -> WithStatistics:
        """(train, val, test, edges, edge_weights, means, stds): see `get_index_dataset`.

        Args:
            lags: rows of x and y.
            batch_size: windows of a batch, on each rank.
            shuffle: whether training windows are shuffled.
            allGPU: the GPU that holds the series, or -1.
            ratio: shares of train, validation and test.
            dask_batching: gather each batch from the file.
            **options: `world_size`, `ddp_rank`, and what follows `dask_batching` there, but for
                `data_dir`.
        """
        made: Any = get_index_dataset(
            self._name, lags, batch_size, shuffle, allGPU, ratio,
            dask_batching=dask_batching, data_dir=self.raw_data_dir, **options,
        )  # fmt: skip
        loaders: WithStatistics = made
        return loaders

    def get_dataset(self, lags: int = 8, **options: Any) -> Snapshots:
        """Snapshots x [N, lags] and y [N], the row after: see `published_snapshots`."""
        return published_snapshots(self._name, self.raw_data_dir, lags, None, **options)


class ChickenpoxDatasetLoader:
    """Chickenpox: weekly cases in 20 counties of Hungary for ten years, standardised in the file.

    Args:
        index: not used.
        raw_data_dir: where `chickenpox.json` is; `data` in the working directory if not given. PGT
            has no such argument: it downloads the file each time.
    """

    _name: ClassVar[str] = "Chickenpox"

    def __init__(self, index: bool = False, *, raw_data_dir: str | Path | None = None) -> None:
        self.raw_data_dir = default_directory(raw_data_dir)
        self.index = index

    def get_index_dataset(
        self,
        lags: int = 4,
        batch_size: int = 4,
        shuffle: bool = False,
        allGPU: int = -1,
        ratio: Ratio = (0.7, 0.1, 0.2),
        dask_batching: bool = False,
        **options: Any,
    ) -> WithoutStatistics:
        """(train, val, test, edges, edge_weights): see `get_index_dataset`.

        Args:
            lags: rows of x and y.
            batch_size: windows of a batch, on each rank.
            shuffle: whether training windows are shuffled.
            allGPU: the GPU that holds the series, or -1.
            ratio: shares of train, validation and test.
            dask_batching: gather each batch from the file.
            **options: `world_size`, `ddp_rank`, and what follows `dask_batching` there, but for
                `data_dir`.
        """
        made: Any = get_index_dataset(
            self._name, lags, batch_size, shuffle, allGPU, ratio,
            dask_batching=dask_batching, data_dir=self.raw_data_dir, **options,
        )  # fmt: skip
        loaders: WithoutStatistics = made
        return loaders

    def get_dataset(self, lags: int = 4, **options: Any) -> Snapshots:
        """Snapshots x [N, lags] and y [N], the row after: see `published_snapshots`."""
        return published_snapshots(self._name, self.raw_data_dir, lags, None, **options)
