"""Standardised series: z = (x - mean) / std, with statistics of training rows.

A missing reading stands in a series as a reading of 0, as in the arrays of PGT and DCRNN, and PGT's
scripts recognise it by `z * std + mean != 0`. In general rounding decides whether 0 comes back, for
a whole data set at once. Here it always does: mean and standard deviation are rounded to so few
binary digits that every step from 0 and back to 0 is exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.errors import ConfigError, DataError
from pgti.interop.pgt.data.sources import Rows, Source
from pgti.memory import available_bytes

__all__ = [
    "FILLS",
    "Fill",
    "LazySeries",
    "Standardized",
    "Standardizer",
    "check_room",
    "exact_about_zero",
    "load_series",
    "standardize",
]

Fill = Literal["zero", "mean"]
FILLS: tuple[Fill, ...] = get_args(Fill)

# Together the 24 digits of a float32.
_STD_BITS = 10
_RATIO_BITS = 14
_NO_RATIO = 2.0**-60


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Standardized:
    """A standardised series and its statistics.

    Attributes:
        data: [T, N, F]: an array, a tensor on a GPU, or a `LazySeries`.
        mean: of each feature [F], or of each sensor; None where the series was left as it is.
        std: of the same shape.
    """

    data: Any
    mean: Tensor | None = None
    std: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Standardizer:
    """z = (x - mean) / std, computed in the dtype of mean and std.

    Attributes:
        mean: of each feature [F], or of each sensor [N, 1]; 0 for the calendar.
        std: of the same shape; 1 for the calendar.
        fill: what stands for a missing reading: "zero", a reading of 0; "mean", z = 0.
    """

    mean: NDArray[np.floating[Any]]
    std: NDArray[np.floating[Any]]
    fill: Fill = "zero"

    @classmethod
    def fit(
        cls, source: Source, rows: range, *, per_node: bool = False, fill: Fill = "zero"
    ) -> "Standardizer":
        """Statistics of the observed readings in the training rows; the calendar stays as it is.

        They are accumulated in float64, then rounded: see `exact_about_zero`. With `per_node` they
        are those of each sensor, [N, 1], of one channel.

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
        mean, std = exact_about_zero(moments.mean, moments.std)
        if per_node:
            mean, std = mean[:, None], std[:, None]
        else:
            mean = np.append(mean, np.zeros(source.num_calendar, np.float32))
            std = np.append(std, np.ones(source.num_calendar, np.float32))
        return cls(mean=mean, std=std, fill=fill)

    def apply(self, source: Source, values: Rows) -> Rows:
        """Standardise rows [R, N, F] that `source` read, in place where the dtype allows."""
        missing = ~source.observed(values)[..., : source.num_readings]
        values = values.astype(self.mean.dtype, order="C", copy=False)
        readings = values[..., : source.num_readings]
        np.copyto(readings, 0, where=missing)
        # Row by row: numpy is slow at broadcasting an axis as short as that of the features.
        rows = values.reshape(len(values), -1)
        rows -= _repeat(self.mean, values.shape[1:])
        rows /= _repeat(self.std, values.shape[1:])
        if self.fill == "mean":
            np.copyto(readings, 0, where=missing)
        return values

    def series(self, source: Source) -> "LazySeries":
        """The standardised series of a data set."""
        return LazySeries(source, self.mean.dtype, partial(self.apply, source))


