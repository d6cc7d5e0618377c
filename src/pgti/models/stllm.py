"""ST-LLM: the sensors of a network as the words of a sentence that GPT-2 reads."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError, MissingExtraError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.gpt2_weights import GPT2_SETTINGS, read_gpt2_weights
from pgti.models.layers import CalendarEmbedding, Regression
from pgti.nn import ChunkLimits, Supports
from pgti.nn.execution import split_parts
from pgti.nn.limits import chunk_limits
from pgti.shapes import BHNC, BLNC

__all__ = ["STLLM", "STLLMConfig"]

_INITIAL_STD = 0.02  # of GPT-2's weights
_WIDER = 16
"""Fewer tokens of a layer at a time: at width 768 their activations take 36 KiB a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class STLLMConfig(ModelConfig):
    """Options of ST-LLM; the defaults are those of the released code's class, but for `weights`.

    Its training script has other values, `gpt_layers` 1 and `unfrozen` 2, and does not run as
    released: its positional arguments are shifted.

    Attributes:
        embedding: width D of the vectors of the window, the calendar and the sensor.
        gpt_layers: layers of GPT-2, its first ones; F + U in the paper.
        unfrozen: U, the number of these layers, the last ones, whose attention is trained.
        width: width of GPT-2.
        heads: heads of GPT-2's attention.
        dropout: fraction of the embedded tokens, and of the outputs of each attention and
            feed-forward network, that is zeroed in training.
        weights: a local file or directory of GPT-2 weights in the Hugging Face format
            (safetensors, or tensors that torch reads with `weights_only`); empty for random
            weights. `width` and `heads` must match. A run reads them when it starts; its
            checkpoints contain them.
    """

    embedding: int = 256
    gpt_layers: int = 6
    unfrozen: int = 1
    width: int = 768
    heads: int = 12
    dropout: float = 0.1
    weights: str = ""

    def __post_init__(self) -> None:
        self.check_at_least(embedding=1, gpt_layers=1, unfrozen=0, width=1, heads=1)
        self.check_fractions("dropout")
        if self.unfrozen > self.gpt_layers:
            raise ConfigError(
                f"unfrozen is {self.unfrozen}: it must be at most gpt_layers, {self.gpt_layers}"
            )
        if self.width % self.heads:
            raise ConfigError(f"heads is {self.heads}: it must divide width, {self.width}")

    def without_weights(self) -> Self:
        """The options without the file of weights."""
        return replace(self, weights="")


