"""Errors of forecasters over a split, several of them in one pass over the data."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.training.forecaster import AbstractForecaster
from pgti.training.loader import Loader, opened_epoch
from pgti.training.metrics import ForecastMetrics, MetricSummary
from pgti.training.observers import AbstractObserver

__all__ = ["evaluate", "evaluation_report", "measure"]


def evaluate(
    forecasters: Mapping[str, AbstractForecaster],
    loader: Loader,
    *,
    mape_threshold: float = 1e-3,
    observers: Iterable[AbstractObserver] = (),
) -> dict[str, MetricSummary]:
    """Errors of each forecaster over all windows of the loader, by name.

    Every window counts once and every observed target as much as any other, so that the batch
    size changes nothing.

    Args:
        forecasters: what to evaluate, by name; on the device of the batches.
        loader: the windows.
        mape_threshold: smallest magnitude of a target, in its unit, that MAPE counts.
        observers: shown the progress.

    Raises:
        ConfigError: if there is no window, or windows come without targets.
        RunError: if a forecast is not finite.
    """
    metrics = measure(forecasters, loader, mape_threshold=mape_threshold, observers=observers)
    return {name: each.summary() for name, each in metrics.items()}


def evaluation_report(summaries: Mapping[str, MetricSummary], main: str) -> dict[str, Any]:
    """The JSON shape of an evaluation: the main forecaster's errors, the others' under their names.

    Raises:
        ConfigError: if `main` is not among them, or a name would hide an error table.
    """
    if main not in summaries:
        raise ConfigError(f"there is no forecaster {main!r}: it is one of {', '.join(summaries)}")
    report: dict[str, Any] = dict(summaries[main])
    for name, summary in summaries.items():
        if name == main:
            continue
        if name in report:
            raise ConfigError(f"a forecaster cannot be called {name!r}: that is an error's name")
        report[name] = summary
    return report


def measure(
    forecasters: Mapping[str, AbstractForecaster],
    loader: Loader,
    *,
    mape_threshold: float = 1e-3,
    observers: Iterable[AbstractObserver] = (),
    before_batch: Callable[[], None] | None = None,
) -> dict[str, ForecastMetrics]:
    """As `evaluate`, but the sums themselves, which ranks can merge.

    Args:
        forecasters: what to evaluate, by name.
        loader: the windows.
        mape_threshold: smallest magnitude that MAPE counts.
        observers: shown the progress.
        before_batch: called before each batch; what it raises ends the evaluation.

    Raises:
        ConfigError: if there is no window, or windows come without targets.
    """
    if loader.num_windows == 0:
        raise ConfigError(
            "there is no window to evaluate: give the split a larger share, or shorten "
            "input_steps or horizon"
        )
    watching = list(observers)
    for observer in watching:
        observer.begin("evaluating", loader.num_windows)
    metrics: dict[str, ForecastMetrics] = {}
    were_training = [each for each in forecasters.values() if each.training]
    for each in were_training:
        each.eval()
    try:
        # Not inference_mode: what a network caches here must be usable in training later.
        with torch.no_grad(), opened_epoch(loader, 0) as batches:
            for batch in batches:
                if before_batch is not None:
                    before_batch()
                _update(metrics, forecasters, batch, mape_threshold)
                for observer in watching:
                    observer.advance(batch.num_windows)
    finally:
        for each in were_training:
            each.train()
    return metrics


def _update(
    metrics: dict[str, ForecastMetrics],
    forecasters: Mapping[str, AbstractForecaster],
    batch: Batch,
    mape_threshold: float,
) -> None:
    if batch.y is None or batch.y_mask is None:
        raise ConfigError(
            "the windows have no targets: their horizon lies past the end of the series, and "
            "there is nothing to evaluate against"
        )
    horizon, num_targets = batch.y.shape[1], batch.y.shape[3]
    for name, forecaster in forecasters.items():
        if name not in metrics:
            metrics[name] = ForecastMetrics(horizon, num_targets, mape_threshold=mape_threshold)
        metrics[name].update(forecaster(batch), batch.y, batch.y_mask)
