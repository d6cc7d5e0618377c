"""The arguments of `get_index_dataset`, checked."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import ConfigError, require_whole_number
from pgti.interop.pgt.data.standardize import FILLS, Fill
from pgti.windows import Splits, WindowSpec, split_by_fractions
from pgti.windows.order import check_seed

__all__ = ["LoaderOptions", "cuda_device"]

_MINIMA = {
    "lags": 1,
    "batch_size": 1,
    "horizon": 1,
    "num_workers": 0,
    "all_gpu": -1,
    "seed": 0,
    "world_size": -1,
    "ddp_rank": -1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderOptions:
    """The arguments of `get_index_dataset`, which describes them.

    Raises:
        ConfigError: if one breaks its rule, or two contradict each other.
    """

    lags: int
    batch_size: int
    shuffle: bool
    all_gpu: int
    ratio: tuple[float, float, float]
    world_size: int
    ddp_rank: int
    dask_batching: bool
    horizon: int
    pgt_compat: bool
    seed: int
    fill: Fill
    masks: bool
    num_workers: int

    def __post_init__(self) -> None:
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            if isinstance(value, np.integer):
                value = int(value)
            require_whole_number("allGPU" if name == "all_gpu" else name, value, minimum)
            object.__setattr__(self, name, value)
        check_seed(self.seed)
        self._check_ranks()
        if len(self.ratio) != 3:
            raise ConfigError(f"ratio is {self.ratio}: it must be three shares: train, val, test")
        if self.fill not in FILLS:
            raise ConfigError(f"fill is {self.fill!r}: it must be one of {', '.join(FILLS)}")
        if self.all_gpu >= 0 and self.dask_batching:
            raise ConfigError(
                f"allGPU is {self.all_gpu} and dask_batching is True: the one holds the series on "
                "the GPU, the other holds it nowhere; choose one"
            )
        if self.all_gpu >= 0 and self.num_workers:
            raise ConfigError(
                f"allGPU is {self.all_gpu} and num_workers is {self.num_workers}: the GPU "
                "builds the batches, and workers have nothing to do; leave num_workers out"
            )
        if self.pgt_compat and (self.fill != "zero" or self.masks or self.horizon != self.lags):
            raise ConfigError(
                "pgt_compat is True, and PGT knows no fill, no masks and no horizon other than "
                "lags: leave them out"
            )

    def _check_ranks(self) -> None:
        if (self.world_size == -1) != (self.ddp_rank == -1):
            raise ConfigError(
                f"world_size is {self.world_size} and ddp_rank is {self.ddp_rank}: give both, or "
                "neither for a single process"
            )
        if self.is_distributed and not self.ddp_rank < self.world_size:
            raise ConfigError(
                f"ddp_rank is {self.ddp_rank}: it must be less than world_size {self.world_size}"
            )

    @property
    def is_distributed(self) -> bool:
        """Whether a rank is given."""
        return self.ddp_rank != -1

    @property
    def device(self) -> torch.device | None:
        """The GPU that holds the series, or None."""
        return cuda_device(self.all_gpu) if self.all_gpu >= 0 else None

    @property
    def spec(self) -> WindowSpec:
        """The shape of the windows."""
        return WindowSpec(input_steps=self.lags, horizon=self.horizon)

    def splits(self, num_steps: int, holes: NDArray[np.int64] | None = None) -> Splits:
        """The windows of each split.

        Args:
            num_steps: rows of the series.
            holes: the rows that missing ones follow; windows that reach across are left out, but
                PGT has them.

        Raises:
            ConfigError: if the ratio breaks its rule, or no training window is left.
        """
        if not self.pgt_compat:
            return split_by_fractions(num_steps, self.spec, self.ratio, holes=holes)
        return _split_as_pgt(num_steps, self.spec, self.ratio)


def _split_as_pgt(num_steps: int, spec: WindowSpec, ratio: tuple[float, float, float]) -> Splits:
    """PGT's rule: train and test are rounded, and validation is the rest, whatever its share.

    A test share of no window gives no window; PGT makes all windows test windows then.
    """
    train, _, test = ratio
    if not (0 <= train <= 1 and 0 <= test <= 1 and train + test <= 1 + 1e-6):
        raise ConfigError(
            f"ratio is {ratio}: the shares of train and test must lie between 0 and 1 and leave "
            "validation no less than nothing"
        )
    starts = spec.starts(num_steps)
    num_train, num_test = round(len(starts) * train), round(len(starts) * test)
    if not num_train:
        raise ConfigError(
            f"no training window: a series of {count_of(num_steps, 'step')} has "
            f"{count_of(len(starts), 'window')} of {count_of(spec.span, 'step')}; shorten lags, or "
            "give train a larger share"
        )
    first_test = len(starts) - num_test
    return Splits(
        train=starts[:num_train], val=starts[num_train:first_test], test=starts[first_test:]
    )


def cuda_device(index: int) -> torch.device:
    """The GPU of a number.

    Raises:
        ConfigError: if this machine has none of that number.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        rest = f"{count_of(count, 'GPU')}, which count from 0" if count else "no usable GPU"
        raise ConfigError(
            f"allGPU is {index} and this machine has {rest}: leave allGPU at -1 for the CPU"
        )
    return torch.device("cuda", index)
