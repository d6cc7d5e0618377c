"""Standardised series: z = (x - mean) / std, statistics from training rows, made as rows are read.

What stands for a missing reading is a reading of 0, as in PGT's arrays and in DCRNN's, and PGT's
scripts tell it by `z * std + mean != 0`. In general rounding decides whether 0 comes back, once for
a whole data set. Here it always does: mean and standard deviation are rounded to so few binary
digits that every step from 0 and back to 0 is exact.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.errors import ConfigError, DataError
from pgti.interop.pgt.data.sources import Rows, Source
from pgti.memory.available import available_bytes

__all__ = [
    "FILLS",
    "Fill",
    "LazySeries",
    "ObservedSeries",
    "Standardisation",
    "StandardisedSeries",
    "check_room",
    "exact_about_zero",
    "fit",
    "resident_array",
    "resident_tensor",
]

Fill = Literal["zero", "mean"]
FILLS: tuple[Fill, ...] = get_args(Fill)

# Together the 24 digits of a float32.
_STD_BITS = 10
_RATIO_BITS = 14
_NO_RATIO = 2.0**-60


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Standardisation:
    """z = (x - mean) / std, computed in the dtype of mean and std.

    Args:
        mean: of each feature [F], or of each sensor [N, 1]; 0 for the calendar.
        std: of the same shape; 1 for the calendar.
        fill: what stands for a missing reading: "zero", a reading of 0; "mean", z = 0.
    """

    mean: NDArray[np.floating[Any]]
    std: NDArray[np.floating[Any]]
    fill: Fill = "zero"

    def apply(self, values: Rows, source: Source) -> Rows:
        """Rows [R, N, F] that `source` read, standardised; their memory is used again."""
        missing = ~source.observed(values)
        values = values.astype(self.mean.dtype, copy=False)
        readings = values[..., : source.num_readings]
        np.copyto(readings, 0, where=missing)
        # Row by row: numpy is slow at repeating an axis that is as short as that of the features.
        rows = values.reshape(len(values), -1)
        rows -= _spread(self.mean, values.shape[1:])
        rows /= _spread(self.std, values.shape[1:])
        if self.fill == "mean":
            np.copyto(readings, 0, where=missing)
        return values


def _spread(
    statistic: NDArray[np.floating[Any]], shape: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    """A statistic of [F] or [N, 1] for each number of a row, [N * F]."""
    return np.ascontiguousarray(np.broadcast_to(statistic, shape)).ravel()


def fit(
    source: Source, rows: range, *, per_node: bool = False, fill: Fill = "zero"
) -> Standardisation:
    """Statistics of the observed readings in the training rows; the calendar is left as it is.

    Accumulated in float64 and then rounded as `exact_about_zero` says.

    Args:
        source: the data set.
        rows: its training rows.
        per_node: standardise each sensor by its own statistics, [N, 1]; for one channel.
        fill: see `Standardisation`.

    Raises:
        DataError: if a channel has no observed reading in those rows.
    """
    moments = source.moments(rows, per_node=per_node)
    counts = moments.count.sum(keepdims=True) if per_node else moments.count
    if (counts == 0).any():
        raise DataError(
            f"channel {int(np.argmin(counts))} of {source.name} has no observed reading in the "
            f"training rows {rows.start} to {rows.stop - 1}: give train a larger share"
        )
    std = np.sqrt(moments.m2 / np.maximum(moments.count, 1))
    mean, std = exact_about_zero(moments.mean, np.where(std > 0, std, 1.0))
    if per_node:
        mean, std = mean[:, None], std[:, None]
    else:
        mean = np.append(mean, np.zeros(source.num_calendar, np.float32))
        std = np.append(std, np.ones(source.num_calendar, np.float32))
    return Standardisation(mean=mean, std=std, fill=fill)


def exact_about_zero(
    mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The nearest mean and standard deviation with which 0 becomes z and z becomes 0 exactly.

    The standard deviation keeps 10 binary digits, and the mean is a multiple of it by a number of
    14: their product is exact in float32. So `z * std + mean` is 0 for the z of 0, in float32 and
    float64, with a fused multiply-add or without. The standard deviation changes by a thousandth at
    most, the mean by less than a ten-thousandth of itself.
    """
    short_std = _rounded(std, _STD_BITS)
    short_ratio = _rounded(mean / short_std, _RATIO_BITS)
    # So small a mean is none, and products with it would lose digits below the smallest float32.
    short_ratio[np.abs(short_ratio) < _NO_RATIO] = 0
    return (short_ratio * short_std).astype(np.float32), short_std.astype(np.float32)


