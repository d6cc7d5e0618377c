"""Gradient boosted trees on the window and on earlier days, through LightGBM."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching import Batch, WindowSource
from pgti.errors import DataError, MissingExtraError
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

if TYPE_CHECKING:
    import lightgbm

__all__ = ["BoostingForecaster"]

_MAX_TRAIN, _MAX_VAL = 400_000, 100_000  # targets
_MAX_WINDOWS = 2048
_MAX_TREES, _EARLY_STOPPING = 1000, 30
_PARAMETERS = {
    "objective": "l1",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
    "verbosity": -1,
}


class BoostingForecaster(AbstractForecaster):
    """Gradient boosting (LightGBM, Ke et al., NeurIPS 2017) for all sensors and horizon steps.

    Trees see the readings of `WindowFeatures`, less the typical ones and missing ones as such, the
    typical reading at the time of the target, the horizon step and the sensor's position;
    what they forecast is the deviation from it, with the absolute error as loss. They are
    fitted on at most 400,000 targets, drawn from 2,048 evenly spaced training windows, and end
    when the error over up to 100,000 validation targets has not fallen for 30 trees. Create one
    with `fit`.

    Args:
        features: of the windows to forecast.
        boosters: of each target channel.
    """

    def __init__(self, features: WindowFeatures, boosters: "list[lightgbm.Booster]") -> None:
        super().__init__()
        self._features = features
        self._boosters = boosters

    @classmethod
    def fit(
        cls,
        source: WindowSource,
        typical: TypicalReadings,
        train: Starts,
        val: Starts,
        *,
        evaluated: WindowSource | None = None,
    ) -> "BoostingForecaster":
        """Fit trees for each target channel.

        Args:
            source: of the training and validation windows.
            typical: typical readings of the training rows.
            train: starts of the training windows.
            val: starts of the validation windows; without any, 200 trees are fitted.
            evaluated: of the windows to forecast, if they are of another series.

        Raises:
            DataError: a target channel was not observed in the windows.
            MissingExtraError: LightGBM is not installed.
        """
        try:
            import lightgbm  # noqa: PLC0415 - an optional library
        except ImportError:
            raise MissingExtraError("lightgbm", "boosting") from None
        lags = earlier_lags(source)
        features = WindowFeatures(source, typical, lags)
        of_train = _draw(features, train, _MAX_TRAIN)
        of_val = _draw(features, val, _MAX_VAL) if len(val) else None
        boosters = []
        for channel in range(len(source.target_indices)):
            table, target = of_train[channel]
            if not len(target):
                raise DataError(
                    f"no {source.target_names[channel]} of the training windows was observed: "
                    "choose another split"
                )
            data = lightgbm.Dataset(table, target)
            stop: dict[str, Any] = {"num_boost_round": 200}
            if of_val is not None and len(of_val[channel][1]):
                stop = {
                    "num_boost_round": _MAX_TREES,
                    "valid_sets": [lightgbm.Dataset(*of_val[channel], reference=data)],
                    "callbacks": [lightgbm.early_stopping(_EARLY_STOPPING, verbose=False)],
                }
            boosters.append(lightgbm.train(_PARAMETERS, data, **stop))
        if evaluated is not None:
            features = WindowFeatures(evaluated, typical, lags, source.store)
        return cls(features, boosters)

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The typical reading, and the deviation that the trees expect."""
        sample = self._features.sample(batch.starts)
        deviation = np.zeros_like(sample.typical)
        for channel, booster in enumerate(self._boosters):
            table = _table(sample, channel)
            expected = np.asarray(booster.predict(table), dtype=np.float64)
            deviation[:, :, channel] = expected.reshape(deviation[:, :, channel].shape)
        like = batch.x if batch.y is None else batch.y
        return as_forecast(sample.typical + deviation, like)


def _draw(
    features: WindowFeatures, starts: Starts, most: int
) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Features and observed targets of each channel, drawn from evenly spaced windows."""
    numbers = np.asarray(subsample_evenly(starts, _MAX_WINDOWS), dtype=np.int64)
    generator = np.random.default_rng(0)
    drawn: dict[int, list[tuple[NDArray[np.float32], NDArray[np.float64]]]] = {}
    for start in numbers:
        sample = features.sample(np.array([start]))
        for channel in range(sample.target.shape[2]):
            target = sample.target[:, :, channel].reshape(-1)
            chosen = np.flatnonzero(~np.isnan(target))
            wanted = -(-most // len(numbers))
            if len(chosen) > wanted:
                chosen = np.sort(generator.choice(chosen, wanted, replace=False))
            table = _table(sample, channel)[chosen]
            drawn.setdefault(channel, []).append((table, target[chosen]))
    return {
        channel: (
            np.concatenate([each for each, _ in parts]),
            np.concatenate([y for _, y in parts]),
        )
        for channel, parts in drawn.items()
    }


def _table(sample: WindowSample, channel: int) -> NDArray[np.float32]:
    """A row of features for each target of a channel: [B * n * H, P]."""
    earlier = sample.earlier[:, :, channel]
    shape = earlier.shape[:3]
    recent = np.broadcast_to(sample.recent[:, :, channel, None], (*shape, sample.recent.shape[-1]))
    sensor, ahead = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    places = np.broadcast_to(np.stack([sensor, ahead], axis=-1), (*shape, 2))
    typical = sample.typical[:, :, channel, :, None]
    table = np.concatenate([recent, earlier, typical, places], axis=-1, dtype=np.float32)
    return table.reshape(-1, table.shape[-1])
