"""The interface of every trainable model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Self, TypeVar, TypeVarTuple

import torch
from torch import Tensor, nn

from pgti.display import count_of
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.nn import ChunkLimits, Supports, checkpointed
from pgti.nn.execution import is_exporting
from pgti.nn.limits import chunk_limits
from pgti.shapes import BHNC, BLNC
from pgti.windows import ModelShape

__all__ = [
    "AbstractModel",
    "ModelConfig",
    "ModelShape",
    "TeacherForcing",
    "num_trainable_parameters",
]

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

_STEP_TO_STATE = 7
"""Memory that a gated layer needs to differentiate one time step (r, u, c, h and the gradients of
r, u, c), in states. Between the passes it stores one state for each chunk of steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Base of every model's options. Fields are int, float, bool or str, each with a default.

    Raises:
        ConfigError: an option is out of range.
    """

    def check_at_least(self, **minima: float) -> None:
        """Raise ConfigError for the first of these options that is below its minimum."""
        for name, minimum in minima.items():
            value = getattr(self, name)
            if not value >= minimum:
                raise ConfigError(f"{name} is {value}: it must be at least {minimum}")

    def check_fractions(self, *names: str) -> None:
        """Raise ConfigError for the first of these options that is not in 0 .. 1, 1 excluded."""
        self.check_at_least(**dict.fromkeys(names, 0))
        for name in names:
            value = getattr(self, name)
            if not value < 1:
                raise ConfigError(f"{name} is {value}: it must be below 1")

    def without_weights(self) -> Self:
        """The options of a model that is loaded from a checkpoint, and reads no other file."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TeacherForcing:
    """The future that a model may see in training, and never in evaluation.

    Attributes:
        targets_BHNC: [B, H, N, C_out], standardized, 0 where missing.
        calendar_BHF: [B, H, F], calendar features of the target rows.
        step: optimizer steps done so far.
        step_tensor: the same on the host, an int64 scalar: the compiler takes it for a variable.
        seed: of the run. A model's random draws are a function of (seed, step) alone, so that a
            resumed run draws the same.
        added_losses: what `add_loss` was given.
    """

    targets_BHNC: BHNC
    calendar_BHF: Tensor
    step: int
    seed: int
    step_tensor: Tensor = field(init=False)
    added_losses: list[Tensor] = field(init=False, default_factory=list)

    def add_loss(self, term_BN: Tensor) -> None:
        """Add a term to the loss of this batch, weighted as the model wants it.

        The mean loss over all observed targets gains the mean of the term, in which each window of
        a sensor counts as often as it has observed targets: the same however windows are cut into
        batches or split over ranks. With all targets observed that is the mean over [B, N].

        Args:
            term_BN: [B, N], a number for each window of each sensor.
        """
        self.added_losses.append(term_BN)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step_tensor", torch.tensor(self.step))


def num_trainable_parameters(network: nn.Module) -> int:
    """Number of parameters that training changes, without frozen ones."""
    return sum(each.numel() for each in network.parameters() if each.requires_grad)


