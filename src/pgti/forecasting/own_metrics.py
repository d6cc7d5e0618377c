"""Metrics of a user's own, which are computed beside those of pgti."""

from collections.abc import Mapping
from typing import TypeAlias

from pgti.errors import ConfigError
from pgti.forecasting.scores import is_score
from pgti.nn import MaskedLoss
from pgti.options import require_type

__all__ = ["Metrics", "check_metrics"]

Metrics: TypeAlias = Mapping[str, MaskedLoss]
"""Metrics of a user's own by name: each maps prediction, target and mask, [B, N] of one horizon
step and channel, to a sum and a count. The metric is the sum of sums over the sum of counts."""

_RESERVED = (
    *("mae", "rmse", "mape", "count", "channels", "windows", "split_windows"),
    *("split", "forecaster", "channel", "horizon", "persistence"),
    *("by", "group", "drift", "mean", "average", "mape_threshold"),
)
"""Names of other columns and entries of a report."""


def check_metrics(metrics: Metrics) -> None:
    """Refuse metrics that cannot be computed or would hide an entry of the report.

    Raises:
        ConfigError: naming the metric.
    """
    require_type("metrics", metrics, Mapping, "functions by name, in a mapping")
    for name, metric in metrics.items():
        if not str(name).isidentifier():
            raise ConfigError(f"metric {name!r}: a name must be a word, such as within_5")
        if name in _RESERVED or is_score(name):
            raise ConfigError(f"metric {name!r} is a name that the report has already: rename it")
        if not callable(metric):
            raise ConfigError(
                f"metric {name} is {metric!r}: it must be a function (prediction, target, mask) -> "
                "(sum, count)"
            )
