"""The losses that a configuration names, each with its options."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pgti.errors import ConfigError, option
from pgti.options import convert_fields, require_number

__all__ = ["CustomLoss", "HuberLoss", "MAELoss", "MSELoss", "QuantileLoss"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MAELoss:
    """Mean absolute error."""

    kind: Literal["mae"] = "mae"


@dataclass(frozen=True, kw_only=True, slots=True)
class HuberLoss:
    """Squared error up to `delta`, absolute error beyond it.

    Attributes:
        delta: Error, in the target's unit, beyond which the loss is linear.
    """

    kind: Literal["huber"] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        convert_fields(self)
        require_number("delta", self.delta, above_zero=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class MSELoss:
    """Mean squared error."""

    kind: Literal["mse"] = "mse"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantileLoss:
    """Mean pinball loss of several quantiles, which are forecast together.

    Attributes:
        quantiles: Levels of the quantiles to forecast, rising, 0.5 among them.
    """

    kind: Literal["quantile"] = "quantile"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    def __post_init__(self) -> None:
        convert_fields(self)
        levels = self.quantiles
        rising = all(low < high for low, high in pairwise((0.0, *levels, 1.0)))
        if not rising or 0.5 not in levels:
            raise ConfigError(
                f"quantiles are {', '.join(map(str, levels)) or 'empty'}: they must rise between 0 "
                "and 1, and have 0.5, the median, which is the point forecast: use "
                f"{option('quantiles', (0.1, 0.5, 0.9))}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomLoss:
    """A function of your own; only Python can give it: `pgti.train(..., loss=function)`.

    Attributes:
        name: Name of the function, which a resumed run has to give again.
    """

    kind: Literal["custom"] = "custom"
    name: str = ""

    def __post_init__(self) -> None:
        convert_fields(self)
