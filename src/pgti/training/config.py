"""How to train: every option of the training loop, validated once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Literal, get_args

import tomli_w

from pgti.errors import ConfigError

__all__ = ["OrderName", "Precision", "Recompute", "TrainingConfig", "to_toml"]

_SEED_LIMIT = 1 << 63
"""Seeds of TOML files and of every generator in use are below it."""

Optimizer = Literal["adam", "adamw"]
Schedule = Literal["none", "multistep", "cosine", "plateau"]
Precision = Literal["float32", "bfloat16"]
Recompute = Literal["auto", "on", "off"]
Loss = Literal["mae", "huber", "mse"]
OrderName = Literal["auto", "global", "blocks", "partitions"]

_BLOCK_SIZE = 8
_PARTITIONS = 16
_ROTATION = 0.125


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Options of the training loop.

    Raises:
        ConfigError: naming the option, its value and the rule it breaks.
    """

    epochs: int = 30
    """Passes over the training windows."""
    batch_size: int = 64
    """Windows of a batch, shared out over the ranks: the same whatever their number."""
    accumulate: int = 1
    """Batches per optimiser step: a step learns from `batch_size * accumulate` windows."""
    order: OrderName = "auto"
    """global shuffles all windows of an epoch; blocks shuffles blocks of consecutive windows: fewer
    rows to read, and gradients a little noisier; partitions shuffles blocks within parts of the
    series, and takes from all parts in every batch. auto is partitions for a partitioned placement
    and global otherwise."""
    block_size: int | None = None
    """blocks and partitions: consecutive windows in a block. 8 for blocks if not given, and for
    partitions what a batch takes of each, so that no block is spread over batches."""
    partitions: int = _PARTITIONS
    """partitions: how many parts of the series there are, at least as many as ranks."""
    rotation: float = _ROTATION
    """partitions: how much of each part goes over to its neighbour from epoch to epoch."""
    learning_rate: float = 1e-3
    """Learning rate before warm-up and schedule."""
    optimizer: Optimizer = "adam"
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019)."""
    adam_epsilon: float = 1e-8
    """Adam's epsilon; DCRNN's released configuration has 1e-3."""
    weight_decay: float = 0.0
    """L2 penalty for adam, decoupled decay for adamw."""
    loss: Loss = "mae"
    """Loss in original units, over observed targets."""
    huber_delta: float = 1.0
    """Error, in the target's unit, beyond which the Huber loss is linear."""
    clip_norm: float = 5.0
    """Largest norm of the gradient of all parameters; 0 clips nothing."""
    schedule: Schedule = "none"
    """How the learning rate changes after warm-up."""
    milestones: tuple[int, ...] = ()
    """multistep: epochs, counted from 0, at whose beginning the rate falls."""
    schedule_factor: float = 0.1
    """multistep and plateau: what the rate is multiplied by when it falls."""
    plateau_patience: int = 5
    """plateau: validations without a better MAE that are borne before the rate falls."""
    min_learning_rate: float = 0.0
    """cosine: the rate at the end; plateau: the rate below which it does not fall."""
    warmup_steps: int = 0
    """Optimiser steps in which the rate rises linearly from nearly nothing."""
    patience: int | None = None
    """Early stopping: validations in a row without a better MAE that end training; None never."""
    max_steps: int | None = None
    """Optimiser steps after which training ends, whatever `epochs` says."""
    val_windows: int | None = None
    """Windows of a validation at most, spread evenly over the split; None takes all of them."""
    precision: Precision = "float32"
    """bfloat16 runs the network's forward pass in training under autocast."""
    activation_checkpointing: Recompute = "auto"
    """Make activations again in the backward pass instead of keeping them: a fraction of the memory
    for about a third more time; auto does it where they would not fit."""
    compile: bool = False
    """Compile the network with torch.compile."""
    seed: int = 0
    """Seed of initial parameters, order of windows and scheduled sampling."""
    checkpoint_every_steps: int = 500
    """Optimiser steps between checkpoints; 0 writes them at the end of epochs only."""
    log_every_steps: int = 50
    """Optimiser steps between readings of the loss; 0 reads it at the end of epochs only."""

    def __post_init__(self) -> None:
        # Lists come from TOML and from people; a frozen value holds a tuple.
        object.__setattr__(self, "milestones", tuple(self.milestones))
        self._check_choices()
        self._check_whole_numbers()
        self._check_numbers()
        self._check_milestones()
        self._check_relations()

    @property
    def default_block_size(self) -> int:
        """The block size where none is given."""
        if self.order == "partitions":
            return max(1, self.batch_size // self.partitions)
        return _BLOCK_SIZE

    def _check_choices(self) -> None:
        choices = {
            "optimizer": get_args(Optimizer),
            "schedule": get_args(Schedule),
            "precision": get_args(Precision),
            "activation_checkpointing": get_args(Recompute),
            "loss": get_args(Loss),
            "order": get_args(OrderName),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}: it is one of {', '.join(allowed)}")

    def _check_whole_numbers(self) -> None:
        smallest = {
            "epochs": 1,
            "batch_size": 1,
            "accumulate": 1,
            "block_size": 1,
            "partitions": 1,
            "plateau_patience": 0,
            "warmup_steps": 0,
            "patience": 1,
            "max_steps": 1,
            "val_windows": 1,
            "seed": 0,
            "checkpoint_every_steps": 0,
            "log_every_steps": 0,
        }
        optional = {"block_size", "patience", "max_steps", "val_windows"}
        for name, minimum in smallest.items():
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ConfigError(
                    f"{name} is {value!r}: it must be a whole number of at least {minimum}"
                )

        if self.seed >= _SEED_LIMIT:
            raise ConfigError(f"seed is {self.seed}: it must be less than 2**63")

    def _check_numbers(self) -> None:
        for name in ("learning_rate", "huber_delta", "adam_epsilon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value!r}: it must be a finite number above 0")
        for name in ("weight_decay", "clip_norm", "min_learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value!r}: it must be a finite number, 0 or more")
        if not 0 <= self.rotation <= 1:
            raise ConfigError(f"rotation is {self.rotation!r}: it must lie between 0 and 1")
        if not 0 < self.schedule_factor < 1:
            raise ConfigError(
                f"schedule_factor is {self.schedule_factor!r}: it must lie between 0 and 1"
            )

    def _check_milestones(self) -> None:
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ConfigError(
                f"schedule is {self.schedule} and milestones are {list(self.milestones)}: "
                "the multistep schedule, and no other, takes milestones"
            )
        for previous, milestone in zip((0, *self.milestones), self.milestones, strict=False):
            if isinstance(milestone, bool) or not isinstance(milestone, int):
                raise ConfigError(f"milestone {milestone!r} is not a whole number of epochs")
            if milestone <= previous:
                raise ConfigError(
                    f"milestones are {list(self.milestones)}: they must rise, from 1 or more"
                )

    def _check_relations(self) -> None:
        takers = {
            "block_size": (self.default_block_size, ("blocks", "partitions")),
            "partitions": (_PARTITIONS, ("partitions",)),
            "rotation": (_ROTATION, ("partitions",)),
        }
        for name, (default, orders) in takers.items():
            value = getattr(self, name)
            if self.order not in ("auto", *orders) and value not in (None, default):
                raise ConfigError(
                    f"order is {self.order} and {name} is {value}: the order "
                    f"{' or '.join(orders)}, and no other, takes it"
                )
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"min_learning_rate is {self.min_learning_rate} and learning_rate is "
                f"{self.learning_rate}: the minimum cannot be the larger"
            )


def to_toml(value: object) -> str:
    """TOML text of a mapping or a dataclass; `tomllib` reads back the same values.

    Paths become strings, and nested mappings and dataclasses tables. None is left out, because
    TOML has no such value: an option that may be None should have it as its default.

    Raises:
        ConfigError: if a value has another type.

    >>> print(to_toml({"epochs": 3, "gap": None, "model": {"name": "dcrnn"}}), end="")
    epochs = 3
    <BLANKLINE>
    [model]
    name = "dcrnn"
    """
    try:
        return tomli_w.dumps(_plain(value))
    except TypeError as error:
        raise ConfigError(f"{value!r} cannot be written as TOML: {error}") from None


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value