class STLLM(AbstractModel):
    """Spatial-Temporal Large Language Model (Liu et al., MDM 2024, arXiv 2401.10134).

    As published: each sensor is a token. An affine map of its window (a 1 x 1 convolution), the
    sum of the vectors of the last row's time of day and day of the week, and the vector of the
    sensor are concatenated and fused by an affine map to the width of GPT-2, whose first F + U
    layers read the N tokens; an affine map takes each to all H steps. Layer norms and position
    vectors of GPT-2 are trained; its feed-forward networks never are, and its attention only in
    the last U layers (partially frozen attention). It ignores the graph.

    As in the released code, where that and the paper differ: the vector of a sensor comes from a
    table, not from its window; time of day is looked up by row, not by hour; the fusion lacks an
    activation; the first map sees all input channels of the window, calendar features (and here
    climatology channels) among them. Tables are Glorot-uniform at first, and affine maps start as
    torch's.

    Attention is causal, as in GPT-2: a sensor sees itself and those before it in the order of the
    store. So forecasts depend on that order, and that of the first sensor on itself alone.

    Where it differs:

    - Weights are never downloaded. Without `weights` GPT-2 is random, and its frozen parts stay
      random: a network of random features, not the one that the paper measures.
    - Attention weights are not dropped, where GPT-2 drops a tenth: fused kernels, which do not
      store N x N weights, lack dropout on CPUs.
    - The table of positions has N rows, those of GPT-2 first; beyond its 1,024, random ones. Its
      table of words is omitted.
    - The vector of a calendar feature that the input lacks is omitted; without both, the fusion
      is narrower. The day of the week reaches the first map divided by 7, and the row of the day
      is found in whole seconds (see `layers.step_index`).
    - Several targets are forecast by one map to H x C_out.

    Raises:
        ConfigError: weights cannot be read, or do not match `width`, `heads` or `gpt_layers`; or
            the input has the time of day, and a day is not a whole number of rows.
        MissingExtraError: if transformers is not installed.
    """

    support_kind = "none"
    can_checkpoint_activations = True
    uses_day_of_week = True
    config: STLLMConfig

    @property
    def shard_refusal(self) -> str | None:
        """Every sensor attends to all others."""
        return "every sensor attends to all others"

    def __init__(self, config: STLLMConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        gpt2 = _gpt2(config)
        window, num_nodes = shape.input_steps * shape.input_channels, shape.num_nodes
        self.token_embedding = nn.Linear(window, config.embedding)
        self.calendar = CalendarEmbedding(shape, config.embedding, config.embedding)
        self.node_embedding = nn.Parameter(torch.empty(num_nodes, config.embedding))
        for table in (self.node_embedding, *self.calendar.parameters()):
            nn.init.xavier_uniform_(table)
        num_parts = 3 if self.calendar.widths else 2
        self.fusion = nn.Linear(num_parts * config.embedding, config.width)
        self.position_embedding = nn.Parameter(torch.empty(num_nodes, config.width))
        nn.init.normal_(self.position_embedding, std=_INITIAL_STD)
        self.blocks: nn.ModuleList = gpt2.h
        self.norm: nn.LayerNorm = gpt2.ln_f
        self.regression = Regression(config.width, shape)
        if config.weights:
            self._load(config.weights)
        self._freeze()

    def default_limits(self, device: torch.device) -> ChunkLimits:
        """The limits on a device, with fewer tokens, which are wide."""
        limits = chunk_limits(device)
        return replace(limits, tokens=limits.tokens // _WIDER)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        tokens_BND = self.fusion(self._embed(x)) + self.position_embedding
        tokens_BND = functional.dropout(tokens_BND, self.config.dropout, training=self.training)
        for block in self.blocks:
            tokens_BND = self._apply_half(_attend, block, tokens_BND)
            tokens_SD = self._apply_half(_feed_forward, block, tokens_BND.flatten(0, 1))
            tokens_BND = tokens_SD.view_as(tokens_BND)
        return self.regression(self.norm(tokens_BND))

    def _embed(self, x: BLNC) -> Tensor:
        """The vectors of window, last row's time and sensor, concatenated."""
        batch, num_nodes = x.shape[0], self.shape.num_nodes
        parts_BND = [self.token_embedding(x.transpose(1, 2).flatten(2))]
        vectors_B1D = self.calendar(x[:, -1:])
        if vectors_B1D:
            parts_BND.append(torch.stack(vectors_B1D).sum(dim=0).expand(-1, num_nodes, -1))
        parts_BND.append(self.node_embedding.expand(batch, -1, -1))
        return torch.cat(parts_BND, dim=2)

    def _apply_half(
        self, half: Callable[[nn.Module, Tensor], Tensor], block: nn.Module, tokens: Tensor
    ) -> Tensor:
        """Half a layer, of some rows of `tokens` at a time; rows are independent."""
        rows = max(1, self.limits.tokens // tokens.shape[1:-1].numel())
        parts = split_parts(tokens, rows)
        return torch.cat([self.maybe_checkpoint(half, block, part, draws=True) for part in parts])

    def _freeze(self) -> None:
        """Freeze all feed-forward networks, and the attention of the first layers."""
        first_trained = len(self.blocks) - self.config.unfrozen
        for index, block in enumerate(self.blocks):
            block.mlp.requires_grad_(False)
            block.attn.requires_grad_(index >= first_trained)

    def _load(self, path: str) -> None:
        """Copy GPT-2's layers, its last norm, and the positions that both have."""
        parameters = {
            "wpe.weight": self.position_embedding,
            **{f"h.{name}": each for name, each in self.blocks.named_parameters()},
            **{f"ln_f.{name}": each for name, each in self.norm.named_parameters()},
        }
        found = read_gpt2_weights(path, parameters, self.config.heads)
        for name, parameter in parameters.items():
            tensor, wanted = found[name], parameter.detach()
            if name == "wpe.weight" and tensor.ndim == 2:
                rows = min(len(tensor), len(wanted))
                tensor, wanted = tensor[:rows], wanted[:rows]
            if tensor.shape != wanted.shape:
                raise ConfigError(
                    f"weights {path!r} has {name} of the shape {tuple(tensor.shape)} where the "
                    f"model has {tuple(wanted.shape)}: width, {self.config.width}, must match"
                )
            wanted.copy_(tensor)


def _attend(block: Any, tokens_BND: Tensor) -> Tensor:
    """The first half of a layer of GPT-2; causal, because it lacks a mask."""
    attended_BND: Tensor = block.attn(block.ln_1(tokens_BND))[0]
    return tokens_BND + attended_BND


def _feed_forward(block: Any, tokens_SD: Tensor) -> Tensor:
    """The second half, of every token separately."""
    output_SD: Tensor = block.mlp(block.ln_2(tokens_SD))
    return tokens_SD + output_SD


def _gpt2(config: STLLMConfig) -> Any:
    """GPT-2 with random weights; its tables of words and positions, unused, have one row.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import GPT2Config, GPT2Model  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError("transformers", "llm") from None
    settings = {
        **GPT2_SETTINGS,
        "activation_function": "gelu_pytorch_tanh",  # gelu_new by one operator, not by eight
        "n_layer": config.gpt_layers,
        "n_embd": config.width,
        "n_head": config.heads,
        "initializer_range": _INITIAL_STD,
        "resid_pdrop": config.dropout,
        "attn_pdrop": 0.0,
        "vocab_size": 1,
        "n_positions": 1,
        "bos_token_id": None,
        "eos_token_id": None,
        "attn_implementation": "sdpa",
    }
    return GPT2Model(GPT2Config(**settings))
