"""PatchSTG: attention within patches of neighbouring sensors, and across the patches."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.graph import SensorGraph, patch_sensors
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import CalendarEmbedding, Regression
from pgti.nn import Linear, PatchSupports, Supports, dropout
from pgti.nn.execution import split_parts
from pgti.shapes import BHNC, BLNC

__all__ = ["PatchSTG", "PatchSTGConfig"]

_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchSTGConfig(ModelConfig):
    """Options of PatchSTG; the defaults are those of the released code for LargeST's CA.

    Attributes:
        window_embedding: width of the vector of a sensor's window.
        node_embedding: width of the vector of a sensor.
        time_of_day_embedding: width of the vector of a row of the day.
        day_of_week_embedding: width of the vector of a day of the week.
        layers: pairs of attention within and across patches.
        leaf_capacity: the most sensors of a leaf of the tree that divides them.
        leaves_per_patch: neighbouring leaves that are merged into a patch, a power of 2.
        dropout: fraction zeroed in training of attention weights, of the outputs of each attention
            and feed-forward network, and of the units of the latter. Only the code has it.
    """

    window_embedding: int = 64
    node_embedding: int = 32
    time_of_day_embedding: int = 32
    day_of_week_embedding: int = 32
    layers: int = 5
    leaf_capacity: int = 3
    leaves_per_patch: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        self.check_at_least(window_embedding=1, node_embedding=1, layers=1)
        self.check_at_least(time_of_day_embedding=1, day_of_week_embedding=1)
        self.check_at_least(leaf_capacity=1, leaves_per_patch=1)
        self.check_fractions("dropout")
        if self.leaves_per_patch & (self.leaves_per_patch - 1):
            raise ConfigError(
                f"leaves_per_patch is {self.leaves_per_patch}: it must be a power of 2, because "
                "the leaves of a patch are all those of a part of the tree"
            )


class PatchSTG(AbstractModel):
    """PatchSTG (Fang et al., Efficient Large-Scale Traffic Forecasting, KDD 2025).

    As published (arXiv 2412.09972): the leaves of a k-d tree over the sensors' coordinates are
    padded to one size and merged to patches (see `patch_sensors`); the vector of a sensor
    concatenates an affine map of its window, the vectors of the last row's time of day and day of
    the week, and its own; layers attend among the sensors of each patch (depth), then among the
    sensors at the same place of all patches (breadth); an affine map takes the vector of each
    sensor, not those that pad, to all H steps. The edges of the graph are not used.

    As in the released code: the affine map sees all input channels of the window, calendar features
    among them; each attention is x <- x + f(norm(x)), then the same with a network of one gelu
    layer as wide as x; one head; norms without gain and offset, and epsilon 1e-6; attention weights
    are dropped too; tables are Glorot-uniform at first, and affine maps start as torch's. With
    flow, time of day and day of the week as inputs it has 1,828,396 parameters on LargeST's CA.
    Options that it sets for the other parts of LargeST: SD has `node_embedding` 64,
    `leaf_capacity` 2 and `leaves_per_patch` 32; GBA `window_embedding` 128, `leaf_capacity` 2 and
    `leaves_per_patch` 128; GLA `leaf_capacity` 2 and `leaves_per_patch` 32.

    Where it differs:

    - A leaf is padded with a sensor of the neighbouring leaf, where the released code takes the
      sensor whose mean day in the training data is most similar, which a model does not see.
    - A graph without coordinates is divided along its edges.
    - The tree is as deep as `leaf_capacity` requires, which gives the released depths.
    - The window is one patch in time, as in every released configuration.
    - The vector of a calendar feature that the input lacks is left out, and the layers are narrower
      by as much. The row of the day is found in whole seconds (see `layers.step_index`).
    - Queries, keys and values come from one product. Several targets are forecast by one map to
      H x C_out. Units are dropped with a probability rounded to 1 / 65,536.

    The place of a sensor in its leaf follows the order of the store, as in the released code, and
    places decide who attends across patches: in another order the same weights forecast otherwise.

    Time and memory of a layer grow with P (P + S) S for P patches of S places: with 11,160 sensors
    P is 512 and S 24. The more sensors, the more `leaves_per_patch`.
    """

    support_kind = PatchSupports.kind
    can_checkpoint_activations = True
    uses_day_of_week = True
    config: PatchSTGConfig

    @property
    def shard_refusal(self) -> str | None:
        """Sensors of all patches attend to one another."""
        return "sensors of all patches attend to one another"

    @property
    def needs_edges(self) -> bool:
        """No: sensors attend to one another, and coordinates or their order makes patches too."""
        return False

    def __init__(self, config: PatchSTGConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        window = shape.input_steps * shape.input_channels
        self.window_embedding = Linear(window, config.window_embedding)
        self.calendar = CalendarEmbedding(
            shape, config.time_of_day_embedding, config.day_of_week_embedding
        )
        self.node_embedding = nn.Parameter(torch.empty(shape.num_nodes, config.node_embedding))
        for table in (self.node_embedding, *self.calendar.parameters()):
            nn.init.xavier_uniform_(table)
        width = config.window_embedding + sum(self.calendar.widths) + config.node_embedding
        self.layers = nn.ModuleList(_DualLayer(width, config.dropout) for _ in range(config.layers))
        self.regression = Regression(width, shape)

    def build_supports(self, graph: SensorGraph) -> PatchSupports:
        """The patches of `graph`."""
        config = self.config
        patches = patch_sensors(graph, config.leaf_capacity, config.leaves_per_patch)
        return PatchSupports(graph, patches)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Raises:
            ConfigError: the supports are not the patches of the model's graph.
        """
        self.check_supports(supports)
        assert isinstance(supports, PatchSupports)
        sensors, size = supports.sensors.flatten(), supports.sensors.shape[1]
        tokens_BTD = self._embed(x, sensors)
        tokens_BPSD = tokens_BTD.view(x.shape[0], -1, size, tokens_BTD.shape[2])
        windows = max(1, self.limits.tokens // len(sensors))
        for layer in self.layers:
            parts_BPSD = [
                self.maybe_checkpoint(layer, each, draws=True)
                for each in split_parts(tokens_BPSD, windows)
            ]
            tokens_BPSD = torch.cat(parts_BPSD) if len(parts_BPSD) > 1 else parts_BPSD[0]
        forecast_BHTC = self.regression(tokens_BPSD.flatten(1, 2))
        return forecast_BHTC.index_select(2, supports.places)

    def _embed(self, x: BLNC, sensors: Tensor) -> Tensor:
        """The vector of the sensor at every place, [B, T, D]."""
        window_BTK = x.transpose(1, 2).flatten(2).index_select(1, sensors)
        size = (x.shape[0], len(sensors), -1)
        parts_BTD = [
            self.window_embedding(window_BTK),
            *(vector_B1D.expand(size) for vector_B1D in self.calendar(x[:, -1:])),
            functional.embedding(sensors, self.node_embedding).expand(size),
        ]
        return torch.cat(parts_BTD, dim=2)


class _DualLayer(nn.Module):
    """Attention within each patch (depth), then among the same places of all patches (breadth)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.depth = _AttentionBlock(width, dropout)
        self.breadth = _AttentionBlock(width, dropout)

    def forward(self, x_BPSD: Tensor) -> Tensor:
        within_BPSD = self.depth(x_BPSD)
        across_BSPD: Tensor = self.breadth(within_BPSD.transpose(1, 2))
        return across_BSPD.transpose(1, 2)


class _AttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + network(norm(x)), over the third dimension of x."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query_key_value = Linear(width, 3 * width)
        self.attended = Linear(width, width)
        self.expansion = Linear(width, width)
        self.contraction = Linear(width, width)
        self._dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._drop(self.attended(self._attend(_norm(x))))
        units = self._drop(functional.gelu(self.expansion(_norm(x))))
        return x + self._drop(self.contraction(units))

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = self.query_key_value(x).chunk(3, dim=3)
        probability = self._dropout if self.training else 0.0
        return functional.scaled_dot_product_attention(query, key, value, dropout_p=probability)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self._dropout) if self.training else x


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=_EPSILON)
