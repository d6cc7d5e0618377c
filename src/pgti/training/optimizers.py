"""Options of the optimizers."""

from dataclasses import dataclass
from typing import Literal

from pgti.errors import ConfigError
from pgti.options import convert_fields, require_number

__all__ = ["AdamOptimizer", "AdamWOptimizer", "RMSPropOptimizer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamOptimizer:
    """Adam (Kingma & Ba 2015).

    Attributes:
        weight_decay: L2 penalty.
        epsilon: Term added to the denominator; DCRNN's released configuration has 1e-3.
    """

    kind: Literal["adam"] = "adam"
    weight_decay: float = 0.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamWOptimizer:
    """AdamW (Loshchilov & Hutter 2019).

    Attributes:
        weight_decay: Decoupled weight decay.
        epsilon: Term added to the denominator; DCRNN's released configuration has 1e-3.
    """

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = 0.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RMSPropOptimizer:
    """RMSProp (Tieleman & Hinton 2012), without momentum, as torch has it.

    TensorFlow 1, in which STGCN was released, begins with a mean square of 1 in place of 0, has a
    smoothing of 0.9, and adds its epsilon of 1e-10 under the root.

    Attributes:
        weight_decay: L2 penalty.
        epsilon: Term added to the denominator.
        smoothing: Decay of the mean square of gradients.
    """

    kind: Literal["rmsprop"] = "rmsprop"
    weight_decay: float = 0.0
    epsilon: float = 1e-8
    smoothing: float = 0.99

    def __post_init__(self) -> None:
        _check(self)
        if not 0 <= self.smoothing < 1:
            raise ConfigError(
                f"smoothing is {self.smoothing!r}: it must be at least 0 and less than 1"
            )


def _check(optimizer: AdamOptimizer | AdamWOptimizer | RMSPropOptimizer) -> None:
    convert_fields(optimizer)
    require_number("weight_decay", optimizer.weight_decay)
    require_number("epsilon", optimizer.epsilon, above_zero=True)
