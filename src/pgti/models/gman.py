"""GMAN: attention over sensors and over time, side by side, from the past into the future."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import CalendarEmbedding, Regression, continued_calendar
from pgti.nn import (
    Linear,
    NormedMaps,
    Supports,
    attend,
    dropout,
    normed_relu,
    update_running,
    without_autocast,
)
from pgti.shapes import BHNC, BLNC

__all__ = ["GMAN", "GMANConfig"]

_EPSILON = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class GMANConfig(ModelConfig):
    """Options of GMAN; the defaults are those of the paper.

    Attributes:
        layers: L, spatio-temporal attention blocks of the encoder, and of the decoder. The released
            code has 5 for METR-LA and 1 for PEMS-BAY.
        heads: K, attention heads.
        head_width: d, width of a head; states have K * d channels.
        causal: whether a step attends to earlier steps and itself alone, as in the paper and in the
            code for METR-LA; in the code for PEMS-BAY all steps see one another.
        dropout: fraction of the units before either map of the output that is zeroed in training:
            0.1 in the code for METR-LA, and 0 in the paper and in the code for PEMS-BAY.
    """

    layers: int = 3
    heads: int = 8
    head_width: int = 8
    causal: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self.check_at_least(layers=1, heads=1, head_width=1)
        self.check_fractions("dropout")

    @property
    def width(self) -> int:
        """D = K * d."""
        return self.heads * self.head_width


class GMAN(AbstractModel):
    """Graph Multi-Attention Network (Zheng, Fan, Wang, Qi, AAAI 2020, arXiv 1911.08415).

    As published: the embedding of a sensor at a time adds the vectors of both, each from two maps;
    a block attends over the sensors of a step and over the steps of a sensor, each from [state,
    embedding], and a gate z = sigmoid(H_S W + H_T W' + b) fuses the two, z . H_S + (1 - z) . H_T;
    L blocks read the past, a transform attention asks by the embeddings of the future among those
    of the past, L blocks refine what it finds, and two maps forecast every step.

    As in the released code (zhengchuanpan/GMAN, its directories METR and PeMS): queries, keys and
    values are relu(norm(x W)) with batch normalization, epsilon 1e-3; two maps follow every
    attention and the fusion, and only the first of each pair has norm and relu; weights start
    Glorot-uniform and biases 0. A sensor attends to all others: the paper's random groups of
    sensors, which approximate that, are not in the code.

    Batch normalization takes its statistics from a rank's part of the batch, so training depends on
    the number of ranks; running statistics are those of rank 0.

    Where this differs:

    - **The vector of a sensor is learned with the rest**, and the graph is not used. The released
      code reads it from a file that node2vec (p 2, q 1, 64 wide) made from the road network; its
      random walks differ from run to run, and a network that was trained on one file means
      nothing with another.
    - It omits biases before a normalization, which takes them off: 6,272 of the 900,801 parameters
      that the released code has for METR-LA with 5 layers.
    - Running statistics move by a tenth at each step; in the code that falls from a half to a
      hundredth over the epochs.
    - The vectors of calendar features that the input lacks are left out, without both of them that
      of the time altogether; other calendar features are not used. Where `calendar` is not given,
      the rows after the last one continue its clock.
    - It reads several channels and forecasts several targets; theirs have one.

    Memory: attention over sensors is `scaled_dot_product_attention`, whose fused kernels store no
    N x N weights, for some steps at a time; time grows with N squared. The terms of [state,
    embedding] W that depend on the sensor or the time alone are computed once for each, and no such
    pair is stored.
    """

    support_kind = "none"
    can_checkpoint_activations = True
    has_calendar_tables_alone = True
    uses_day_of_week = True
    config: GMANConfig

    @property
    def shard_refusal(self) -> str | None:
        """Every sensor attends to all others."""
        return "every sensor attends to all others"

    def __init__(self, config: GMANConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        width = config.width
        self.entrance = _Pair(shape.input_channels - shape.calendar_channels, width)
        self.sensor_embedding = nn.Parameter(torch.empty(shape.num_nodes, width))
        nn.init.xavier_uniform_(self.sensor_embedding)
        self.sensor_maps = _Pair(width, width)
        self.calendar = CalendarEmbedding(shape, width, width)
        self.calendar_maps = _TimeMaps(self.calendar, width) if self.calendar.widths else None
        self.encoder = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.transform = _Transform(config)
        self.decoder = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.exit = NormedMaps(width, width, epsilon=_EPSILON)
        self.regression = Regression(width, replace(shape, horizon=1))

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
        calendar: Tensor | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Args:
            x: see there.
            supports: not used.
            teacher: not used.
            calendar: [B, L + H, F], features of input and target rows; None to continue those of x.
        """
        shape = self.shape
        if calendar is None:
            calendar = continued_calendar(x, shape)
        with without_autocast(x.device):  # of few rows
            sensors_ND = self._apply_part(self.sensor_maps, self.sensor_embedding)
            times_BTD = self._times(calendar.to(self.sensor_embedding.dtype))
        past_BLD, future_BHD = times_BTD[:, : shape.input_steps], times_BTD[:, shape.input_steps :]
        readings = x[..., : shape.input_channels - shape.calendar_channels]
        h_BTND = self._apply_part(self.entrance, readings)
        for block in self.encoder:
            h_BTND = self._apply_block(block, h_BTND, sensors_ND, past_BLD)
        h_BTND = self._apply_part(self.transform, h_BTND, sensors_ND, past_BLD, future_BHD)
        for block in self.decoder:
            h_BTND = self._apply_block(block, h_BTND, sensors_ND, future_BHD)
        probability = self.config.dropout if self.training else 0.0
        h_BTND = self._apply_part(self.exit, dropout(h_BTND, probability))
        forecast_B1MC = self.regression(dropout(h_BTND, probability).flatten(1, 2))
        return forecast_B1MC.view(x.shape[0], shape.horizon, shape.num_nodes, -1)

    def _times(self, calendar_BTF: Tensor) -> Tensor:
        """[B, L + H, D]: the vectors of times; zeros without calendar."""
        if self.calendar_maps is None:
            return calendar_BTF.new_zeros(*calendar_BTF.shape[:2], self.config.width)
        shape = self.shape
        gap = shape.input_channels - shape.calendar_channels
        as_x_BT1C = functional.pad(calendar_BTF[:, :, None], (gap, 0))
        vectors_BTD = torch.stack(self.calendar(as_x_BT1C)).sum(dim=0)
        return self._apply_part(self.calendar_maps, vectors_BTD)

    def _apply_block(
        self, block: nn.Module, h_BTND: Tensor, sensors_ND: Tensor, times_BTD: Tensor
    ) -> Tensor:
        part = block.get_submodule
        args = (h_BTND, sensors_ND, times_BTD)
        spatial_BTND = self._apply_part(part("spatial"), *args)
        temporal_BTND = self._apply_part(part("temporal"), *args)
        fused_BTND = self._apply_part(part("fusion"), spatial_BTND, temporal_BTND)
        return h_BTND + fused_BTND

    def _apply_part(self, part: nn.Module, *args: Tensor) -> Tensor:
        """A part, perhaps checkpointed, and its running statistics, which move once a pass."""

        def run(*args: Tensor) -> list[Tensor]:
            moments: list[Tensor] = []
            return [part(*args, moments), *moments]

        output, *moments = self.maybe_checkpoint(run, *args)
        if self.training:
            norms = [each for each in part.modules() if isinstance(each, nn.BatchNorm1d)]
            for norm, mean_C, variance_C in zip(norms, moments[::2], moments[1::2], strict=True):
                update_running(norm, mean_C, variance_C)
        return output


class _Linear(Linear):
    """x W + b, with TensorFlow's initial values."""

    def reset_parameters(self) -> None:
        """Glorot-uniform weights, biases 0."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class _Pair(nn.Module):
    """Two maps, the first with norm and relu."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = NormedMaps(inputs, width, epsilon=_EPSILON)
        self.second = _Linear(width, width)

    def forward(self, x: Tensor, moments: list[Tensor]) -> Tensor:
        """[.., D]."""
        mapped: Tensor = self.second(self.first(x, moments))
        return mapped


class _TimeMaps(nn.Module):
    """`_Pair` of the day of the week and the time of day, one-hot: the first map's are tables."""

    def __init__(self, tables: CalendarEmbedding, width: int) -> None:
        super().__init__()
        rows = sum(table.shape[0] for table in tables.parameters())
        bound = math.sqrt(6 / (rows + width))
        for table in tables.parameters():
            nn.init.uniform_(table, -bound, bound)
        self.norm = nn.BatchNorm1d(width, eps=_EPSILON)
        self.second = _Linear(width, width)

    def forward(self, vectors_BTD: Tensor, moments: list[Tensor]) -> Tensor:
        """[B, T, D] from the sum of the tables' vectors."""
        hidden_BTD = normed_relu(vectors_BTD, self.norm, moments)
        mapped: Tensor = self.second(hidden_BTD)
        return mapped


class _Attention(nn.Module):
    """Attention from [state, embedding], over sensors or over steps, and a pair of maps."""

    def __init__(self, config: GMANConfig, *, over_steps: bool) -> None:
        super().__init__()
        self.query_key_value = NormedMaps(2 * config.width, config.width, 3, epsilon=_EPSILON)
        self.attended = _Pair(config.width, config.width)
        self._heads = config.heads
        self._over_steps, self._causal = over_steps, over_steps and config.causal

    def forward(
        self, h_BTND: Tensor, sensors_ND: Tensor, times_BTD: Tensor, moments: list[Tensor]
    ) -> Tensor:
        """[B, T, N, D]."""
        maps = self.query_key_value.of_sum(h_BTND, sensors_ND, times_BTD, moments)
        parts = maps.chunk(3, dim=3)
        if self._over_steps:
            parts = tuple(each.transpose(1, 2) for each in parts)
        query, key, value = (each.flatten(0, 1) for each in parts)
        read = attend(query, key, value, self._heads, causal=self._causal).view(parts[0].shape)
        read_BTND = read.transpose(1, 2) if self._over_steps else read
        attended: Tensor = self.attended(read_BTND, moments)
        return attended


class _Fusion(nn.Module):
    """z . H_S + (1 - z) . H_T with a gate z, and a pair of maps."""

    def __init__(self, config: GMANConfig) -> None:
        super().__init__()
        self.of_spatial = _Linear(config.width, config.width, bias=False)
        self.of_temporal = _Linear(config.width, config.width)
        self.fused = _Pair(config.width, config.width)

    def forward(self, spatial_BTND: Tensor, temporal_BTND: Tensor, moments: list[Tensor]) -> Tensor:
        """[B, T, N, D]."""
        z_BTND = torch.sigmoid(self.of_spatial(spatial_BTND) + self.of_temporal(temporal_BTND))
        fused: Tensor = self.fused(torch.lerp(temporal_BTND, spatial_BTND, z_BTND), moments)
        return fused


class _Block(nn.Module):
    """A spatio-temporal attention block."""

    def __init__(self, config: GMANConfig) -> None:
        super().__init__()
        self.spatial = _Attention(config, over_steps=False)
        self.temporal = _Attention(config, over_steps=True)
        self.fusion = _Fusion(config)


class _Transform(nn.Module):
    """Attention of the future's embeddings to those of the past, whose states it reads."""

    def __init__(self, config: GMANConfig) -> None:
        super().__init__()
        self.query = NormedMaps(config.width, config.width, epsilon=_EPSILON)
        self.key = NormedMaps(config.width, config.width, epsilon=_EPSILON)
        self.value = NormedMaps(config.width, config.width, epsilon=_EPSILON)
        self.attended = _Pair(config.width, config.width)
        self._heads = config.heads

    def forward(
        self,
        h_BLND: Tensor,
        sensors_ND: Tensor,
        past_BLD: Tensor,
        future_BHD: Tensor,
        moments: list[Tensor],
    ) -> Tensor:
        """[B, H, N, D]."""
        parts_BTND = (
            self.query.of_embedding(sensors_ND, future_BHD, moments),
            self.key.of_embedding(sensors_ND, past_BLD, moments),
            self.value(h_BLND, moments),
        )
        query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in parts_BTND)
        read_MHD = attend(query, key, value, self._heads)
        read_BNHD = read_MHD.view(h_BLND.shape[0], -1, *read_MHD.shape[1:])
        attended: Tensor = self.attended(read_BNHD.transpose(1, 2), moments)
        return attended
