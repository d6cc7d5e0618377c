"""STAEformer: plain transformer layers over time, then over sensors, and a learned embedding."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import CalendarEmbedding, Regression
from pgti.nn import Linear, Supports, attend, dropout_add
from pgti.nn.execution import split_parts
from pgti.shapes import BHNC, BLNC

__all__ = ["STAEformer", "STAEformerConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class STAEformerConfig(ModelConfig):
    """Options of STAEformer; the defaults are those of the paper, and of its code.

    Attributes:
        input_embedding: width of the vector of an observation's channels.
        time_of_day_embedding: width of the vector of a row of the day.
        day_of_week_embedding: width of the vector of a day of the week.
        adaptive_embedding: width of the vector learned for each input step of each sensor.
        feed_forward: units of the hidden layer of each feed-forward network.
        heads: attention heads; they must divide the sum of the widths of the embeddings.
        layers: transformer layers over time, and over sensors.
        dropout: fraction of the outputs of each attention and feed-forward network that is zeroed
            in training. Only the code has it.
    """

    input_embedding: int = 24
    time_of_day_embedding: int = 24
    day_of_week_embedding: int = 24
    adaptive_embedding: int = 80
    feed_forward: int = 256
    heads: int = 4
    layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        self.check_at_least(input_embedding=1, adaptive_embedding=1)
        self.check_at_least(time_of_day_embedding=1, day_of_week_embedding=1)
        self.check_at_least(feed_forward=1, heads=1, layers=1)
        self.check_fractions("dropout")


class STAEformer(AbstractModel):
    """Spatio-Temporal Adaptive Embedding transformer (Liu et al., CIKM 2023, arXiv 2308.10425).

    As published: the vector of an observation concatenates an affine map of its channels, the
    vectors of its time of day and its day of the week, and one learned for its step of the window
    and its sensor; transformer layers attend over the L steps of each sensor, then the same number
    over the N sensors of each step; an affine map takes the L vectors of a sensor to all its H
    steps. It ignores the graph.

    As in the released code, where the paper says nothing: the first affine map sees all input
    channels, calendar features and climatology channels among them; a layer is
    x <- norm(x + dropout(f(x))) for attention and then for a network of one hidden relu layer;
    attention weights are not dropped; calendar vectors are standard normal at first, the adaptive
    ones Glorot-uniform over all of [L, N, D], and affine maps start as torch's. With speed, time of
    day and day of the week as inputs it has the published number of parameters: 1,258,980 on
    METR-LA, 1,372,260 on PEMS-BAY, 1,354,980 on PEMS04.

    Where it differs:

    - The vector of a calendar feature that the input lacks is left out, and the layers are
      narrower by as much.
    - The day of the week reaches the first affine map divided by 7, not as 0 to 6. The row of the
      day is found in whole seconds, where the code truncates (see `layers.step_index`).
    - Queries, keys and values come from one product, not three.
    - Several targets are forecast by one map to H x C_out.

    Attention is `torch.nn.functional.scaled_dot_product_attention`, whose fused kernels do not
    store N x N weights, so memory grows with N; time grows with N squared. A layer computes some
    groups of tokens (the steps of some sensors, or the sensors of some steps) at a time.
    """

    support_kind = "none"
    can_checkpoint_activations = True
    uses_day_of_week = True
    config: STAEformerConfig

    @property
    def shard_refusal(self) -> str | None:
        """Every sensor attends to all others."""
        return "every sensor attends to all others"

    def __init__(self, config: STAEformerConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.input_embedding = Linear(shape.input_channels, config.input_embedding)
        self.calendar = CalendarEmbedding(
            shape, config.time_of_day_embedding, config.day_of_week_embedding
        )
        self.adaptive_embedding = nn.Parameter(
            torch.empty(shape.input_steps, shape.num_nodes, config.adaptive_embedding)
        )
        nn.init.xavier_uniform_(self.adaptive_embedding)
        widths = [config.input_embedding, *self.calendar.widths, config.adaptive_embedding]
        width = sum(widths)
        if width % config.heads:
            raise ConfigError(
                f"heads is {config.heads}: it must divide the width of the embeddings of this "
                f"input, {' + '.join(map(str, widths))} = {width}"
            )

        def stack() -> nn.ModuleList:
            return nn.ModuleList(
                _TransformerLayer(width, config.feed_forward, config.heads, config.dropout)
                for _ in range(config.layers)
            )

        self.temporal_layers = stack()
        self.spatial_layers = stack()
        self.regression = Regression(shape.input_steps * width, shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        tokens_BNLD = self._embed(x)
        for layer in self.temporal_layers:
            tokens_BNLD = self._apply_layer(layer, tokens_BNLD)
        tokens_BLND = tokens_BNLD.transpose(1, 2)
        for layer in self.spatial_layers:
            tokens_BLND = self._apply_layer(layer, tokens_BLND)
        return self.regression(tokens_BLND.transpose(1, 2).flatten(2))

    def _embed(self, x: BLNC) -> Tensor:
        """One vector per observation, [B, N, L, D]."""
        batch, _, num_nodes, _ = x.shape
        vectors_BLD = self.calendar(x)
        parts_BNLD = [
            self.input_embedding(x.transpose(1, 2)),
            *(each[:, None].expand(-1, num_nodes, -1, -1) for each in vectors_BLD),
            self.adaptive_embedding.transpose(0, 1).expand(batch, -1, -1, -1),
        ]
        return torch.cat(parts_BNLD, dim=3)

    def _apply_layer(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        """A layer that attends over the third dimension, some groups of tokens at a time."""
        groups_GTD = tokens.flatten(0, 1)
        size = self.limits.tokens // groups_GTD.shape[1]
        parts_GTD = split_parts(groups_GTD, max(1, size))
        outputs_GTD = [self.maybe_checkpoint(layer, each, draws=True) for each in parts_GTD]
        return torch.cat(outputs_GTD).view(tokens.shape)


class _TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each added to its input and then normalized."""

    def __init__(self, width: int, feed_forward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query_key_value = Linear(width, 3 * width)
        self.attended = Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.expansion = Linear(width, feed_forward)
        self.contraction = Linear(feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self._heads, self._dropout = heads, dropout

    def forward(self, x_GTD: Tensor) -> Tensor:
        """G groups of T tokens; each token attends to all of its group."""
        probability = self._dropout if self.training else 0.0
        x_GTD = self.attention_norm(dropout_add(x_GTD, self._attend(x_GTD), probability))
        hidden_GTD = functional.relu(self.expansion(x_GTD))
        read_GTD = self.contraction(hidden_GTD)
        normed: Tensor = self.feed_forward_norm(dropout_add(x_GTD, read_GTD, probability))
        return normed

    def _attend(self, x_GTD: Tensor) -> Tensor:
        query, key, value = self.query_key_value(x_GTD).chunk(3, dim=2)
        attended: Tensor = self.attended(attend(query, key, value, self._heads))
        return attended
