"""AGCRN: recurrent layers over a learned graph, with separate weights for every node."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import (
    AdaptiveAdjacency,
    AdaptiveGRU,
    AdaptiveGRUWeights,
    Supports,
    adaptive_adjacency,
    check_adjacency_form,
)
from pgti.shapes import BHNC, BLNC, NBD

__all__ = ["AGCRN", "AGCRNConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AGCRNConfig(ModelConfig):
    """Options of AGCRN; the defaults are those of the paper.

    Attributes:
        hidden: units D of every layer.
        layers: recurrent layers.
        embedding: R, width of a node's embedding.
        order: K, terms of the Chebyshev polynomials: 2 means the node itself and its neighbours.
        adjacency: `dense`, `low-rank`, or `auto`: dense up to 4,096 nodes.
    """

    hidden: int = 64
    layers: int = 2
    embedding: int = 10
    order: int = 2
    adjacency: str = "auto"

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, layers=1, embedding=1, order=2)
        check_adjacency_form(self.adjacency)


class AGCRN(AbstractModel):
    """Adaptive Graph Convolutional Recurrent Network (Bai, Yao, Li, Wang, Wang, NeurIPS 2020).

    arXiv 2007.02842. As published: every node has an embedding, and the graph is not an input. From
    the embeddings E follow the graph, A = softmax(relu(E E^T)), and the weights of every node,
    W_n = sum_r E_nr P_r of a pool P. Graph convolutions of both are the products of recurrent
    layers, and an affine map of the last state forecasts all steps at once.
    As in the released code: the node itself and its neighbours have separate weights (the paper's
    eq. 5 has I + A under one weight; the first two Chebyshev polynomials are I and A), layers share
    the embeddings, and pools and embeddings start Glorot-uniform.

    Where this differs:

    - Above 4,096 nodes the learned graph has another form, of rank R and linear in N (see
      `pgti.nn.adaptive`), unless the option `adjacency` says otherwise.
    - The released code un-scales the labels and not the output, so that its network learns to emit
      original units; here, as for every model, the output is standardised and un-scaled.
    - The output map starts Glorot-uniform as a matrix; in the released code it is a convolution
      over all hidden units, whose bound is smaller. Its bias starts as that of `torch.nn.Linear`,
      not uniform in [0, 1).
    """

    support_kind = "none"
    can_checkpoint_activations = True
    uses_time_of_day = False
    config: AGCRNConfig

    @property
    def shard_refusal(self) -> str | None:
        """Its learned graph joins every pair of sensors."""
        return "its learned graph joins every pair of sensors"

    def __init__(self, config: AGCRNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.embedding = nn.Parameter(torch.empty(shape.num_nodes, config.embedding))
        nn.init.xavier_uniform_(self.embedding)
        widths = [shape.input_channels] + [config.hidden] * (config.layers - 1)
        self.layers = nn.ModuleList(
            AdaptiveGRU(width, config.hidden, config.embedding, config.order) for width in widths
        )
        self.regression = Regression(config.hidden, shape)
        nn.init.xavier_uniform_(self.regression.weight)

    def learned_rows(self) -> Callable[[slice], Tensor]:
        """See `AbstractModel.learned_rows`."""
        return adaptive_adjacency(self.embedding, self.embedding, self.config.adjacency).rows

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        adjacency = adaptive_adjacency(self.embedding, self.embedding, self.config.adjacency)
        weights = [layer.weights(self.embedding, self.limits) for layer in self._layers()]
        x_NLBC = x.permute(2, 1, 0, 3)
        num_nodes, num_steps, batch, _ = x_NLBC.shape
        first_NBD = x_NLBC.new_zeros(num_nodes, batch, self.config.hidden)
        states_NBD: Sequence[NBD] = [first_NBD] * self.config.layers
        steps = self.steps_per_part(num_steps, num_nodes * batch * 3 * self.config.hidden)
        for part_NLBC in torch.split(x_NLBC, steps, dim=1):
            states_NBD = self.maybe_checkpoint(
                self._read, part_NLBC, states_NBD, weights, adjacency
            )
        return self.regression(states_NBD[-1].transpose(0, 1))

    def _layers(self) -> Iterator[AdaptiveGRU]:
        return cast(Iterator[AdaptiveGRU], iter(self.layers))

    def _read(
        self,
        sequence_NLBC: Tensor,
        states_NBD: Sequence[NBD],
        weights: Sequence[AdaptiveGRUWeights],
        adjacency: AdaptiveAdjacency,
    ) -> list[NBD]:
        """The state of every layer after some steps; a layer reads all before the next begins."""
        after_NBD: list[NBD] = []
        for layer, before_NBD, own in zip(self._layers(), states_NBD, weights, strict=True):
            sequence_NLBC = layer(sequence_NLBC, before_NBD, own, adjacency.propagate)
            after_NBD.append(sequence_NLBC[:, -1])
        return after_NBD
