"""A ridge regression on the window and on earlier days, for each sensor and horizon step."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pgti.batching import Batch, WindowSource
from pgti.forecasting.baselines.features import (
    WindowFeatures,
    WindowSample,
    as_forecast,
    earlier_lags,
)
from pgti.forecasting.forecaster import AbstractForecaster
from pgti.shapes import BHNC
from pgti.store import TypicalReadings
from pgti.windows import Starts, subsample_evenly

__all__ = ["RidgeForecaster"]

_MAX_TRAIN, _MAX_VAL = 4096, 512  # windows
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Relative to the mean square of a feature."""
_BLOCK_BYTES = 1 << 27  # of sums of products at a time
_READ_NUMBERS = 1 << 22  # features at a time


class RidgeForecaster(AbstractForecaster):
    """Ridge regression (Hoerl & Kennard 1970): a linear map for each sensor, target and step.

    The features of a target are the last L readings of its channel and the readings at its own time
    on the last seven days, all less the typical reading of their time (`TypicalReadings`), 0 where
    missing; the typical reading of the target itself; and a constant. What is forecast is the
    deviation from the typical reading. The coefficients solve the normal equations of at most
    4,096 training windows, spread evenly; for each horizon step the penalty is the one of five with
    the least mean absolute error over at most 512 validation windows. Create one with `fit`.

    Args:
        features: of the windows to forecast.
        coefficients: float64 [n, C_out, H, P].
    """

    def __init__(self, features: WindowFeatures, coefficients: NDArray[np.float64]) -> None:
        super().__init__()
        self._features = features
        self.coefficients = coefficients

    @classmethod
    def fit(
        cls,
        source: WindowSource,
        typical: TypicalReadings,
        train: Starts,
        val: Starts,
        *,
        evaluated: WindowSource | None = None,
    ) -> "RidgeForecaster":
        """Fit the coefficients, a block of sensors at a time: memory does not grow with windows.

        Args:
            source: of the training and validation windows.
            typical: typical readings of the training rows.
            train: starts of the training windows.
            val: starts of the validation windows; without any, the middle penalty is taken.
            evaluated: of the windows to forecast, if they are of another series.
        """
        lags, spec = earlier_lags(source), source.spec
        width = WindowFeatures(source, typical, lags).num_features + 2
        per_sensor = 8 * len(source.target_indices) * spec.horizon * width * width
        size = max(1, _BLOCK_BYTES // per_sensor)
        blocks = [
            _fit_block(
                WindowFeatures(source, typical, lags, sensors=slice(first, first + size)),
                subsample_evenly(train, _MAX_TRAIN),
                subsample_evenly(val, _MAX_VAL),
            )
            for first in range(0, source.num_nodes, size)
        ]
        features = WindowFeatures(
            source if evaluated is None else evaluated, typical, lags, source.store
        )
        return cls(features, _with_best_penalty(blocks))

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The typical reading, and the deviation that the regression expects."""
        sample = self._features.sample(batch.starts)
        deviation = _predict(_design(sample), self.coefficients)
        like = batch.x if batch.y is None else batch.y
        return as_forecast(sample.typical + deviation, like)


_Block = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Coefficients [penalties, n, C_out, H, P], and sums of absolute errors [penalties, H]."""


def _fit_block(features: WindowFeatures, train: Starts, val: Starts) -> _Block:
    """Coefficients of a block of sensors for every penalty, and their errors in validation."""
    gram, moment = None, None
    for sample in _samples(features, train):
        design, target = _design(sample), sample.target
        observed = ~np.isnan(target)
        weighted = design * observed[..., None]
        of_gram = np.einsum("bnchp,bnchq->nchpq", weighted, design, optimize=True)
        of_moment = np.einsum("bnchp,bnch->nchp", weighted, np.nan_to_num(target), optimize=True)
        gram = of_gram if gram is None else gram + of_gram
        moment = of_moment if moment is None else moment + of_moment
    assert gram is not None  # there is a window
    assert moment is not None
    coefficients = np.stack([_solve(gram, moment, each) for each in _PENALTIES])
    errors = np.zeros((len(_PENALTIES), gram.shape[2]))
    for sample in _samples(features, val):
        design = _design(sample)
        for position, each in enumerate(coefficients):
            error = np.abs(_predict(design, each) - sample.target)
            errors[position] += np.nansum(error, axis=(0, 1, 2))
    return coefficients, errors


def _solve(
    gram: NDArray[np.float64], moment: NDArray[np.float64], penalty: float
) -> NDArray[np.float64]:
    """Solve the normal equations of every sensor, target and step; the constant has no penalty."""
    width = gram.shape[-1]
    scale = np.trace(gram, axis1=-2, axis2=-1)[..., None] / width
    added = np.broadcast_to(penalty * scale, (*scale.shape[:-1], width)).copy()
    added[..., -1] = 0
    added += 1e-9 * scale + 1e-12  # a sensor that was never observed has zeros alone
    system = gram + added[..., None] * np.eye(width)
    return np.asarray(np.linalg.solve(system, moment[..., None])[..., 0])


def _with_best_penalty(blocks: list[_Block]) -> NDArray[np.float64]:
    """The coefficients of all sensors with the penalty that suits each horizon step."""
    errors = sum(each for _, each in blocks)
    best_H = np.argmin(errors, axis=0)
    if not np.any(errors):
        best_H[:] = len(_PENALTIES) // 2
    every = np.concatenate([each for each, _ in blocks], axis=1)
    steps = np.arange(len(best_H))
    best: NDArray[np.float64]
    best = every[best_H, :, :, steps].transpose(1, 2, 0, 3)
    return best


def _samples(features: WindowFeatures, starts: Starts) -> Iterator[WindowSample]:
    numbers = np.asarray(starts, dtype=np.int64)
    if not len(numbers):
        return
    size = max(1, _READ_NUMBERS // (features.num_targets * features.num_features))
    for first in range(0, len(numbers), size):
        yield features.sample(numbers[first : first + size])


def _design(sample: WindowSample) -> NDArray[np.float64]:
    """Features of every target, missing ones as 0: [B, n, C_out, H, L + K + 2]."""
    shape = sample.earlier.shape[:4]
    recent = np.broadcast_to(sample.recent[..., None, :], (*shape, sample.recent.shape[-1]))
    features = np.concatenate(
        [recent, sample.earlier, sample.typical[..., None], np.ones((*shape, 1))], axis=-1
    )
    filled: NDArray[np.float64] = np.nan_to_num(features, copy=False)
    return filled


def _predict(design: NDArray[np.float64], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("bnchp,nchp->bnch", design, coefficients, optimize=True))