class AbstractModel(nn.Module, ABC):
    """A network that forecasts H steps of N sensors from L steps.

    `forward` must not read values of tensors on the host, nor draw at random in evaluation. In
    training only dropout may draw from torch's generator, which the training loop seeds by (seed,
    step, rank): a run with dropout can be repeated, and depends on the number of ranks. So does a
    run with batch normalization, whose statistics are those of a rank's part of the batch.

    A concrete model is built from its config and a shape, and draws weights from torch's generator.

    Attributes:
        support_kind: the operators of the graph that it uses: a kind of `Supports.from_graph`, or
            the name of those that its `build_supports` builds. `none` for a model that does not
            use the graph.
        can_checkpoint_activations: whether it supports `activation_checkpointing`.
        reads_targets_alone: whether it sees the past of the targets and no other input channel.
        has_calendar_tables_alone: whether, of the calendar features, it sees the time of day and
            the day of the week alone, which have vectors in tables.
        uses_time_of_day: whether it is published with the time of day as an input, or says nothing
            of it; the default of a run.
        uses_day_of_week: likewise the day of the week.
        recalls_days: whether it gets a `RecallHead` where windows have whole earlier days.
        config: its options.
        shape: the sizes it was built for.
        activation_checkpointing: recompute activations in the backward pass. Forecasts and
            gradients change by rounding, which in bfloat16 is that of bfloat16.
    """

    support_kind: str = "dual_random_walk"
    can_checkpoint_activations: ClassVar[bool] = False
    reads_targets_alone: ClassVar[bool] = False
    has_calendar_tables_alone: ClassVar[bool] = False
    uses_time_of_day: ClassVar[bool] = True
    uses_day_of_week: ClassVar[bool] = False
    recalls_days: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, shape: ModelShape) -> None:
        super().__init__()
        self.config = config
        self.shape = shape
        self.activation_checkpointing = False
        self._limits: ChunkLimits | None = None

    @property
    def limits(self) -> ChunkLimits:
        """How much its layers compute at a time: by default what suits its device."""
        return self._limits or self.default_limits(next(self.parameters()).device)

    @limits.setter
    def limits(self, limits: ChunkLimits) -> None:
        self._limits = limits

    def default_limits(self, device: torch.device) -> ChunkLimits:
        """The limits on a device."""
        return chunk_limits(device)

    @property
    def shard_refusal(self) -> str | None:
        """Why its sensors cannot be split over ranks; None if they can.

        They can where every sensor is computed by itself but for products of `supports` and sums
        through `Supports.sum_over_ranks`, where tables of the sensors go through `Supports.local`,
        and N is the size of x.
        """
        return "it does not say that it can work on some of the sensors"

    @property
    def depends_on_step(self) -> bool:
        """Whether, in training, the model decides on the host by the teacher's step and seed.

        A model of another package may, unless it says otherwise: its steps are not recorded as CUDA
        graphs then.
        """
        return not type(self).__module__.startswith("pgti.")

    @property
    def needs_edges(self) -> bool:
        """Whether sensors see one another along the edges of the graph alone."""
        return self.support_kind != "none"

    def build_supports(self, graph: SensorGraph) -> Supports:
        """The operators of `graph` that it uses, of the kind `support_kind`."""
        return Supports.from_graph(graph, self.support_kind)

    def learned_rows(self) -> Callable[[slice], Tensor] | None:
        """What gives rows of the adjacency [N, N] that the network learned; None if it has none.

        Element [i, j] is the weight with which sensor i reads sensor j. The function takes a slice
        of the N rows and returns them, [rows, N].
        """
        return None

    @property
    def is_checkpointing(self) -> bool:
        """Whether activations are to be recomputed, in a pass that has a backward pass."""
        return self.activation_checkpointing and torch.is_grad_enabled()

    def maybe_checkpoint(
        self, part: Callable[[*Arguments], Result], *args: *Arguments, draws: bool = False
    ) -> Result:
        """`part(*args)`, checkpointed if the model checkpoints activations; see `checkpointed`."""
        return checkpointed(part, *args, draws=draws) if self.is_checkpointing else part(*args)

    def steps_per_part(self, num_steps: int, numbers_per_step: int) -> int:
        """Number of time steps that all recurrent layers compute before the next steps.

        Without gradients `limits.activations` and the `numbers_per_step` of projected inputs
        decide. In training it is all `num_steps`, whose activations are stored anyway. With
        checkpointing, chunks of c of T steps store T / c states, and the backward pass holds the
        activations of c steps: c = sqrt(T / 7) needs the least memory.
        """
        if is_exporting():
            return num_steps
        if not torch.is_grad_enabled():
            steps = num_steps  # not a quotient, of which the compiler would make a graph each
            while steps > 1 and steps * numbers_per_step > self.limits.activations:
                steps -= 1
            return steps
        if not self.activation_checkpointing:
            return num_steps
        return max(1, round(math.sqrt(num_steps / _STEP_TO_STATE)))

    def check_supports(self, supports: Supports) -> None:
        """Raise ConfigError if `supports` are of another kind or graph than the model's."""
        expected, num_nodes = self.support_kind, self.shape.num_nodes
        if supports.kind != expected or supports.num_nodes != num_nodes:
            raise ConfigError(
                f"{type(self).__name__} for {count_of(num_nodes, 'node')} got {supports.kind} "
                f"supports on {count_of(supports.num_nodes, 'node')}: it needs {expected} supports "
                "of its graph"
            )

    @abstractmethod
    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets.

        A model that uses more of a batch names it after these, as `history` and `history_mask`.

        Args:
            x: [B, L, N, C_in], B at least 1, standardized, none missing, calendar channels last.
            supports: operators of the graph.
            teacher: the truth, in training only; a model may ignore it.

        Returns:
            [B, H, N, C_out], standardized.

        Raises:
            ConfigError: the supports are of another kind or graph than the model's, or it was built
                for rows of history and gets none.
        """
