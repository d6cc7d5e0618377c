"""MegaCRN: a recurrent encoder-decoder over graphs learned from a memory of prototypes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import continued_calendar
from pgti.models.scheduled_sampling import Truth, next_input, sampled_truths
from pgti.nn import (
    AdaptiveAdjacency,
    AdaptiveGRUWeights,
    GatedLayer,
    Supports,
    adaptive_adjacency,
    adaptive_recurrence,
    chebyshev_terms,
    check_adjacency_form,
    is_dense,
    linear,
    without_autocast,
)
from pgti.shapes import BHNC, BLNC, NBD

__all__ = ["MegaCRN", "MegaCRNConfig"]

TermsOf: TypeAlias = Callable[[Tensor], list[Tensor]]
"""Gives the terms of a graph convolution of a state [N, .., C]."""

_MARGIN = 1.0
"""How much nearer than the second prototype the first has to be to the query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MegaCRNConfig(ModelConfig):
    """Options of MegaCRN; the defaults are those of the released code, but for one.

    Attributes:
        hidden: units D of the encoder; the decoder has D + `memory_width`.
        order: K, terms of the Chebyshev polynomials of each of the two graphs.
        prototypes: vectors M of the memory, at least 2.
        memory_width: d, width of a prototype.
        contrast: weight of the term of the loss that pulls a query nearer to its nearest prototype
            than to the second; 0 leaves it out.
        consistency: weight of the term that pulls a query to its nearest prototype; 0 leaves it
            out.
        scheduled_sampling: let the decoder see the truth at some steps of training. The released
            code does. With its `sampling_decay` the truth is the input of half the steps after
            15,000 optimizer steps; where training is much shorter, the decoder hardly sees its own
            forecasts, so it is off by default.
        sampling_decay: optimizer steps tau after which the decoder sees the truth less and less,
            with the probability tau / (tau + exp(step / tau)).
        adjacency: `dense`, `low-rank`, or `auto`: dense up to 4,096 nodes.
    """

    hidden: int = 64
    order: int = 3
    prototypes: int = 20
    memory_width: int = 64
    contrast: float = 0.01
    consistency: float = 0.01
    scheduled_sampling: bool = False
    sampling_decay: float = 2000.0
    adjacency: str = "auto"

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, order=2, prototypes=2, memory_width=1)
        self.check_at_least(contrast=0, consistency=0, sampling_decay=1)
        for name in ("contrast", "consistency", "sampling_decay"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be finite")
        check_adjacency_form(self.adjacency)


class MegaCRN(AbstractModel):
    """Meta-Graph Convolutional Recurrent Network (Jiang, Wang, Yong, et al., AAAI 2023).

    arXiv 2211.14701. As published: a memory holds M prototypes. Two embeddings of the sensors,
    sums over the prototypes, give two graphs, softmax(relu(E1 E2^T)) and softmax(relu(E2 E1^T)).
    A recurrent encoder over both reads the window; its last state, mapped to a query, attends to
    the prototypes, and the state beside what it retrieves starts a recurrent decoder that emits H
    steps, each with the previous one as its input. Two terms join the loss: the nearest prototype
    shall be nearer to the query than the second is (contrast), and near to it (consistency). The
    graph of the sensors is not used.
    As in the released code: both products with a graph are Chebyshev polynomials of it, of order
    3; r and u are those of AGCRN, h' = u . h + (1 - u) . c with c of r . h, and all sensors share
    the weights; the encoder sees the readings without the calendar, the decoder its last forecast
    and the time of day of the step that it forecasts; the first forecast it sees (GO) is zeros;
    one coin per decoder step decides for the whole batch; the terms of the loss are a triplet loss
    of distances with margin 1 and the mean square over the width, each the mean over windows and
    sensors, and their gradients do not reach the prototypes directly; weights and memory are
    Glorot-normal at first, biases 0. With speed alone as input and the time of day in the decoder
    it has the released code's number of parameters, 388,761 on METR-LA.

    Where this differs:

    - The identity, which is a term of both graphs, is one product with the sum of its two weights.
    - The terms of the loss count each window of a sensor by its observed targets, as the error
      does (see `TeacherForcing.add_loss`): the same where none is missing.
    - The validation error is without these terms; the released code adds them to it.
    - Above 4,096 nodes both graphs have another form, of rank d and linear in N (see
      `pgti.nn.adaptive`), unless the option `adjacency` says otherwise.
    - Coins are a function of (seed, step), so that a resumed run repeats them.
    - The number of layers, an option of the released code, is its 1.
    """

    support_kind = "none"
    can_checkpoint_activations = True
    config: MegaCRNConfig

    @property
    def shard_refusal(self) -> str | None:
        """Its learned graphs join every pair of sensors."""
        return "its learned graphs join every pair of sensors"

    def __init__(self, config: MegaCRNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self._readings = shape.input_channels - shape.calendar_channels
        fed_channels = shape.target_channels + shape.calendar_channels
        decoder_hidden = config.hidden + config.memory_width
        self.memory = nn.Parameter(torch.empty(config.prototypes, config.memory_width))
        self.query = nn.Parameter(torch.empty(config.hidden, config.memory_width))
        self.first_mixture = nn.Parameter(torch.empty(shape.num_nodes, config.prototypes))
        self.second_mixture = nn.Parameter(torch.empty(shape.num_nodes, config.prototypes))
        for table in (self.memory, self.query, self.first_mixture, self.second_mixture):
            nn.init.xavier_normal_(table)
        self.encoder = _layer(self._readings, config.hidden, config.order)
        self.decoder = _layer(fed_channels, decoder_hidden, config.order)
        self.projection = nn.Linear(decoder_hidden, shape.target_channels)

    @property
    def depends_on_step(self) -> bool:
        """Scheduled sampling flips its coins on the host."""
        return self.config.scheduled_sampling

    def learned_rows(self) -> Callable[[slice], Tensor]:
        """The first of its two graphs; see `AbstractModel.learned_rows`."""
        return adaptive_adjacency(
            self.first_mixture @ self.memory,
            self.second_mixture @ self.memory,
            self.config.adjacency,
        ).rows

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
        calendar: Tensor | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Args:
            x: the windows.
            supports: ignored.
            teacher: for scheduled sampling, and for the terms of the loss.
            calendar: [B, L + H, F], calendar features of windows and horizons; without it that of
                x continues.
        """
        x_NLBC = x[..., : self._readings].permute(2, 1, 0, 3)
        num_nodes, num_steps, batch, _ = x_NLBC.shape
        horizon, width = self.shape.horizon, self.decoder.hidden
        steps = self.steps_per_part(num_steps + horizon, num_nodes * batch * 3 * width)
        terms_of = self._graph_terms()
        weights = _weights(self.encoder)
        state_NBD = x.new_zeros(num_nodes, batch, self.config.hidden)
        for part_NLBC in torch.split(x_NLBC, steps, dim=1):
            state_NBD = self.maybe_checkpoint(self._read, part_NLBC, state_NBD, weights, terms_of)
        state_NBD = self._recall(state_NBD, teacher)

        calendar = continued_calendar(x, self.shape) if calendar is None else calendar
        ahead_HBF = calendar[:, num_steps:].transpose(0, 1)
        sampled = teacher if self.config.scheduled_sampling else None
        truths = sampled_truths(sampled, horizon, self.config.sampling_decay)
        weights = _weights(self.decoder)
        fed_NBC = x.new_zeros(num_nodes, batch, self.shape.target_channels)
        forecasts_NBC: list[Tensor] = []
        for first in range(0, horizon, steps):
            part = slice(first, first + steps)
            part_NBC, fed_NBC, state_NBD = self.maybe_checkpoint(
                self._decode, fed_NBC, state_NBD, ahead_HBF[part], truths[part], weights, terms_of
            )
            forecasts_NBC += part_NBC
        return torch.stack(forecasts_NBC).permute(2, 0, 1, 3).contiguous()

    def _graph_terms(self) -> TermsOf:
        """What gives a state and its higher polynomials of each graph: one product if dense."""
        with without_autocast(self.memory.device):
            first_ND = self.first_mixture @ self.memory
            second_ND = self.second_mixture @ self.memory
            form, order = self.config.adjacency, self.config.order
            graphs = [
                adaptive_adjacency(*pair, form)
                for pair in ((first_ND, second_ND), (second_ND, first_ND))
            ]
            if not is_dense(form, len(first_ND)):
                return partial(_terms, graphs=graphs, order=order)
            identity_NN = torch.eye(len(first_ND), dtype=first_ND.dtype, device=first_ND.device)
            return partial(_stacked_terms, torch.cat(_terms(identity_NN, graphs, order)[1:]))

    def _read(
        self,
        x_NLBC: Tensor,
        state_NBD: NBD,
        weights: AdaptiveGRUWeights,
        terms_of: TermsOf,
    ) -> NBD:
        """The encoder's state after some steps."""
        return adaptive_recurrence(x_NLBC, state_NBD, weights, terms_of)[:, -1]

    def _recall(self, state_NBD: NBD, teacher: TeacherForcing | None) -> NBD:
        """The state beside what the memory has for it, [N, B, D + d]."""
        with without_autocast(state_NBD.device):  # rounded, the nearest prototypes are others
            query_NBD = state_NBD @ self.query
            scores_NBM = torch.softmax(query_NBD @ self.memory.t(), dim=-1)
            recalled_NBD = scores_NBM @ self.memory
        if teacher is not None and (self.config.contrast or self.config.consistency):
            nearest_NB2 = scores_NBM.detach().topk(2, dim=-1).indices
            first_NBD, second_NBD = self.memory.detach()[nearest_NB2].unbind(dim=2)
            contrast_NB = functional.triplet_margin_loss(
                query_NBD, first_NBD, second_NBD, margin=_MARGIN, reduction="none"
            )
            consistency_NB = (query_NBD - first_NBD).square().mean(dim=-1)
            term_NB = self.config.contrast * contrast_NB + self.config.consistency * consistency_NB
            teacher.add_loss(term_NB.t())
        return torch.cat([state_NBD, recalled_NBD], dim=-1)

    def _decode(
        self,
        fed_NBC: Tensor,
        state_NBD: NBD,
        ahead_HBF: Tensor,
        truths: Sequence[Truth],
        weights: AdaptiveGRUWeights,
        terms_of: TermsOf,
    ) -> tuple[list[Tensor], Tensor, NBD]:
        """Forecasts of some steps, the input of the next step, and the state before it."""
        forecasts_NBC = []
        for ahead_BF, truth in zip(ahead_HBF.unbind(), truths, strict=True):
            ahead_NBF = ahead_BF.expand(len(fed_NBC), -1, -1)
            input_NBC = torch.cat([fed_NBC, ahead_NBF.to(fed_NBC.dtype)], dim=2)
            state_NBD = self._read(input_NBC.unsqueeze(1), state_NBD, weights, terms_of)
            with without_autocast(state_NBD.device):  # bfloat16 would round off 3 digits
                forecasts_NBC.append(self.projection(state_NBD))
            fed_NBC = next_input(forecasts_NBC[-1], truth)
        return forecasts_NBC, fed_NBC, state_NBD


def _terms(state: Tensor, graphs: Sequence[AdaptiveAdjacency], order: int) -> list[Tensor]:
    """The state [N, .., C], and its higher polynomials of each graph."""
    terms = chebyshev_terms(state, 1, graphs[0].propagate)
    for graph in graphs:
        terms += chebyshev_terms(terms[0], order, graph.propagate)[1:]
    return terms


def _stacked_terms(polynomials_QN: Tensor, state: Tensor) -> list[Tensor]:
    """`_terms`, from the polynomials of all graphs one below the other."""
    products = linear(polynomials_QN, state.flatten(1).t(), None).view(-1, *state.shape)
    return [state, *products.unbind()]


class _SharedWeights(NamedTuple):
    """One matrix [T C, O] for the T terms of a graph convolution side by side, of all nodes."""

    weight_KO: Tensor

    def add_products(self, base_NMO: Tensor, terms_NMC: Sequence[Tensor]) -> Tensor:
        """`base` plus each term times its rows of the matrix."""
        return base_NMO + linear(torch.cat(tuple(terms_NMC), dim=-1), self.weight_KO.t(), None)


def _weights(layer: GatedLayer) -> AdaptiveGRUWeights:
    """Of a layer with matrices for I, T_1(g), .. of either graph: those of I are added."""

    def shared(weight_TCO: Tensor) -> _SharedWeights:
        first_KCO, second_KCO = weight_TCO.chunk(2)
        terms = [first_KCO[:1] + second_KCO[:1], first_KCO[1:], second_KCO[1:]]
        return _SharedWeights(torch.cat(terms).flatten(0, 1))

    return AdaptiveGRUWeights(
        inputs=shared(layer.weight_input),
        gates=shared(layer.weight_gates),
        candidate=shared(layer.weight_candidate),
        bias_N1G=layer.bias.view(1, 1, -1),
    )


def _layer(channels: int, hidden: int, order: int) -> GatedLayer:
    """A layer with K matrices for either graph that starts as in the released code."""
    layer = GatedLayer(channels, hidden, 2 * order)
    gates = 2 * hidden
    rows = 2 * order * (channels + hidden)
    gate_std, candidate_std = (math.sqrt(2 / (rows + width)) for width in (gates, hidden))
    with torch.no_grad():
        layer.weight_input[..., :gates].normal_(std=gate_std)
        layer.weight_input[..., gates:].normal_(std=candidate_std)
        layer.weight_gates.normal_(std=gate_std)
        layer.weight_candidate.normal_(std=candidate_std)
        layer.bias.zero_()
    return layer