def _rounded(values: NDArray[np.float64], num_bits: int) -> NDArray[np.float64]:
    """The nearest numbers of so many binary digits."""
    fraction, exponent = np.frexp(values)
    rounded: NDArray[np.float64] = np.ldexp(
        np.rint(np.ldexp(fraction, num_bits)), exponent - num_bits
    )
    return rounded


class LazySeries(ABC):
    """A series [T, N, F] whose rows are made when they are asked for.

    Args:
        source: where they are read.
        dtype: of what is made.
    """

    def __init__(self, source: Source, dtype: np.dtype[Any]) -> None:
        self.source = source
        self.dtype = dtype
        self.shape = source.shape

    @property
    def nbytes(self) -> int:
        """What the whole series would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Rows by a slice, or by numbers that rise."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        return self.made_of(self.source.read(rows))

    @abstractmethod
    def made_of(self, values: Rows) -> NDArray[Any]:
        """What rows [R, N, F] of the source become."""


class StandardisedSeries(LazySeries):
    """Standardised readings, and the calendar.

    Args:
        source: the data set.
        standardisation: its statistics.
    """

    def __init__(self, source: Source, standardisation: Standardisation) -> None:
        super().__init__(source, standardisation.mean.dtype)
        self.standardisation = standardisation

    def made_of(self, values: Rows) -> NDArray[Any]:
        """See `Standardisation.apply`."""
        return self.standardisation.apply(values, self.source)


class ObservedSeries(LazySeries):
    """Which readings there are: bool, and False for the calendar, which is nothing to forecast.

    Args:
        source: the data set.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source, np.dtype(np.bool_))

    def made_of(self, values: Rows) -> NDArray[Any]:
        """See the class."""
        made = np.zeros(values.shape, dtype=np.bool_)
        made[..., : self.source.num_readings] = self.source.observed(values)
        return made


def resident_array(series: LazySeries) -> NDArray[Any]:
    """The whole series in memory, an array [T, N, F] made piece by piece.

    Raises:
        ConfigError: if memory does not hold it.
    """
    check_room(series.source.name, series.nbytes, None)
    whole = np.empty(series.shape, dtype=series.dtype)
    for place, values in series.source.pieces(range(len(series))):
        whole[place] = series.made_of(values)
    return whole


def resident_tensor(series: LazySeries, device: torch.device) -> Tensor:
    """The whole series on a device, a tensor [T, N, F] moved there piece by piece.

    Raises:
        ConfigError: if the device does not hold it.
    """
    check_room(series.source.name, series.nbytes, device)
    dtype = torch.from_numpy(np.empty(0, dtype=series.dtype)).dtype
    whole = torch.empty(series.shape, dtype=dtype, device=device)
    for place, values in series.source.pieces(range(len(series))):
        whole[place].copy_(torch.from_numpy(series.made_of(values)))
    return whole


def check_room(name: str, needed_bytes: int, device: torch.device | None) -> None:
    """Refuse to hold a series where there is no room for it.

    Raises:
        ConfigError: giving what it takes and what is free.
    """
    free = available_bytes(device)
    if needed_bytes > free:
        where = "in memory" if device is None else f"on {device}"
        raise ConfigError(
            f"the series of {name} takes {needed_bytes / 2**30:.2f} GiB {where} and "
            f"{free / 2**30:.2f} GiB are free: say dask_batching=True, which gathers each batch "
            "from the file"
        )
