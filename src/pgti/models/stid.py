"""STID: the window of a sensor and who, at what time of day and on what day, it belongs to."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing, check_at_least
from pgti.models.layers import CalendarEmbedding, Regression
from pgti.nn import SupportKind, Supports, checkpointed
from pgti.shapes import BHNC, BLNC

__all__ = ["STID", "STIDConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class STIDConfig(ModelConfig):
    """Options of STID; the defaults are those of the paper, and of its code.

    Attributes:
        window_embedding: width of what the window of a sensor becomes.
        node_embedding: width of a sensor's identity.
        time_of_day_embedding: width of the identity of a row of the day.
        day_of_week_embedding: width of the identity of a day of the week.
        layers: residual layers.
        dropout: share of a residual layer's units that is zeroed in training. In the code only.

    Raises:
        ConfigError: an option out of range.
    """

    window_embedding: int = 32
    node_embedding: int = 32
    time_of_day_embedding: int = 32
    day_of_week_embedding: int = 32
    layers: int = 3
    dropout: float = 0.15

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, window_embedding=1, node_embedding=1, layers=1, dropout=0)
        check_at_least(self, time_of_day_embedding=1, day_of_week_embedding=1)
        if not self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}: it must be below 1")


class STID(AbstractModel):
    """Spatial-Temporal Identity (Shao, Zhang, Wang, Wei, Xu, CIKM 2022, arXiv 2208.05233).

    As published: the window of each sensor goes through an affine map; its vector, that of the
    sensor, that of the last input row's time of day and that of its day of the week are laid
    side by side; three layers h + W_2 relu(W_1 h + b_1) + b_2 follow, and an affine map to all H
    steps. It uses no graph: sensors share everything but their own vector.

    As in the released code, where the paper says nothing: the affine map sees all input channels
    of the window, L x C_in numbers, calendar features and profile channels among them; units of a
    residual layer are dropped after the relu; vectors are Glorot-uniform at first, and affine
    maps start as torch's. With reading, time of day and day of the week as inputs it has the
    published number of parameters: 117,868 on METR-LA, 121,644 on PEMS-BAY, 121,068 on PEMS04.

    Where it differs:

    - The vectors of a calendar feature that the input lacks are left out, and the residual layers
      are narrower by as much.
    - Several targets are forecast by one map to H x C_out.
    - The day of the week reaches the affine map divided by 7, as in the released code, and the
      row of the day is found in whole seconds, where that code cuts off a float32 share of the
      day, which can fall just below its row and is then looked up one row too early.
    """

    support_kind: ClassVar[SupportKind] = "none"
    can_checkpoint_activations: ClassVar[bool] = True
    uses_day_of_week: ClassVar[bool] = True
    config: STIDConfig

    def __init__(self, config: STIDConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        window = shape.input_steps * shape.input_channels
        self.window_embedding = nn.Linear(window, config.window_embedding)
        self.node_embedding = nn.Parameter(torch.empty(shape.num_nodes, config.node_embedding))
        self.calendar = CalendarEmbedding(
            shape, config.time_of_day_embedding, config.day_of_week_embedding
        )
        for table in (self.node_embedding, *self.calendar.parameters()):
            nn.init.xavier_uniform_(table)
        width = config.window_embedding + config.node_embedding + sum(self.calendar.widths)
        self.layers = nn.ModuleList(
            _ResidualLayer(width, config.dropout) for _ in range(config.layers)
        )
        self.regression = Regression(width, shape)

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        batch, num_nodes = len(x), self.shape.num_nodes
        vectors = [
            self.window_embedding(x.transpose(1, 2).flatten(2)),
            self.node_embedding.expand(batch, -1, -1),
            *(vector_B1D.expand(-1, num_nodes, -1) for vector_B1D in self.calendar(x[:, -1:])),
        ]
        h_BND = torch.cat(vectors, dim=2)
        for layer in self.layers:
            if self.activation_checkpointing and torch.is_grad_enabled():
                h_BND = checkpointed(layer, h_BND, draws=True)
            else:
                h_BND = layer(h_BND)
        forecast: BHNC = self.regression(h_BND)
        return forecast


class _ResidualLayer(nn.Module):
    """h + W_2 dropout(relu(W_1 h + b_1)) + b_2, all of one width."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self._dropout = dropout

    def forward(self, h_BND: Tensor) -> Tensor:
        units_BND = functional.relu(self.first(h_BND))
        units_BND = functional.dropout(units_BND, self._dropout, training=self.training)
        output_BND: Tensor = h_BND + self.second(units_BND)
        return output_BND
