"""STID: the window of a sensor with embeddings of the sensor, the time and the day of the week."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError, option
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import (
    CalendarEmbedding,
    HistoryEmbedding,
    Regression,
    ResidualLayer,
    required_history,
)
from pgti.models.recall import rows_of_days
from pgti.nn import Linear, Supports
from pgti.shapes import BHNC, BLNC

__all__ = ["STID", "STIDConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class STIDConfig(ModelConfig):
    """Options of STID; the defaults are those of the paper, and of its code.

    Attributes:
        window_embedding: width of the vector of a sensor's window.
        node_embedding: width of the vector of a sensor.
        time_of_day_embedding: width of the vector of a row of the day.
        day_of_week_embedding: width of the vector of a day of the week.
        history_embedding: width of the vector of a sensor's history, where windows have one; 0
            leaves the history to the head that copies from earlier days.
        layers: residual layers.
        dropout: fraction of a residual layer's units that is zeroed in training. Only the code has
            it.
    """

    window_embedding: int = 32
    node_embedding: int = 32
    time_of_day_embedding: int = 32
    day_of_week_embedding: int = 32
    history_embedding: int = 32
    layers: int = 3
    dropout: float = 0.15

    def __post_init__(self) -> None:
        self.check_at_least(window_embedding=1, node_embedding=1, history_embedding=0, layers=1)
        self.check_at_least(time_of_day_embedding=1, day_of_week_embedding=1)
        self.check_fractions("dropout")


class STID(AbstractModel):
    """Spatial-Temporal Identity (Shao, Zhang, Wang, Wei, Xu, CIKM 2022, arXiv 2208.05233).

    As published: the window of each sensor goes through an affine map; its vector, that of the
    sensor, that of the last input row's time of day and that of its day of the week are
    concatenated; three layers h + W_2 relu(W_1 h + b_1) + b_2 follow, and an affine map to all H
    steps. It ignores the graph: sensors differ by their own vector alone.

    As in the released code, where the paper says nothing: the affine map sees all input channels
    of the window, L x C_in numbers, calendar features and climatology among them; units of a
    residual layer are dropped after the relu; vectors are Glorot-uniform at first, and affine
    maps start as torch's. With speed, time of day and day of the week as inputs it has the
    published number of parameters: 117,868 on METR-LA, 121,644 on PEMS-BAY, 121,068 on PEMS04.

    Where it differs:

    - The vectors of a calendar feature that the input lacks are left out, and the residual layers
      are narrower by as much.
    - Several targets are forecast by one map to H x C_out.
    - With `windows.history`, an affine map of the R x C_out readings of a sensor's history, the
      targets alone, is one more of the concatenated vectors. Neither the paper nor its code has it;
      without history the network is the published one.
    - Units are dropped with a probability rounded to 1 / 65,536, and the last map of the last
      residual layer and the affine map after it are one product: only rounding differs.
    - The day of the week reaches the affine map divided by 7, as in BasicTS; the authors'
      repository feeds 0 to 6. The row of the day is found in whole seconds, where
      both truncate a float32 fraction of the day: the same row at 24, 48, 96, 144 and 288 rows a
      day, and the row before for 34 of 720.
    """

    support_kind = "none"
    can_checkpoint_activations = True
    uses_day_of_week = True
    config: STIDConfig

    @property
    def shard_refusal(self) -> str | None:
        """None: sensors meet nowhere, and the vector of each is found by its position."""
        return None

    def __init__(self, config: STIDConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        window = shape.input_steps * shape.input_channels
        self.window_embedding = Linear(window, config.window_embedding)
        self.node_embedding = nn.Parameter(torch.empty(shape.num_nodes, config.node_embedding))
        self.calendar = CalendarEmbedding(
            shape, config.time_of_day_embedding, config.day_of_week_embedding
        )
        for table in (self.node_embedding, *self.calendar.parameters()):
            nn.init.xavier_uniform_(table)
        width = config.window_embedding + config.node_embedding + sum(self.calendar.widths)
        self.history_embedding = None
        if shape.history_steps and not (config.history_embedding or rows_of_days(shape)):
            raise ConfigError(
                "history_embedding is 0, and the history has no whole earlier day to copy from: "
                f"give {option('windows.history', ('1d..7d',))}, or a width of at least 1"
            )
        if shape.history_steps and config.history_embedding:
            self.history_embedding = HistoryEmbedding(config.history_embedding, shape)
            width += config.history_embedding
        self.layers: Sequence[ResidualLayer] = nn.ModuleList(  # type: ignore[assignment] # torch's list
            ResidualLayer(width, config.dropout) for _ in range(config.layers)
        )
        self.regression = Regression(width, shape)

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
        *,
        history: Tensor | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        history = required_history(history, self.shape)
        batch, num_nodes = x.shape[0], x.shape[2]
        vectors = [
            self.window_embedding(x.transpose(1, 2).flatten(2)),
            supports.local(self.node_embedding).expand(batch, -1, -1),
            *(vector_B1D.expand(-1, num_nodes, -1) for vector_B1D in self.calendar(x[:, -1:])),
        ]
        if self.history_embedding is not None and history is not None:
            vectors.append(self.history_embedding(history))
        h_BND = torch.cat(vectors, dim=2)
        *layers, last = self.layers
        for layer in layers:
            h_BND = self.maybe_checkpoint(layer, h_BND, draws=True)
        return self.maybe_checkpoint(last.regress, h_BND, self.regression, draws=True)
