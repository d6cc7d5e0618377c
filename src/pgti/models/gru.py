"""A GRU that reads each sensor by itself: what a recurrent model does without a graph."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing, check_at_least
from pgti.models.layers import Regression
from pgti.nn import SupportKind, Supports, checkpointed
from pgti.shapes import BHNC, BLNC

__all__ = ["GRU", "GRUConfig"]

_NUMBERS_AT_ONCE = 1 << 24  # of gates, of what is not kept: 64 MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class GRUConfig(ModelConfig):
    """Options of the GRU; a baseline, of which no paper fixes the defaults.

    Attributes:
        hidden: units D of every layer.
        layers: layers of the GRU.
        dropout: share of every layer's outputs that is zeroed in training.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 64
    layers: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, hidden=1, layers=1, dropout=0)
        if not self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}: it must be below 1")


class GRU(AbstractModel):
    """Gated recurrent units (Cho et al., EMNLP 2014, arXiv 1406.1078), one sequence per sensor.

    Layers of `torch.nn.GRU` read L steps of all input channels of a sensor, and one affine map
    turns the last state into H steps of the targets at once. All sensors share the weights and no
    sensor sees another, so a batch of B windows is B N sequences.

    Where it differs from the paper: there is no decoder; there are biases, which its equations
    leave out; and the reset gate scales the product of state and weights rather than the state
    (torch's and cuDNN's form).
    """

    support_kind: ClassVar[SupportKind] = "none"
    can_checkpoint_activations: ClassVar[bool] = True
    config: GRUConfig

    def __init__(self, config: GRUConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        # Apart, so that dropout between them is torch's own: cuDNN's is not seeded by step, and
        # would be another when activations are made again.
        widths = [shape.input_channels] + [config.hidden] * (config.layers - 1)
        self.encoder = nn.ModuleList(nn.GRU(width, config.hidden) for width in widths)
        self.regression = Regression(config.hidden, shape)

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        batch, steps, num_nodes, channels = x.shape
        x_LMC = x.transpose(0, 1).reshape(steps, batch * num_nodes, channels)
        parts_LMC = torch.split(x_LMC, self._rows_at_once(x_LMC.shape[1]), dim=1)
        state_MD = torch.cat([self._run(part_LMC) for part_LMC in parts_LMC])
        forecast: BHNC = self.regression(state_MD.view(batch, num_nodes, -1))
        return forecast

    def _rows_at_once(self, num_rows: int) -> int:
        """Of `num_rows` sequences, those that are read before the next ones are looked at.

        All where what is kept is kept anyway, for the backward pass; otherwise as many as
        have little memory between them.
        """
        if torch.is_grad_enabled() and not self.activation_checkpointing:
            return num_rows
        return max(1, _NUMBERS_AT_ONCE // (self.shape.input_steps * 3 * self.config.hidden))

    def _run(self, part_LMC: Tensor) -> Tensor:
        """`_encode`, kept for the backward pass or made again in it."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            draws = self.training and self.config.dropout > 0
            return checkpointed(self._encode, part_LMC, draws=draws)
        return self._encode(part_LMC)

    def _encode(self, part_LMC: Tensor) -> Tensor:
        """The state of the last layer after the last step, [M, D]."""
        states_LMD = part_LMC
        for number, layer in enumerate(self.encoder):
            if number:
                states_LMD = self._dropped(states_LMD)
            states_LMD, _ = layer(states_LMD)
        return self._dropped(states_LMD[-1])

    def _dropped(self, states: Tensor) -> Tensor:
        return functional.dropout(states, self.config.dropout, training=self.training)
