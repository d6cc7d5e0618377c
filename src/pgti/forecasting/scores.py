"""Scores of quantiles and intervals: which levels they are of, and what is summed for them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgti.forecasting.forecaster import AbstractForecaster, Prediction
from pgti.nn import pinball
from pgti.shapes import BHNCQ

__all__ = [
    "IntervalPair",
    "coverage_pairs",
    "is_score",
    "metric_label",
    "num_scores",
    "score_means",
    "score_parts",
    "scored_levels",
    "scored_quantiles",
]

_LABELS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %", "crps": "CRPS"}
_SCORES = ("pinball_", "coverage_", "width_")


class IntervalPair(NamedTuple):
    """Two quantiles that are the ends of a central interval.

    Attributes:
        lower, upper: their positions among the levels.
        coverage: probability of the interval.
    """

    lower: int
    upper: int
    coverage: float

    @property
    def name(self) -> str:
        """The coverage in percent: "80"."""
        return f"{100 * self.coverage:.6g}"


def is_score(name: str) -> bool:
    """Whether a metric of a report is one of quantiles or intervals."""
    return name == "crps" or name.startswith(_SCORES)


def metric_label(name: str) -> str:
    """What a table calls a metric: "MAE", "coverage 80 %"."""
    if name.startswith(_SCORES):
        return name.replace("_", " ") + " %"
    return _LABELS.get(name, name)


def scored_levels(forecaster: AbstractForecaster) -> tuple[float, ...]:
    """Levels of the quantiles that are scored: those of its intervals' ends, or else its own.

    The median of intervals is their point forecast.
    """
    if not forecaster.interval_levels:
        return forecaster.quantile_levels
    tails = [round(0.5 - level / 2, 12) for level in reversed(forecaster.interval_levels)]
    return (*tails, 0.5, *(round(1 - tail, 12) for tail in reversed(tails)))


def scored_quantiles(prediction: Prediction) -> BHNCQ | None:
    """The quantiles of those levels [B, H, N, C, Q]; None for a point forecast."""
    if prediction.lower is None or prediction.upper is None:
        return prediction.quantiles
    parts = prediction.lower.flip(-1), prediction.point[..., None], prediction.upper
    return torch.cat(parts, dim=-1)


def coverage_pairs(levels: Sequence[float]) -> tuple[IntervalPair, ...]:
    """The central intervals that levels have both ends of, the narrowest first."""
    places = {round(level, 9): place for place, level in enumerate(levels)}
    ends = [(place, places.get(round(1 - level, 9))) for level, place in places.items()]
    return tuple(
        IntervalPair(low, high, levels[high] - levels[low])
        for low, high in reversed(ends)
        if high is not None and low < high
    )


def score_parts(
    quantiles: BHNCQ, target: Tensor, mask: Tensor, levels: Sequence[float]
) -> list[Tensor]:
    """What is summed: a pinball loss per level, then per pair whether it covers, and its width.

    Args:
        quantiles: [B, H, N, C, Q], rising.
        target: float64 [B, H, N, C]; any finite number where missing.
        mask: True where the target was observed.
        levels: of the quantiles.

    Returns:
        float64 [B, H, N, C] each, 0 where nothing was observed.
    """
    values = quantiles.double().unbind(-1)
    errors = [torch.where(mask, each - target, 0.0) for each in values]
    parts = [pinball(error, level) for error, level in zip(errors, levels, strict=True)]
    for pair in coverage_pairs(levels):
        inside = mask & (errors[pair.lower] <= 0) & (errors[pair.upper] >= 0)
        parts += [inside.double(), errors[pair.upper] - errors[pair.lower]]
    return parts


def num_scores(levels: Sequence[float]) -> int:
    """How many parts `score_parts` has."""
    return len(levels) + 2 * len(coverage_pairs(levels))


def score_means(levels: Sequence[float], sums: Sequence[Any]) -> Mapping[str, Any]:
    """What the sums of `score_parts` are of, by the name that a report gives it.

    "crps" is twice the mean pinball loss over the levels, which approximates the continuous ranked
    probability score; where the levels are the ends of central intervals and the median, it is
    exactly the weighted interval score (Bracher et al. 2021). Both agree with `scoringrules`.
    """
    num_levels = len(levels)
    means = {"crps": 2.0 / num_levels * sum(sums[:num_levels])}
    names = [f"pinball_{level:.6g}" for level in levels]
    means |= dict(zip(names, sums[:num_levels], strict=True))
    for place, pair in enumerate(coverage_pairs(levels)):
        covered, width = sums[num_levels + 2 * place : num_levels + 2 * place + 2]
        means |= {f"coverage_{pair.name}": covered, f"width_{pair.name}": width}
    return means
