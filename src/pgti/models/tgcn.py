"""T-GCN: a gated recurrent layer whose gates are graph convolutions."""

from dataclasses import dataclass

from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import GraphGRU, Supports
from pgti.shapes import BHNC, BLNC

__all__ = ["TGCN", "TGCNConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TGCNConfig(ModelConfig):
    """Options of T-GCN; the default is the paper's for the loop detectors of Los Angeles.

    Attributes:
        hidden: units D of the recurrent layer. The paper uses 100 for the taxis of Shenzhen.
    """

    hidden: int = 64

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1)


class TGCN(AbstractModel):
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

    support_kind = "renormalized"
    can_checkpoint_activations = True
    config: TGCNConfig

    def __init__(self, config: TGCNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.cell = GraphGRU(shape.input_channels, config.hidden)
        self.regression = Regression(config.hidden, shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        self.check_supports(supports)
        parts = self.cell.read(
            x.permute(1, 2, 0, 3), supports, checkpointing=self.is_checkpointing, limits=self.limits
        )
        for states_NBD in parts:
            last_NBD = states_NBD[-1]
        return self.regression(last_NBD.transpose(0, 1))
