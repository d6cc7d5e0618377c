"""T-GCN, a recurrent layer whose gates are graph convolutions; A3T-GCN adds attention over time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import GraphGRU, Supports
from pgti.shapes import BHNC, BLNC, NBD

__all__ = ["A3TGCN", "TGCN", "A3TGCNConfig", "TGCNConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TGCNConfig(ModelConfig):
    """Options of T-GCN; the default is the paper's for the loop detectors of Los Angeles.

    Attributes:
        hidden: units D of the recurrent layer. The paper uses 100 for the taxis of Shenzhen.
    """

    hidden: int = 64

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class A3TGCNConfig(TGCNConfig):
    """Options of A3T-GCN.

    Attributes:
        hidden: units D of the recurrent layer, and of the perceptron that scores its states. The
            released code uses 100; 64 is the default of T-GCN here, so that the two can be
            compared.
    """


class _GraphRecurrentModel(AbstractModel):
    """A network that reads its input through one recurrent layer of graph convolutions."""

    support_kind = "renormalized"
    can_checkpoint_activations = True
    uses_time_of_day = False
    config: TGCNConfig

    @property
    def shard_refusal(self) -> str | None:
        """None: sensors meet in products with the operator alone."""
        return None

    def __init__(self, config: TGCNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.cell = GraphGRU(shape.input_channels, config.hidden)

    def read(self, x: BLNC, supports: Supports) -> Iterator[list[NBD]]:
        """The states after each row of x from a state of zeros, [N, B, D] each, in parts."""
        self.check_supports(supports)
        batch, num_steps, _, _ = x.shape
        numbers = supports.sensors_per_rank * batch * 3 * self.config.hidden
        steps = self.steps_per_part(num_steps, numbers)
        state_NBD = None
        for part_LNBC in torch.split(x.permute(1, 2, 0, 3), steps):
            states_NBD = self.maybe_checkpoint(self.cell, part_LNBC, state_NBD, supports)
            yield states_NBD
            state_NBD = states_NBD[-1]


class TGCN(_GraphRecurrentModel):
    """Temporal Graph Convolutional Network (Zhao et al., IEEE T-ITS 2020, arXiv 1811.05320).

    One recurrent layer reads L steps from a state of zeros, and one affine map turns its last state
    into H steps of the targets at once.

    Where the paper and its released code differ, this follows the code: every gate is one graph
    convolution of [x, h], D^-1/2 (A + I)^T D^-1/2 [x, h] W + b. The paper's equations convolve x
    alone, by two layers with a ReLU between them, and multiply h by plain weights. Also as in the
    code: gate biases start at 1, the candidate's at 0, the cell's weights Glorot-uniform, and the
    output map as torch's linear layers do (the later, PyTorch release).

    Where this differs from both:

    - A sensor's gates depend on its own row. The released codes, TensorFlow's and PyTorch's, take r
      from the outputs of the first half of the sensors, and u from those of the second.
    - It accepts several input channels and targets; theirs have one speed.
    - Observations are standardized as for every model here; theirs are divided by the largest.
    - The loss is that of the run; theirs is the squared error with an L2 penalty of 0.0015 on all
      parameters, biases included.
    """

    def __init__(self, config: TGCNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.regression = Regression(config.hidden, shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        for states_NBD in self.read(x, supports):
            last_NBD = states_NBD[-1]
        return self.regression(last_NBD.transpose(0, 1))


class A3TGCN(_GraphRecurrentModel):
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

    def __init__(self, config: A3TGCNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        hidden = config.hidden
        self.score = nn.Sequential(
            nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False)
        )
        self.regression = Regression(hidden, shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        states_NBD = [state_NBD for part in self.read(x, supports) for state_NBD in part]
        context_NBD = self.maybe_checkpoint(self._context, states_NBD)
        return self.regression(context_NBD.transpose(0, 1))

    def _context(self, states_NBD: Sequence[NBD]) -> NBD:
        """The sum of the states of all steps, weighted by attention."""
        # w2 . tanh(a) is 2 w2 . sigmoid(2 a) less the sum of w2, which a softmax does not see.
        weight_DD, bias_D, weight_1D = (2 * each for each in self.score.parameters())
        scores_LNB1 = torch.stack(
            [
                functional.linear(
                    torch.sigmoid(functional.linear(state_NBD, weight_DD, bias_D)), weight_1D
                )
                for state_NBD in states_NBD
            ]
        )
        weights_LNB1 = scores_LNB1.to(states_NBD[0].dtype).softmax(dim=0)
        context_NBD = torch.zeros_like(states_NBD[0])
        for weight_NB1, state_NBD in zip(weights_LNB1, states_NBD, strict=True):
            context_NBD = torch.addcmul(context_NBD, weight_NB1, state_NBD)
        return context_NBD
