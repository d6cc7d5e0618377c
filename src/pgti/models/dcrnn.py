"""DCRNN: an encoder-decoder of diffusion-convolutional recurrent layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.scheduled_sampling import Truth, next_input, sampled_truths
from pgti.nn import (
    NUM_SUPPORTS,
    DiffusionGRU,
    Supports,
    without_autocast,
)
from pgti.nn.execution import autocast_dtype
from pgti.nn.stacked import read_stacked
from pgti.nn.stacked_decoder import write_stacked
from pgti.nn.stacked_steps import GatedWeights
from pgti.shapes import BHNC, BLNC, NBD

__all__ = ["DCRNN", "DCRNNConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DCRNNConfig(ModelConfig):
    """Options of DCRNN; the defaults are those of the paper on METR-LA, but for two.

    Attributes:
        hidden: units D of every layer. The paper uses 64; 32 take a quarter of the time and are
            enough for a month of data.
        layers: layers of the encoder, and of the decoder.
        hops: powers K of each of the two random walks.
        scheduled_sampling: let the decoder see the truth at some steps of training. The paper
            does, over tens of thousands of steps; in a short run the decoder then hardly sees its
            own forecasts (after one epoch of the I-5 month the validation MAE was 2.34 mph with it
            and 1.96 without), so it is off by default.
        sampling_decay: optimizer steps tau after which the decoder sees the truth less and less,
            with the probability tau / (tau + exp(step / tau)).
    """

    hidden: int = 32
    layers: int = 2
    hops: int = 2
    scheduled_sampling: bool = False
    sampling_decay: float = 2000.0

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, layers=1, hops=1, sampling_decay=1)
        if not math.isfinite(self.sampling_decay):
            raise ConfigError(f"sampling_decay is {self.sampling_decay}: it must be finite")


class DCRNN(AbstractModel):
    """Diffusion Convolutional Recurrent Neural Network (Li, Yu, Shahabi, Liu, ICLR 2018).

    As published: an encoder reads L steps; its final states start a decoder of equal depth that
    emits H steps, each with the previous one as its input; every matrix product of the recurrent
    cells is a diffusion convolution over the dual random walk; optionally, scheduled sampling by
    inverse sigmoid decay.
    As in the released code: gate biases start at 1, the candidate's at 0, weights Glorot-uniform,
    the first decoder input (GO) is zeros, the encoder sees every input channel and the decoder
    the targets alone, one coin per decoder step decides for the whole batch, and gradients flow
    through forecasts that are fed back.

    Where the two differ, or this differs from both:

    - Hops are powers of a walk, as in the paper's eq. 2; the released code has Chebyshev
      polynomials. Both span the same space, so the function class is the same; only the meaning of
      the initial distribution of weights differs.
    - Both walks diffuse the input itself. The released code overwrites it while it diffuses along
      the first, so that its second starts from an already diffused state.
    - The output projection has a bias (zero at first), as in the common PyTorch port.
    - Coins are a function of (seed, step), so that a resumed run repeats them.
    """

    can_checkpoint_activations = True
    config: DCRNNConfig

    @property
    def shard_refusal(self) -> str | None:
        """None: sensors meet in products with the walks alone."""
        return None

    def __init__(self, config: DCRNNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)

        def stack(input_channels: int) -> nn.ModuleList:
            widths = [input_channels] + [config.hidden] * (config.layers - 1)
            return nn.ModuleList(
                DiffusionGRU(width, config.hidden, NUM_SUPPORTS[self.support_kind], config.hops)
                for width in widths
            )

        self.encoder = stack(shape.input_channels)
        self.decoder = stack(shape.target_channels)
        self.projection = nn.Linear(config.hidden, shape.target_channels)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    @property
    def depends_on_step(self) -> bool:
        """Scheduled sampling flips its coins on the host."""
        return self.config.scheduled_sampling

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        self.check_supports(supports)
        powers_QN = supports.stacked_powers(self.config.hops, autocast_dtype(x.device))
        draws = teacher is not None and self.config.scheduled_sampling
        # The stacked decoder would be compiled for every sequence of coins.
        if powers_QN is not None and not (draws and torch.compiler.is_compiling()):
            return self._forward_stacked(x, powers_QN, supports, teacher)
        x_LNBC, horizon = x.permute(1, 2, 0, 3), self.shape.horizon
        num_steps, num_nodes, batch, _ = x_LNBC.shape
        numbers = supports.sensors_per_rank * batch * 3 * self.config.hidden
        steps = self.steps_per_part(num_steps + horizon, numbers)
        states_NBD: list[NBD | None] = [None] * self.config.layers
        for part_LNBC in torch.split(x_LNBC, steps):
            states_NBD = self.maybe_checkpoint(self._encode, part_LNBC, states_NBD, supports)

        truths_NBC = self._truths(teacher)
        fed_NBC = x_LNBC.new_zeros(num_nodes, batch, self.shape.target_channels)
        forecasts_NBC: list[Tensor] = []
        for first in range(0, horizon, steps):
            part_NBC, fed_NBC, states_NBD = self.maybe_checkpoint(
                self._decode, fed_NBC, states_NBD, truths_NBC[first : first + steps], supports
            )
            forecasts_NBC += part_NBC
        return torch.stack(forecasts_NBC).permute(2, 0, 1, 3).contiguous()

    def _encode(
        self, sequence_LNBC: Tensor, states_NBD: Sequence[NBD | None], supports: Supports
    ) -> list[NBD | None]:
        """The state of every layer after some steps; a layer reads all before the next begins."""
        after_NBD: list[NBD | None] = []
        for layer, before_NBD in zip(self.encoder, states_NBD, strict=True):
            sequence_LNBC, state_NBD = layer(sequence_LNBC, before_NBD, supports)
            after_NBD.append(state_NBD)
        return after_NBD

    def _decode(
        self,
        fed_NBC: Tensor,
        states_NBD: Sequence[NBD | None],
        truths_NBC: Sequence[Truth],
        supports: Supports,
    ) -> tuple[list[Tensor], Tensor, list[NBD | None]]:
        """Forecasts of some steps, the input of the next step, and the states before it.

        `truths_NBC` has for each step the next one's input in place of its forecast, or None.
        """
        forecasts_NBC = []
        for truth in truths_NBC:
            signal_1NBC = fed_NBC.unsqueeze(0)
            after_NBD: list[NBD | None] = []
            for layer, before_NBD in zip(self.decoder, states_NBD, strict=True):
                signal_1NBC, state_NBD = layer(signal_1NBC, before_NBD, supports)
                after_NBD.append(state_NBD)
            states_NBD = after_NBD
            with without_autocast(state_NBD.device):  # bfloat16 would round off 3 digits
                forecasts_NBC.append(self.projection(state_NBD))
            fed_NBC = next_input(forecasts_NBC[-1], truth)
        return forecasts_NBC, fed_NBC, list(states_NBD)

    def _forward_stacked(
        self, x: BLNC, powers_QN: Tensor, supports: Supports, teacher: TeacherForcing | None
    ) -> BHNC:
        """`forward` over a small graph on a GPU; see `pgti.nn.stacked`."""
        x_LNCB, horizon = x.permute(1, 2, 3, 0), self.shape.horizon
        num_steps, num_nodes, _, batch = x_LNCB.shape
        numbers = num_nodes * batch * 3 * self.config.hidden * self.config.layers
        steps = self.steps_per_part(num_steps + horizon, numbers)
        encoder, decoder = (
            [GatedWeights.of(layer) for layer in layers] for layers in (self.encoder, self.decoder)
        )
        state_NWB: Tensor | None = None
        for part_LNCB in torch.split(x_LNCB, steps):
            _, state_NWB = self.maybe_checkpoint(
                read_stacked, part_LNCB, state_NWB, encoder, powers_QN
            )
        assert state_NWB is not None
        truths_NBC = [None, *self._truths(teacher)[:-1]]
        is_fed = [index > 0 and truth is None for index, truth in enumerate(truths_NBC)]
        truths_HNCB = None
        if any(truth is not None for truth in truths_NBC):
            zeros_NBC = x.new_zeros(num_nodes, batch, self.shape.target_channels)
            filled = [truth if isinstance(truth, Tensor) else zeros_NBC for truth in truths_NBC]
            truths_HNCB = torch.stack(filled).transpose(2, 3)
        forecasts_HNBC = []
        for first in range(0, horizon, steps):
            part = slice(first, first + steps)
            states_HNDB, state_NWB = self.maybe_checkpoint(
                write_stacked,
                state_NWB,
                None if truths_HNCB is None else truths_HNCB[part],
                is_fed[part],
                (self.projection.weight, self.projection.bias),
                decoder,
                powers_QN,
                supports.power_sums(self.config.hops),
            )
            with without_autocast(x.device):  # bfloat16 would round off 3 digits
                forecasts_HNBC.append(self.projection(states_HNDB.transpose(2, 3)))
        forecast_HNBC = forecasts_HNBC[0] if len(forecasts_HNBC) == 1 else torch.cat(forecasts_HNBC)
        return forecast_HNBC.permute(2, 0, 1, 3).contiguous()

    def _truths(self, teacher: TeacherForcing | None) -> list[Truth]:
        """For each decoder step, the truth if it is the next one's input."""
        sampled = teacher if self.config.scheduled_sampling else None
        return sampled_truths(sampled, self.shape.horizon, self.config.sampling_decay)
