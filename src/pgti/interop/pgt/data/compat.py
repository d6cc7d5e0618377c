"""PGT's own standardisation, to the bit, for `pgt_compat=True`: to compare, not to forecast.

The statistics are those of the whole series, test rows included, with missing readings as zeros
and the time of day standardised too. Each data set follows the order of operations and the dtype of
its loader in PyTorch Geometric Temporal 0.56.2. On a GPU that library divides by n - 1 where it
divides by n on a CPU.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pgti.interop.pgt.data.sources import Source
from pgti.interop.pgt.data.standardize import Standardized, Standardizer, check_room
from pgti.store import Moments
from pgti.store.codec import Float32Codec
from pgti.store.moments import moments_of_raw

__all__ = ["Scaling", "standardize_as_pgt", "standardize_lazily_as_pgt"]

Scaling = Literal["centred", "together", "per-sensor", "none"]
"""How a loader of PGT standardises.

centred: float32; each feature less its mean, then divided by the deviation of that (METR-LA,
PEMS-BAY). together: float64; mean and deviation of each feature, then both applied (PeMS,
PeMS-All-LA). per-sensor: float64; of each sensor (WindmillLarge). none: float64 (Chickenpox).
"""

_TINY = 10**-10  # added by PGT to the deviation of a windmill


def standardize_as_pgt(
    source: Source, scaling: Scaling, device: torch.device | None
) -> Standardized:
    """The whole series, standardised as PGT does on a CPU (`device` None) or on a GPU.

    A NaN, which PGT would spread over everything, becomes 0, its code of a missing reading.

    Raises:
        ConfigError: if memory does not hold the series twice, as computing the deviation needs, or
            three times where it is summed sensor by sensor.
    """
    num_bytes = math.prod(source.shape) * source.dtype.itemsize
    check_room(source.name, (3 if source.is_by_sensor else 2) * num_bytes, None)
    values = source.read(np.arange(source.num_steps))
    np.nan_to_num(values, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if scaling == "centred":
        values = values.astype(np.float32, copy=False)
    data: Any = values if device is None else torch.from_numpy(values).to(device, torch.float32)
    if scaling == "none":
        return Standardized(data=data)
    summed = data
    if scaling == "together" and source.is_by_sensor and device is None:
        summed = np.ascontiguousarray(values.transpose(1, 0, 2))
    mean, std = _standardize_in_place(data, scaling, summed)
    return Standardized(data=data, mean=_float32(mean), std=_float32(std))


def _standardize_in_place(values: Any, scaling: Scaling, summed: Any) -> tuple[Any, Any]:
    """Mean and deviation of an array or a tensor [T, N, F], which it standardises without a copy.

    Args:
        values: the series.
        scaling: the order of operations.
        summed: the same numbers in the order in which "together" sums them.
    """
    if scaling == "per-sensor":
        values = values[..., 0]
        mean, std = values.mean(axis=0), values.std(axis=0) + _TINY
        values -= mean
    elif scaling == "together":
        keep = isinstance(values, Tensor)  # PGT returns [1, 1, F] on a GPU and [F] on a CPU
        mean, std = (each(axis=(0, 1), keepdims=keep) for each in (summed.mean, summed.std))
        values -= mean
    else:
        mean = values.mean(axis=(0, 1))
        values -= mean
        std = values.std(axis=(0, 1))
    values /= std
    return mean, std


def standardize_lazily_as_pgt(source: Source, scaling: Scaling) -> Standardized:
    """The series with PGT's choices, computed when it is read.

    PGT itself fails here, so there are no bits to meet: the statistics are accumulated in float64.
    """
    if scaling == "none":
        unit = Standardizer(mean=np.zeros(1), std=np.ones(1))
        return Standardized(data=unit.series(source))
    per_node = scaling == "per-sensor"
    width = source.num_nodes if per_node else source.shape[2]
    parts = []
    for _, values in source.pieces(range(source.num_steps)):
        filled = np.nan_to_num(values.astype(np.float32), copy=False, nan=0.0)
        parts.append(moments_of_raw(filled.reshape(len(filled), -1, width), Float32Codec()))
    moments = Moments.merge_all(parts, width)
    mean, std = moments.mean, np.sqrt(moments.m2 / moments.count) + (_TINY if per_node else 0)
    dtype = np.dtype(np.float32 if scaling == "centred" else np.float64)
    shape = (-1, 1) if per_node else (-1,)
    standardizer = Standardizer(
        mean=mean.astype(dtype).reshape(shape), std=std.astype(dtype).reshape(shape)
    )
    series = standardizer.series(source)
    return Standardized(data=series, mean=_float32(mean), std=_float32(std))


def _float32(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float)
