"""Features of the sensors as networks take them."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.store import Scaler
from pgti.store.static_features import StaticFeatures

__all__ = ["StaticInputs"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StaticInputs:
    """Features of the sensors as networks take them.

    Attributes:
        values: float32 [N, S]: each numeric feature standardised by the scaler, 0 where missing;
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
        cls, features: StaticFeatures, scaler: Scaler, sensors: NDArray[np.int64] | None = None
    ) -> Self:
        """The inputs of some sensors.

        Args:
            features: of all N sensors.
            scaler: standardises them; over these sensors where it knows nothing of them.
            sensors: positions of those that a batch has; all if not given.
        """
        scaler = scaler.with_static(features)
        mean, std = np.array(scaler.static_mean or ()), np.array(scaler.static_std or ())
        every = features.values if sensors is None else features.values[sensors]
        is_numeric, words_of = ~np.array(features.is_categorical), features.categories
        columns = [np.nan_to_num((every[:, is_numeric] - mean) / std)]
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
