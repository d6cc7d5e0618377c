"""A3T-GCN: T-GCN, and attention over the states of all time steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import GraphGRU, Supports
from pgti.shapes import BHNC, BLNC, NBD

__all__ = ["A3TGCN", "A3TGCNConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class A3TGCNConfig(ModelConfig):
    """Options of A3T-GCN.

    Attributes:
        hidden: units D of the recurrent layer, and of the perceptron that scores its states. The
            released code uses 100; 64 is the default of T-GCN here, so that the two can be
            compared.
    """

    hidden: int = 64

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1)


class A3TGCN(AbstractModel):
    """Attention Temporal Graph Convolutional Network (Bai et al., ISPRS IJGI 2021).

    arXiv 2006.11583. The recurrent layer of `TGCN`, with its state carried from step to step; a
    perceptron of two layers gives the state h_i of every step i a score e_i; a softmax over the L
    steps turns scores into weights; their sum of states is the context C = sum_i a_i h_i, and
    one affine map turns it into H steps of the targets at once. For the cell see `TGCN`.

    Where the paper and its released code differ, this follows the paper: the code squares the
    scores, gives one weight to a step of the whole graph by a layer as wide as N, and hands the
    weighted steps, one number of each, to a map from L to H without adding them up.

    Where this differs from the paper:

    - The perceptron has a tanh between its layers, e = w2 . tanh(W1 h + b1). In the printed
      equation nothing separates them, so the two are one linear layer.
    - The second layer lacks a bias, on which a softmax does not depend.
    - Every sensor weighs the steps by its own states, with a perceptron that all share: the paper
      does not say whether it sees one sensor or all.
    """

    support_kind = "renormalized"
    can_checkpoint_activations = True
    config: A3TGCNConfig

    def __init__(self, config: A3TGCNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        hidden = config.hidden
        self.cell = GraphGRU(shape.input_channels, hidden)
        self.score = nn.Sequential(
            nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False)
        )
        self.regression = Regression(hidden, shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        self.check_supports(supports)
        parts = self.cell.read(
            x.permute(1, 2, 0, 3), supports, checkpointing=self.is_checkpointing, limits=self.limits
        )
        states_NBD = [state_NBD for part in parts for state_NBD in part]
        context_NBD = self.maybe_checkpoint(self._context, states_NBD)
        return self.regression(context_NBD.transpose(0, 1))

    def _context(self, states_NBD: Sequence[NBD]) -> NBD:
        """The sum of the states of all steps, weighted by attention."""
        scores_LNB1 = torch.stack([self.score(state_NBD) for state_NBD in states_NBD])
        weights_LNB1 = scores_LNB1.to(states_NBD[0].dtype).softmax(dim=0)
        context_NBD = torch.zeros_like(states_NBD[0])
        for weight_NB1, state_NBD in zip(weights_LNB1, states_NBD, strict=True):
            context_NBD = torch.addcmul(context_NBD, weight_NB1, state_NBD)
        return context_NBD
