"""Zero-shot forecasts of Chronos-2, a pretrained model that has never seen the series."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pgti.batching import Batch, WindowSource
from pgti.errors import ConfigError, MissingExtraError
from pgti.forecasting.baselines.past_readings import PastReadings
from pgti.forecasting.forecaster import AbstractForecaster
from pgti.shapes import BHNC
from pgti.store import SeriesStore

__all__ = ["ChronosForecaster"]

_MAX_CONTEXT = 2048  # rows; more cost more and help little at these horizons
_SERIES_AT_ONCE = 256


class ChronosForecaster(AbstractForecaster):
    """Medians of Chronos-2 (Ansari et al. 2025, arXiv 2510.15821), of each sensor by itself.

    It sees up to 2,048 rows before the origin (or as many as the checkpoint takes), read from the
    series whatever the window has; missing readings stay missing. Nothing is fitted. The weights
    are those of a directory that `amazon/chronos-2` was downloaded to; nothing is downloaded here.
    Every window takes a pass of the network for each sensor: evaluate some windows on a CPU.

    Args:
        source: what the windows hold; `source.store` is the series that they are cut from.
        path: directory of the checkpoint.
        device: where it computes.
        older: a series that has the rows before the first; see `PastReadings`.

    Raises:
        ConfigError: the directory holds no checkpoint of Chronos-2.
        MissingExtraError: `chronos-forecasting` is not installed.
    """

    def __init__(
        self,
        source: WindowSource,
        path: Path,
        device: torch.device,
        older: SeriesStore | None = None,
    ) -> None:
        super().__init__()
        if not (path / "config.json").is_file():
            raise ConfigError(
                f"chronos:{path} has no config.json: name the directory that the files of the "
                "model amazon/chronos-2 were downloaded to"
            )
        try:
            from chronos import Chronos2Pipeline  # noqa: PLC0415 - an optional library
        except ImportError:
            raise MissingExtraError("chronos-forecasting", "chronos") from None
        try:
            self._pipeline: Any = Chronos2Pipeline.from_pretrained(
                str(path), local_files_only=True, device_map=str(device)
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"chronos:{path} cannot be loaded as Chronos-2: {line}") from None
        self._readings = PastReadings(source, older)
        self._context = min(_MAX_CONTEXT, int(self._pipeline.model_context_length))
        self._input_steps, self._horizon = source.spec.input_steps, source.spec.horizon

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The medians of the targets."""
        origin_B1 = (batch.starts + self._input_steps)[:, None]
        rows_BT = origin_B1 + np.arange(-self._context, 0)
        series = self._readings.at(rows_BT).transpose(0, 2, 3, 1).astype(np.float32)
        context = series.reshape(-1, 1, series.shape[-1])
        medians, _ = self._pipeline.predict_quantiles(
            context,
            prediction_length=self._horizon,
            quantile_levels=[0.5],
            batch_size=_SERIES_AT_ONCE,
            limit_prediction_length=False,
        )
        forecast = torch.stack([each[0, :, 0] for each in medians])
        shaped = forecast.reshape(*series.shape[:3], self._horizon).permute(0, 3, 1, 2)
        like = batch.x if batch.y is None else batch.y
        return shaped.contiguous().to(like)
