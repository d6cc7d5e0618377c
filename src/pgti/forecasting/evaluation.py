"""Errors of forecasters over a split, in one pass over the data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch

from pgti.batching import Batch, BatchLoader
from pgti.distributed import Communicator
from pgti.errors import ConfigError
from pgti.forecasting.breakdowns import Breakdowns
from pgti.forecasting.forecaster import AbstractForecaster
from pgti.forecasting.metrics import ForecastMetrics
from pgti.forecasting.observers import Observer
from pgti.forecasting.own_metrics import Metrics
from pgti.forecasting.scores import scored_levels, scored_quantiles
from pgti.nn.numerics import deterministic_algorithms

__all__ = ["evaluate", "evaluation_report"]


def evaluate(
    forecasters: Mapping[str, AbstractForecaster],
    loader: BatchLoader,
    *,
    mape_threshold: float = 1e-3,
    own_metrics: Metrics | None = None,
    breakdowns: Breakdowns | None = None,
    observers: Iterable[Observer] = (),
    before_batch: Callable[[], None] | None = None,
    communicator: Communicator | None = None,
) -> dict[str, ForecastMetrics]:
    """Errors of each forecaster over all windows of the loader, by name.

    Every window counts once and every observed target as much as any other, so the result does
    not depend on the batch size or the number of ranks.

    Args:
        forecasters: what to evaluate, by name; on the device of the batches.
        loader: the windows.
        mape_threshold: smallest magnitude of a target, in its unit, that MAPE counts.
        own_metrics: metrics of a user's own by name.
        breakdowns: groups of targets whose errors are accumulated in the same pass.
        observers: receive the progress.
        before_batch: called before each batch; an error that it raises ends the evaluation.
        communicator: the ranks that share the windows; None for one process.

    Returns:
        Sums of errors over all ranks; `summary()` gives the errors.

    Raises:
        ConfigError: if there is no window, or windows come without targets.
    """
    if loader.num_windows == 0:
        raise ConfigError(
            "there is no window to evaluate: give the split a larger fraction, or shorten "
            "input_steps or horizon"
        )
    watching = list(observers)
    for observer in watching:
        observer.begin("evaluating", loader.num_windows)
    metrics: dict[str, ForecastMetrics] = {}
    accumulate = partial(
        ForecastMetrics,
        mape_threshold=mape_threshold,
        own=own_metrics,
        breakdowns=breakdowns,
        sensors=loader.batcher.source.sensors,
    )
    were_training = [each for each in forecasters.values() if each.training]
    for each in were_training:
        each.eval()
    is_deterministic = any(getattr(each, "deterministic", False) for each in forecasters.values())
    try:
        # Not inference_mode: training must be able to use what a network caches here.
        with (
            torch.no_grad(),
            deterministic_algorithms(loader.batcher.device, enabled=is_deterministic),
            closing(loader.epoch(0)) as batches,
        ):
            for number, batch in enumerate(batches):
                if before_batch is not None:
                    before_batch()
                _update(metrics, forecasters, batch, accumulate, breakdowns)
                for observer in watching:
                    observer.advance(loader.windows_in(number))
    finally:
        for each in were_training:
            each.train()
    if communicator is not None:
        sums = [each for of_one in metrics.values() for each in of_one.all_sums]
        communicator.all_reduce_coalesced_(sums, "metrics")
    return metrics


def evaluation_report(
    metrics: Mapping[str, ForecastMetrics],
    main: str,
    channels: Sequence[str],
    breakdowns: Breakdowns | None = None,
) -> dict[str, Any]:
    """An evaluation as JSON: the errors of the main forecaster, and those of others by name.

    With several target channels, "channels" has the errors of each by name: their units may
    differ, and the errors over all of them mix them.

    Args:
        metrics: as `evaluate` returns them.
        main: name of the main forecaster.
        channels: name of each target channel.
        breakdowns: of the metrics; they give "by": for each breakdown and channel the "names" of
            the groups and, for each forecaster ("model" and the others' names), a list per metric.

    Raises:
        ConfigError: if `main` is not among them, a name would hide an error table, or there are
            more or fewer names than channels.
    """
    if main not in metrics:
        raise ConfigError(f"there is no forecaster {main!r}: it is one of {', '.join(metrics)}")
    report = _with_channels(metrics[main], channels)
    for name, each in metrics.items():
        if name == main:
            continue
        if name in report:
            raise ConfigError(f"a forecaster cannot be called {name!r}: that is an error's name")
        report[name] = _with_channels(each, channels)
    if breakdowns is not None:
        names = {"model" if name == main else name: each for name, each in metrics.items()}
        report["by"] = {
            breakdown: {
                channel: {"names": list(labels)}
                | {
                    name: _first(each.by(breakdown, index), len(labels))
                    for name, each in names.items()
                }
                for index, channel in enumerate(channels)
                if (labels := breakdowns.labels(breakdown, index))
            }
            for breakdown in breakdowns.names
        }
    return report


def _first(errors: Mapping[str, list[Any]], count: int) -> dict[str, list[Any]]:
    """The errors of the first groups: another target may have more ranges."""
    return {name: values[:count] for name, values in errors.items()}


def _with_channels(metrics: ForecastMetrics, channels: Sequence[str]) -> dict[str, Any]:
    """The errors over all targets and, if there are several, of each."""
    if len(channels) != metrics.num_targets:
        raise ConfigError(
            f"{len(channels)} channels are named and {metrics.num_targets} are forecast: each "
            "target has one name"
        )
    report = metrics.summary()
    if metrics.num_targets > 1:
        report["channels"] = {
            name: metrics.summary(channel=index) for index, name in enumerate(channels)
        }
    return report


def _update(
    metrics: dict[str, ForecastMetrics],
    forecasters: Mapping[str, AbstractForecaster],
    batch: Batch,
    accumulate: Callable[..., ForecastMetrics],
    breakdowns: Breakdowns | None,
) -> None:
    if batch.y is None or batch.y_mask is None:
        raise ConfigError(
            "the windows have no targets: their horizon lies past the end of the series, and "
            "there is nothing to evaluate against"
        )
    horizon, num_targets = batch.y.shape[1], batch.y.shape[3]
    groups = None if breakdowns is None else breakdowns.of_batch(batch.starts, batch.y)
    for name, forecaster in forecasters.items():
        if name not in metrics:
            metrics[name] = accumulate(
                horizon, num_targets, device=batch.y.device, levels=scored_levels(forecaster)
            )
        if batch.num_windows:
            found = forecaster.predict(batch)
            metrics[name].update(
                found.point, batch.y, batch.y_mask, groups, scored_quantiles(found)
            )
