"""PyTorch Geometric Temporal's DCRNN as it computes, for checkpoints that were trained with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing, check_at_least
from pgti.models.layers import Regression
from pgti.nn import LegacyDiffusionGRU, SupportKind, Supports, checkpointed, steps_per_checkpoint
from pgti.shapes import BHNC, BLNC, NBD

__all__ = ["LegacyDCRNN", "LegacyDCRNNConfig", "load_pgt_state_dict"]

_NUMBERS_AT_ONCE = 1 << 24  # of diffused inputs in evaluation: 64 MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyDCRNNConfig(ModelConfig):
    """Options of PGT's DCRNN.

    Attributes:
        hidden: units D; PGT's `out_channels`.
        hops: how far one filter reaches; PGT's `K` less 1.
        head: make the forecast from the last state by an affine map, which PGT's layer leaves to
            its user. Without it the state after input t is the forecast t, as in PGT's examples.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 32
    hops: int = 2
    head: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, hidden=1, hops=0)


class LegacyDCRNN(AbstractModel):
    """The layer `BatchedDCRNN` of PyTorch Geometric Temporal 0.56.2: not DCRNN.

    For old checkpoints only; train `dcrnn`. It repeats, in sparse products of which a batch is one,
    what the layer computes: an encoder without a decoder, whose filters leave the edges' weights
    out of the numerator, normalise the backward direction by the degrees of other edges' sources,
    and are no Chebyshev polynomials from the third power on (`LegacyDiffusionGRU`). Its states lie
    between -1 and 1, and so do its forecasts where there is no head.

    Where a sensor without an edge that leads to it has one that leaves it, PGT divides by zero and
    its output is infinite or NaN; here that term is zero. Edges are taken by source, then target,
    as PGT's loaders have them: what the layer computes depends on their order.

    Raises:
        ConfigError: without a head, if input and horizon differ in length, or a target is not among
            the first D channels.
    """

    support_kind: ClassVar[SupportKind] = "pgt_legacy"
    can_checkpoint_activations: ClassVar[bool] = True
    config: LegacyDCRNNConfig

    def __init__(self, config: LegacyDCRNNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.cell = LegacyDiffusionGRU(shape.input_channels, config.hidden, config.hops)
        self.regression: Regression | None = None
        if config.head:
            self.regression = Regression(config.hidden, shape)
            return
        if shape.input_steps != shape.horizon:
            raise ConfigError(
                f"input_steps is {shape.input_steps} and horizon {shape.horizon}: without a head "
                "each state is a forecast, so they must be equal; use --model.head true"
            )
        if max(shape.target_indices) >= config.hidden:
            raise ConfigError(
                f"hidden is {config.hidden} and a target is channel {max(shape.target_indices)}: "
                "without a head the states are the forecasts of the first channels, so hidden "
                "must be larger"
            )

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Raises:
            ConfigError: the supports are not PGT's on the model's nodes.
        """
        self.check_supports(supports)
        last_NBD: NBD | None = None
        states_LNBD: list[Tensor] = []
        x_LNBC = x.permute(1, 2, 0, 3)
        for part_LNBC in torch.split(x_LNBC, self._steps_at_once(x_LNBC)):
            made_LNBD, last_NBD = self._run(part_LNBC, last_NBD, supports)
            states_LNBD.append(made_LNBD)
        if self.regression is not None:
            forecast: BHNC = self.regression(states_LNBD[-1][-1].transpose(0, 1))
            return forecast
        forecast_LNBC = torch.cat(states_LNBD)[..., list(self.shape.target_indices)]
        return forecast_LNBC.permute(2, 0, 1, 3).contiguous()

    def _run(
        self, part_LNBC: Tensor, state_NBD: NBD | None, supports: Supports
    ) -> tuple[Tensor, NBD]:
        run: Callable[..., tuple[Tensor, NBD]] = self.cell
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpointed(run, part_LNBC, state_NBD, supports)
        return run(part_LNBC, state_NBD, supports)

    def _steps_at_once(self, x_LNBC: Tensor) -> int:
        """Steps between states that are kept; all of them where everything is kept anyway."""
        num_steps, num_nodes, batch, _ = x_LNBC.shape
        if torch.is_grad_enabled():
            return steps_per_checkpoint(num_steps) if self.activation_checkpointing else num_steps
        return max(1, _NUMBERS_AT_ONCE // (num_nodes * batch * 3 * self.config.hidden))


def load_pgt_state_dict(model: LegacyDCRNN, state_dict: Mapping[str, Tensor]) -> None:
    """Put the weights of a `BatchedDCRNN` or `DCRNN` of PGT into a model of equal sizes.

    The head of the model, where it has one, stays as it is. PGT learns from readings standardised
    by statistics of the whole series and from a standardised time of day: a model that is to
    forecast as it did must be given such inputs.

    Args:
        model: to fill.
        state_dict: of the layer, or of a network that has one such layer at any depth; everything
            else in it is left out.

    Raises:
        ConfigError: if it has not exactly one such layer, or the layer is of another size.
    """
    own = model.cell.state_dict()
    mark = "conv_x_z.weight"
    prefixes = [key.removesuffix(mark) for key in state_dict if key.endswith(mark)]
    if len(prefixes) != 1:
        raise ConfigError(
            f"the state dict has {len(prefixes)} layers with the parameter {mark!r}: it must be "
            "that of a network with one DCRNN or BatchedDCRNN"
        )
    theirs = {name: state_dict.get(prefixes[0] + name) for name in own}
    for name, tensor in theirs.items():
        found = None if tensor is None else tuple(tensor.shape)
        if found != tuple(own[name].shape):
            raise ConfigError(
                f"{prefixes[0]}{name} has the shape {found} in the state dict and "
                f"{tuple(own[name].shape)} in the model, [2, K, C + D, D]: build the model with "
                "hidden = D, hops = K - 1 and windows of C input channels"
            )
    model.cell.load_state_dict(theirs)
