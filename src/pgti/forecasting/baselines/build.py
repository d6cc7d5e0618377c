"""Baselines by name."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pgti.batching import WindowSource
from pgti.errors import ConfigError, option
from pgti.forecasting.baselines.boosting import BoostingForecaster
from pgti.forecasting.baselines.chronos import ChronosForecaster
from pgti.forecasting.baselines.historical_average import HistoricalAverageForecaster
from pgti.forecasting.baselines.past_readings import season_steps
from pgti.forecasting.baselines.persistence import PersistenceForecaster
from pgti.forecasting.baselines.ridge import RidgeForecaster
from pgti.forecasting.baselines.seasonal_naive import SeasonalNaiveForecaster
from pgti.forecasting.forecaster import AbstractForecaster
from pgti.models.registry import BASELINES, FITTED_BASELINES
from pgti.store import TypicalReadings
from pgti.windows import Splits

__all__ = ["BASELINES", "build_baselines", "check_baselines"]

_CHRONOS = "chronos:"


def check_baselines(names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of baselines, each once; those of `BASELINES` by default.

    Raises:
        ConfigError: an unknown name, or `chronos` without the path of its weights.
    """
    if names is None:
        return BASELINES
    known = (*BASELINES, *FITTED_BASELINES)
    for name in names:
        if name.startswith(_CHRONOS) and len(name) > len(_CHRONOS):
            continue
        if name in (_CHRONOS, "chronos"):
            raise ConfigError(
                "the baseline chronos needs the directory of its weights: "
                f"{option('baselines', 'chronos:PATH')}"
            )
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"there is no baseline {name!r}{hint}: it is one of {', '.join(known)}, or "
                "chronos:PATH"
            )
    return tuple(dict.fromkeys(names))


def build_baselines(
    source: WindowSource,
    splits: Splits,
    names: Sequence[str] | None = None,
    *,
    evaluated: WindowSource | None = None,
    device: torch.device | None = None,
) -> dict[str, AbstractForecaster]:
    """Baselines by name; they know the training and validation windows alone.

    Args:
        source: of the series with the training rows.
        splits: its windows.
        names: which baselines; those of `BASELINES` by default. `seasonal-naive` is left out of
            them where the series has no season.
        evaluated: of the windows that they forecast, if those are of another series.
        device: where `chronos` computes; the CPU by default.

    Raises:
        ConfigError: if there is no such baseline, or it cannot forecast the series.
        DataError: if a target channel has no observed value in the training rows.
        MissingExtraError: a library that one needs is not installed.
    """
    chosen = check_baselines(names)
    spec, targets = source.spec, source.target_indices
    windows = source if evaluated is None else evaluated
    older = source.store if windows.store is not source.store else None
    typical = source.typical
    if typical is None and set(chosen) & set(FITTED_BASELINES):
        typical = TypicalReadings.fit(source.store, splits.train_rows(spec))
    built: dict[str, AbstractForecaster] = {}
    fitted: dict[str, Callable[..., AbstractForecaster]] = {
        "ridge": RidgeForecaster.fit,
        "lightgbm": BoostingForecaster.fit,
    }
    for name in chosen:
        if name == "persistence":
            built[name] = PersistenceForecaster(
                source.scaler, targets, spec.horizon, source.sensors
            )
        elif name == "historical-average":
            average = HistoricalAverageForecaster.fit(
                source.store,
                splits.train_rows(spec),
                target_indices=targets,
                input_steps=spec.input_steps,
                horizon=spec.horizon,
                sensors=source.sensors,
            )
            average.time_axis = windows.store.time_axis
            built[name] = average
        elif name == "seasonal-naive":
            season = season_steps(windows.store.time_axis)
            if season is not None:
                built[name] = SeasonalNaiveForecaster(windows, season, older)
            elif names is not None:
                raise ConfigError(
                    "the series has no season to repeat (its times are unknown, irregular or too "
                    f"far apart): leave seasonal-naive out of {option('baselines')}"
                )
        elif name in fitted:
            built[name] = fitted[name](source, typical, splits.train, splits.val, evaluated=windows)
        else:
            path = Path(name.removeprefix(_CHRONOS))
            built["chronos"] = ChronosForecaster(
                windows, path, device or torch.device("cpu"), older
            )
    return built