def _repeat(
    statistic: NDArray[np.floating[Any]], shape: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    """A statistic of [F] or [N, 1] for each number of a row, [N * F]."""
    return np.ascontiguousarray(np.broadcast_to(statistic, shape)).ravel()


def exact_about_zero(
    mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The nearest mean and standard deviation with which 0 becomes z and z becomes 0 exactly.

    The standard deviation keeps 10 binary digits, and the mean is a multiple of it by a number of
    14: their product is exact in float32. So `z * std + mean` is 0 for the z of 0, in float32 and
    float64, with a fused multiply-add or without. The standard deviation changes by a thousandth at
    most, the mean by less than a ten-thousandth of itself.
    """
    short_std = _round_to_bits(std, _STD_BITS)
    short_ratio = _round_to_bits(mean / short_std, _RATIO_BITS)
    # So small a mean counts as 0: products with it would lose digits below the smallest float32.
    short_ratio[np.abs(short_ratio) < _NO_RATIO] = 0
    return (short_ratio * short_std).astype(np.float32), short_std.astype(np.float32)


def _round_to_bits(values: NDArray[np.float64], num_bits: int) -> NDArray[np.float64]:
    """The nearest numbers of `num_bits` binary digits."""
    fraction, exponent = np.frexp(values)
    rounded: NDArray[np.float64] = np.ldexp(
        np.rint(np.ldexp(fraction, num_bits)), exponent - num_bits
    )
    return rounded


class LazySeries:
    """A series [T, N, F] whose rows are computed when they are read.

    Args:
        source: the rows that it is computed from.
        dtype: of the series.
        compute: turns rows [R, N, F] of the source into rows of the series.
    """

    def __init__(
        self, source: Source, dtype: np.dtype[Any], compute: Callable[[Rows], NDArray[Any]]
    ) -> None:
        self.source = source
        self.dtype = dtype
        self.shape = source.shape
        self.compute_rows = compute

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Rows by a slice, or by rising row numbers."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        return self.compute_rows(self.source.read(rows))


def standardize(
    source: Source,
    rows: range | None,
    *,
    per_node: bool = False,
    fill: Fill = "zero",
    device: torch.device | None = None,
    lazy: bool = False,
) -> Standardized:
    """The series of a data set, standardised by its training rows.

    Args:
        source: the data set.
        rows: its training rows; None leaves the readings in their own units.
        per_node: standardise each sensor of the one channel by its own statistics.
        fill: see `Standardizer`.
        device: the GPU that holds the series; None for the host.
        lazy: compute rows when they are read, and hold nothing.

    Raises:
        ConfigError: if there is no room for the series.
        DataError: as `Standardizer.fit`.
    """
    if rows is None:
        fitted = Standardizer(mean=np.zeros(1, np.float32), std=np.ones(1, np.float32), fill=fill)
    else:
        fitted = Standardizer.fit(source, rows, per_node=per_node, fill=fill)
    data = load_series(fitted.series(source), device, lazy=lazy)
    if rows is None:
        return Standardized(data=data)
    mean, std = (torch.from_numpy(each).to(device or "cpu") for each in (fitted.mean, fitted.std))
    return Standardized(data=data, mean=mean, std=std)


def load_series(series: LazySeries, device: torch.device | None, *, lazy: bool) -> Any:
    """The series as a tensor on `device`, as an array in memory, or, if lazy, as it is.

    Raises:
        ConfigError: if there is no room for it.
    """
    if lazy:
        return series
    check_room(series.source.name, math.prod(series.shape) * series.dtype.itemsize, device)
    pieces = series.source.pieces(range(len(series)))
    if device is None:
        whole = np.empty(series.shape, dtype=series.dtype)
        for place, values in pieces:
            whole[place] = series.compute_rows(values)
        return whole
    dtype = torch.from_numpy(np.empty(0, dtype=series.dtype)).dtype
    tensor = torch.empty(series.shape, dtype=dtype, device=device)
    for place, values in pieces:
        tensor[place].copy_(torch.from_numpy(series.compute_rows(values)))
    return tensor


def check_room(name: str, needed_bytes: int, device: torch.device | None) -> None:
    """Refuse to load a series that does not fit.

    Raises:
        ConfigError: giving what it takes and what is free.
    """
    free = available_bytes(device)
    if needed_bytes > free:
        where = "in memory" if device is None else f"on {device}"
        raise ConfigError(
            f"the series of {name} takes {needed_bytes / 2**30:.2f} GiB {where} and "
            f"{free / 2**30:.2f} GiB are free: pass dask_batching=True, which gathers each batch "
            "from the file"
        )
