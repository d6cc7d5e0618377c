"""What every trainable model is given and must return."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.nn import Supports
from pgti.shapes import BHNC, BLNC

__all__ = [
    "AbstractModel",
    "ModelConfig",
    "ModelShape",
    "TeacherForcing",
    "check_at_least",
    "num_trainable_parameters",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Base of every model's options. Fields are int, float, bool or str, each with a default."""

    def restored(self) -> Self:
        """The same for a model whose parameters a checkpoint brings: no file is read for them."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Sizes that the data, and not the user, decide.

    Attributes:
        input_steps: L.
        horizon: H.
        num_nodes: N.
        input_channels: C_in, the store's channels and after them the calendar's.
        target_channels: C_out.
        target_indices: positions of the targets among the store's channels (the first channels of
            the input), in the order of the output.
        calendar: names of the calendar features, which are the last of the input channels:
            `time-of-day` is a share of the day, `day-of-week` the weekday divided by 7.
        steps_per_day: rows of a day; None where a day is no whole number of them, or the series
            has no times.

    Raises:
        ConfigError: sizes that contradict one another.
    """

    input_steps: int
    horizon: int
    num_nodes: int
    input_channels: int
    target_channels: int
    target_indices: tuple[int, ...]
    calendar: tuple[str, ...] = ()
    steps_per_day: int | None = None

    def __post_init__(self) -> None:
        """Check the sizes against one another."""
        for name in ("input_steps", "horizon", "num_nodes", "input_channels", "target_channels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least 1")
        store_channels = self.input_channels - self.calendar_channels
        if store_channels < 1:
            raise ConfigError(
                f"calendar features are {self.calendar_channels} of {self.input_channels} input "
                "channels: at least one channel must come from the store"
            )
        if len(self.target_indices) != self.target_channels:
            raise ConfigError(
                f"target_indices {self.target_indices} name {len(self.target_indices)} channels "
                f"and target_channels is {self.target_channels}: they must agree"
            )
        if not all(0 <= index < store_channels for index in self.target_indices):
            raise ConfigError(
                f"target_indices are {self.target_indices}: the store has channels 0 to "
                f"{store_channels - 1}"
            )
        if self.steps_per_day is not None and self.steps_per_day < 1:
            raise ConfigError(f"steps_per_day is {self.steps_per_day}: it must be at least 1")

    @property
    def calendar_channels(self) -> int:
        """How many of the input channels, the last ones, are calendar features."""
        return len(self.calendar)

    def calendar_position(self, name: str) -> int | None:
        """Which input channel is the calendar feature `name`; None if none is."""
        if name not in self.calendar:
            return None
        return self.input_channels - len(self.calendar) + self.calendar.index(name)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TeacherForcing:
    """What a model may see of the future while it trains; never given in evaluation.

    Attributes:
        targets_BHNC: [B, H, N, C_out], standardised, 0 where missing.
        calendar_BHF: [B, H, F], calendar features of the target rows.
        step: optimiser steps done so far.
        seed: of the run. Whatever a model draws at random is a function of (seed, step) alone, so
            that a resumed run draws the same.
    """

    targets_BHNC: BHNC  # noqa: N815 - it carries its shape
    calendar_BHF: Tensor  # noqa: N815
    step: int
    seed: int


def num_trainable_parameters(network: nn.Module) -> int:
    """Numbers that a network learns; frozen ones are not counted."""
    return sum(each.numel() for each in network.parameters() if each.requires_grad)


class AbstractModel(nn.Module, ABC):
    """A network that forecasts H steps of N sensors from L steps.

    `forward` reads no value of a tensor on the host. In evaluation it draws nothing at random; in
    training, dropout alone may draw from torch's generator, which the training loop seeds by
    (seed, step, rank): with dropout a run repeats itself, and depends on the number of ranks. So it
    does with batch normalisation, whose statistics are those of a rank's part of the batch.

    A concrete model is built from its own config and a shape, with weights from torch's generator.

    Attributes:
        support_kind: which operators of the graph it uses: a `SupportKind`, or the name of those
            that its `build_supports` builds. `none` for a model that does not use the graph.
        can_checkpoint_activations: whether it knows how to recompute activations.
        uses_day_of_week: whether it is published with the day of the week among its inputs, which
            then have it unless a run says otherwise.
        config: its options.
        shape: the sizes it was built for.
        activation_checkpointing: recompute activations in the backward pass; only for a
            model that can. The function and its gradients stay the same up to rounding, which
            in bfloat16 is that of bfloat16.
    """

    support_kind: ClassVar[str] = "dual_random_walk"
    can_checkpoint_activations: ClassVar[bool] = False
    uses_day_of_week: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, shape: ModelShape) -> None:
        super().__init__()
        self.config = config
        self.shape = shape
        self.activation_checkpointing = False

    @classmethod
    def build_supports(cls, graph: SensorGraph) -> Supports:
        """The operators of `graph` that it uses, of the kind `support_kind`."""
        return Supports.from_graph(graph, cls.support_kind)

    def check_supports(self, supports: Supports) -> None:
        """Refuse the operators of another graph, or of another kind.

        Raises:
            ConfigError: if their kind or their nodes are not the model's.
        """
        expected, num_nodes = self.support_kind, self.shape.num_nodes
        if supports.kind != expected or supports.num_nodes != num_nodes:
            raise ConfigError(
                f"{type(self).__name__} for {num_nodes} nodes was given {supports.kind} supports "
                f"on {supports.num_nodes} nodes: it uses {expected} supports of its own graph"
            )

    @abstractmethod
    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets.

        Args:
            x: [B, L, N, C_in], B at least 1, standardised, 0 where missing, calendar channels last.
            supports: operators of the graph.
            teacher: the truth, in training only; a model may ignore it.

        Returns:
            [B, H, N, C_out], standardised.
        """


def check_at_least(config: ModelConfig, **minima: float) -> None:
    """Raise for the first option of `config` that lies below its minimum.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    for name, minimum in minima.items():
        if not values[name] >= minimum:
            raise ConfigError(f"{name} is {values[name]}: it must be at least {minimum}")
