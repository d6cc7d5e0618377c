"""A GRU that reads each sensor separately: a recurrent model without a graph."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import Supports
from pgti.nn.execution import split_parts
from pgti.shapes import BHNC, BLNC

__all__ = ["GRU", "GRUConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GRUConfig(ModelConfig):
    """Options of the GRU, a baseline.

    Attributes:
        hidden: units D of every layer.
        layers: layers of the GRU.
        dropout: fraction of every layer's outputs that is zeroed in training.
    """

    hidden: int = 64
    layers: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, layers=1)
        self.check_fractions("dropout")


class GRU(AbstractModel):
    """Gated recurrent units (Cho et al., EMNLP 2014, arXiv 1406.1078), one sequence per sensor.

    Layers of `torch.nn.GRU` read L steps of all input channels of a sensor, and one affine map
    turns the last state into H steps of the targets at once. Sensors share the weights and do not
    see one another, so a batch of B windows is B N sequences.

    Where it differs from the paper: it omits the decoder; it adds biases, which the equations omit;
    and the reset gate scales the product of state and weights rather than the state (torch's and
    cuDNN's form).
    """

    support_kind = "none"
    can_checkpoint_activations = True
    config: GRUConfig

    @property
    def shard_refusal(self) -> str | None:
        """None: it reads every sensor by itself."""
        return None

    def __init__(self, config: GRUConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        # Separate layers, for dropout of torch between them: cuDNN's is not seeded by step, and
        # draws other units when activations are recomputed.
        widths = [shape.input_channels] + [config.hidden] * (config.layers - 1)
        self.encoder = nn.ModuleList(nn.GRU(width, config.hidden) for width in widths)
        self.dropout = nn.Dropout(config.dropout)
        self.regression = Regression(config.hidden, shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        batch, steps, num_nodes, channels = x.shape
        x_LMC = x.transpose(0, 1).reshape(steps, batch * num_nodes, channels)
        sequences = x_LMC.shape[1]  # all, whose activations are stored for the backward pass
        if self.is_checkpointing or not torch.is_grad_enabled():
            sequences = max(1, self.limits.activations // (steps * 3 * self.config.hidden))
        draws = self.training and self.config.dropout > 0
        state_MD = torch.cat(
            [
                self.maybe_checkpoint(self._encode, part_LMC, draws=draws)
                for part_LMC in split_parts(x_LMC, sequences, dim=1)
            ]
        )
        return self.regression(state_MD.view(batch, num_nodes, -1))

    def _encode(self, part_LMC: Tensor) -> Tensor:
        """The state of the last layer after the last step, [M, D]."""
        states_LMD = part_LMC
        for number, layer in enumerate(self.encoder):
            if number:
                states_LMD = self.dropout(states_LMD)
            states_LMD, _ = layer(states_LMD)
        last_MD: Tensor = self.dropout(states_LMD[-1])
        return last_MD
