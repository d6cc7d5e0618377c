"""What to measure of a training step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pgti.bench.devices import Device, check_device
from pgti.bench.own_step import LAYER, resolve_options
from pgti.errors import ConfigError, require_whole_number
from pgti.models import MODELS
from pgti.training.config import Precision

__all__ = ["StepOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOptions:
    """What to measure.

    Args:
        model: `layer`, which PGT has too, or one of the library's models.
        model_options: of that model; the rest have their defaults.
        nodes: sensors of a random graph, where none is given.
        degree: edges that leave each of them.
        steps: rows that a window's input has, and as many are forecast.
        batch_size: windows in a step.
        precisions: of our step; each is measured, the peers in float32 alone.
        activation_checkpointing: make our activations again in the backward pass.
        device: where to compute.
        threads: that each process computes with; torch's choice if not given.
        rounds: measurements of each.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """

    model: str = LAYER
    model_options: Mapping[str, Any] = field(default_factory=dict)
    nodes: int = 207
    degree: int = 8
    steps: int = 12
    batch_size: int = 64
    precisions: tuple[Precision, ...] = ("float32",)
    activation_checkpointing: bool = False
    device: Device = "cpu"
    threads: int | None = None
    rounds: int = 5

    def __post_init__(self) -> None:
        for name in ("nodes", "degree", "steps", "batch_size", "rounds"):
            require_whole_number(name, getattr(self, name), 1)
        if self.threads is not None:
            require_whole_number("threads", self.threads, 1)
        object.__setattr__(self, "model_options", resolve_options(self.model, self.model_options))
        self._check_precisions()
        if self.activation_checkpointing and not (
            self.model in MODELS and MODELS[self.model].model.can_checkpoint_activations
        ):
            raise ConfigError(
                f"activation_checkpointing is asked of the model {self.model!r}, which cannot "
                "recompute its activations: leave it out"
            )
        check_device(self.device)

    def _check_precisions(self) -> None:
        for precision in self.precisions:
            if precision not in get_args(Precision):
                raise ConfigError(f"precision is {precision!r}: it is one of float32, bfloat16")
        if not self.precisions or len(set(self.precisions)) < len(self.precisions):
            raise ConfigError(f"precisions are {self.precisions}: name each at most once, and one")
