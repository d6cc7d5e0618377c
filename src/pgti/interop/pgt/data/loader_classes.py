"""PGT's loader classes for its data sets with index-batching: the same names, calls and results.

A constructor reads nothing and downloads nothing; files are opened when a data set is asked for.
`index`, which PGT needs to know beforehand, has no effect here.
"""

from pathlib import Path
from typing import Any, ClassVar

from pgti.interop.pgt.data.data_sets import default_directory
from pgti.interop.pgt.data.index_loaders import get_index_dataset
from pgti.interop.pgt.data.snapshots import Snapshots, published_snapshots

__all__ = [
    "ChickenpoxDatasetLoader",
    "METRLADatasetLoader",
    "PemsAllLADatasetLoader",
    "PemsBayDatasetLoader",
    "PemsDatasetLoader",
    "WindmillOutputLargeDatasetLoader",
]

Ratio = tuple[float, float, float]


class _FileLoader:
    """A data set whose files are in a directory.

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
    ) -> tuple[Any, ...]:
        """(train, val, test, edges, edge_weights, means, stds): see `get_index_dataset`.

        It has the same arguments, but for the name and `data_dir`.
        """
        return get_index_dataset(
            self._name, lags, batch_size, shuffle, allGPU, ratio, world_size, ddp_rank,
            dask_batching, data_dir=self.raw_data_dir, **options,
        )  # fmt: skip


class _TrafficSignalLoader(_TrafficLoader):
    """A data set of speeds that PGT gives as a signal too."""

    def get_dataset(
        self, num_timesteps_in: int = 12, num_timesteps_out: int = 12, **options: Any
    ) -> Snapshots:
        """Snapshots x [N, 2, T_in] and y, [N, T_out] or [N, 2, T_out]: see `published_snapshots`.

        `options` are `train_ratio` and `pgt_compat`.
        """
        return published_snapshots(
            self._name, self.raw_data_dir, num_timesteps_in, num_timesteps_out, **options
        )


class METRLADatasetLoader(_TrafficSignalLoader):
    """METR-LA: speeds at 207 sensors in Los Angeles County, every 5 minutes for four months.

    The y of a snapshot is [N, T_out], the speed.
    """

    _name = "METR-LA"


class PemsBayDatasetLoader(_TrafficSignalLoader):
    """PEMS-BAY: speeds at 325 sensors in the Bay Area, every 5 minutes for half a year.

    The y of a snapshot is [N, 2, T_out].
    """

    _name = "PEMS-BAY"


class PemsDatasetLoader(_TrafficLoader):
    """PeMS: speeds at 11,160 sensors of California, every 5 minutes for a year."""

    _name = "PeMS"


class PemsAllLADatasetLoader(_TrafficLoader):
    """PeMS-All-LA: speeds at 2,716 sensors of Los Angeles, every 5 minutes for a year."""

    _name = "PeMS-All-LA"


class _OneStepLoader(_FileLoader):
    """A data set of one feature, whose snapshots forecast the row after them."""

    def get_index_dataset(
        self,
        lags: int = 8,
        batch_size: int = 64,
        shuffle: bool = False,
        allGPU: int = -1,
        ratio: Ratio = (0.7, 0.1, 0.2),
        dask_batching: bool = False,
        **options: Any,
    ) -> tuple[Any, ...]:
        """(train, val, test, edges, edge_weights, means, stds): see `get_index_dataset`.

        It has the same arguments, but for the name and `data_dir`.
        """
        return get_index_dataset(
            self._name, lags, batch_size, shuffle, allGPU, ratio,
            dask_batching=dask_batching, data_dir=self.raw_data_dir, **options,
        )  # fmt: skip

    def get_dataset(self, lags: int = 8, **options: Any) -> Snapshots:
        """Snapshots x [N, lags] and y [N], the row after: see `published_snapshots`.

        `options` are `train_ratio` and `pgt_compat`.
        """
        return published_snapshots(self._name, self.raw_data_dir, lags, None, **options)


class WindmillOutputLargeDatasetLoader(_OneStepLoader):
    """WindmillLarge: hourly output of 319 windmills for two years."""

    _name = "WindmillLarge"


class ChickenpoxDatasetLoader(_OneStepLoader):
    """Chickenpox: weekly cases in 20 counties of Hungary for ten years, standardised in the file.

    Args:
        index: not used.
        raw_data_dir: where `chickenpox.json` is; `data` in the working directory if not given. PGT
            has no such argument: it downloads the file each time.
    """

    _name = "Chickenpox"

    def __init__(self, index: bool = False, *, raw_data_dir: str | Path | None = None) -> None:
        super().__init__(raw_data_dir, index)

    def get_index_dataset(
        self,
        lags: int = 4,
        batch_size: int = 4,
        shuffle: bool = False,
        allGPU: int = -1,
        ratio: Ratio = (0.7, 0.1, 0.2),
        dask_batching: bool = False,
        **options: Any,
    ) -> tuple[Any, ...]:
        """(train, val, test, edges, edge_weights): see `WindmillOutputLargeDatasetLoader`."""
        return super().get_index_dataset(
            lags, batch_size, shuffle, allGPU, ratio, dask_batching, **options
        )

    def get_dataset(self, lags: int = 4, **options: Any) -> Snapshots:
        """Snapshots x [N, lags] and y [N]: see `WindmillOutputLargeDatasetLoader`."""
        return super().get_dataset(lags, **options)
