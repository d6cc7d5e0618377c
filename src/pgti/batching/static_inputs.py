"""Features of the sensors as networks take them."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.store.static_features import StaticFeatures

__all__ = ["StaticInputs"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StaticInputs:
    """Features of the sensors as networks take them.

    Attributes:
        values: float32 [N, S]: each numeric feature standardised over the sensors, 0 where missing;
            then each categorical one as a number for each of its categories, 1 for that of the
            sensor, else 0.
        codes: int64 [N, Q]: the category of each categorical feature, counted from 1; 0 where it is
            missing.
        names: of the S values; that of a category is "feature=category".
    """

    values: Tensor
    codes: Tensor
    names: tuple[str, ...]

    @classmethod
    def of_features(
        cls, features: StaticFeatures, sensors: NDArray[np.int64] | None = None
    ) -> Self:
        """The inputs of some sensors, standardised over all of them.

        Args:
            features: of all N sensors.
            sensors: positions of those that a batch has; all if not given.
        """
        every = features.values if sensors is None else features.values[sensors]
        is_numeric, words_of = ~np.array(features.is_categorical), features.categories
        columns = [_standardise(features.values[:, is_numeric], every[:, is_numeric])]
        codes = [np.empty((len(every), 0), dtype=np.int64)]
        names = [name for name, words in zip(features.names, words_of, strict=True) if not words]
        for name, words, column in zip(features.names, words_of, every.T, strict=True):
            if words:
                code = np.where(np.isnan(column), 0, column + 1).astype(np.int64)[:, None]
                codes.append(code)
                columns.append(code == np.arange(1, len(words) + 1))
                names += [f"{name}={word}" for word in words]
        return cls(
            values=torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32)),
            codes=torch.from_numpy(np.concatenate(codes, axis=1)),
            names=tuple(names),
        )

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(self, values=self.values.to(device), codes=self.codes.to(device))


def _standardise(every: NDArray[np.float64], chosen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with mean 0 and standard deviation 1 over all sensors; 0 where missing."""
    known = ~np.isnan(every)
    count = np.maximum(known.sum(axis=0), 1)
    low, high = np.where(known, every, np.inf), np.where(known, every, -np.inf)
    mean = np.where(known, every, 0).sum(axis=0) / count
    mean = np.clip(mean, low.min(axis=0), high.max(axis=0))  # that of a constant is the constant
    std = np.sqrt(np.where(known, (every - mean) ** 2, 0).sum(axis=0) / count)
    scaled: NDArray[np.float64] = np.nan_to_num((chosen - mean) / np.where(std > 0, std, 1))
    return scaled
