"""A gated, dilated, causal convolution over time: the temporal layer of Graph WaveNet.

Wu et al., Graph WaveNet for Deep Spatial-Temporal Graph Modeling, IJCAI 2019, eq. 2 and 3:

    z_t = tanh(sum_k x_{t + k d} F_k + f) . sigmoid(sum_k x_{t + k d} G_k + g)

Time comes first, so that every tap is a view of the input and a plain matrix product over channels.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pgti.nn.execution import (
    autocast_dtype,
    compiler_disabled,
    refuse_second_derivative,
    without_autocast,
)

__all__ = ["gated_convolution"]

# Gates that are made together on a CPU: 1 MiB stays in its caches.
_NUMBERS_AT_ONCE = 1 << 18

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


@compiler_disabled
def gated_convolution(
    x_LNBC: Tensor, weight_KCG: Tensor, bias_G: Tensor, dilation: int
) -> tuple[Tensor, Tensor]:
    """The gated convolution of every node, no padding, and its last step by itself.

    Args:
        x_LNBC: [L, N, B, C].
        weight_KCG: [K, C, 2 D], a matrix per tap, the oldest first; the filter's D columns, then
            the gate's.
        bias_G: [2 D].
        dilation: d, steps between taps.

    Returns:
        [L - (K - 1) d, N, B, D] and [N, B, D], in the precision of the weights. The last step
        comes again so that its gradient does not arrive padded with zeros.
    """
    z_LNBD, last_NBD = _GatedConvolution.apply(  # type: ignore[no-untyped-call]
        x_LNBC.contiguous(),
        weight_KCG,
        bias_G,
        dilation,
        autocast_dtype(x_LNBC.device) or weight_KCG.dtype,
    )
    return z_LNBD, last_NBD


class _GatedConvolution(torch.autograd.Function):
    """`gated_convolution`; keeps its input and both activations.

    tanh(a) = 1 - 2 sigmoid(-2 a): with the filter's weights scaled by -2, one sigmoid over all
    columns makes both. It is a third of the cost of a tanh, and z = g - 2 s g is one operation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_LNBC: Tensor,
        weight_KCG: Tensor,
        bias_G: Tensor,
        dilation: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        num_taps, _, width = weight_KCG.shape
        with without_autocast(x_LNBC.device):
            scale_G = _columns(weight_KCG, -2.0)
            scaled_KCG, scaled_bias_G = (weight_KCG * scale_G).to(dtype), bias_G * scale_G
            taps_KMC = _taps(x_LNBC.to(dtype), num_taps, dilation)
            gates_MG = taps_KMC[0].new_empty(len(taps_KMC[0]), width)
            z_MD = gates_MG.new_empty(len(gates_MG), width // 2)
            for rows in _parts(gates_MG):
                part_MG = gates_MG[rows].copy_(scaled_bias_G)
                for tap_MC, weight_CG in zip(taps_KMC, scaled_KCG, strict=True):
                    part_MG.addmm_(tap_MC[rows], weight_CG)
                s_MD, g_MD = part_MG.sigmoid_().tensor_split(2, dim=1)
                torch.addcmul(g_MD, s_MD, g_MD, value=-2, out=z_MD[rows])
        ctx.save_for_backward(x_LNBC, weight_KCG, gates_MG)
        ctx.dilation = dilation
        ctx.set_materialize_grads(False)
        z_LNBD = z_MD.view(-1, *x_LNBC.shape[1:3], width // 2).to(weight_KCG.dtype)
        return z_LNBD, z_LNBD[-1].clone()

    @staticmethod
    def backward(
        ctx: Any,
        grad_LNBD: Tensor | None,
        grad_last_NBD: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_LNBC, weight_KCG, gates_MG = ctx.saved_tensors
        num_taps, dtype = len(weight_KCG), gates_MG.dtype
        grad_x_LNBC = torch.zeros_like(x_LNBC, dtype=dtype)
        grad_weight_KCG = torch.zeros_like(weight_KCG)
        grad_bias_G = weight_KCG.new_zeros(weight_KCG.shape[2])
        with without_autocast(x_LNBC.device):
            grad_MD = _gradient_of_z(gates_MG, grad_LNBD, grad_last_NBD)
            scale_G = _columns(weight_KCG, 4.0)
            scaled_KCG = (weight_KCG * scale_G).to(dtype)
            into_KMC = _taps(grad_x_LNBC, num_taps, ctx.dilation)
            taps_KMC = _taps(x_LNBC.to(dtype), num_taps, ctx.dilation)
            for rows in _parts(gates_MG):
                grad_MG = _gradient_of_gates(gates_MG[rows], grad_MD[rows])
                for tap in range(num_taps):
                    into_KMC[tap][rows].addmm_(grad_MG, scaled_KCG[tap].t())
                    grad_weight_KCG[tap] += taps_KMC[tap][rows].t() @ grad_MG
                grad_bias_G += grad_MG.sum(dim=0)
        return (
            grad_x_LNBC.to(x_LNBC.dtype),
            grad_weight_KCG * scale_G,
            grad_bias_G * scale_G,
            None,
            None,
        )


def _taps(x_LNBC: Tensor, num_taps: int, dilation: int) -> list[Tensor]:
    """Views [M, C] of what each tap sees, the oldest first: M = (L - (K - 1) d) * N * B."""
    length = len(x_LNBC) - (num_taps - 1) * dilation
    starts = range(0, num_taps * dilation, dilation)
    return [x_LNBC[start : start + length].flatten(0, 2) for start in starts]


def _parts(gates_MG: Tensor) -> Iterator[slice]:
    """Rows that are done together: on a CPU few enough to stay in its caches, elsewhere all."""
    at_once = len(gates_MG)
    if gates_MG.device.type == "cpu":
        at_once = max(1, _NUMBERS_AT_ONCE // gates_MG.shape[1])
    return (slice(start, start + at_once) for start in range(0, len(gates_MG), at_once))


def _columns(weight_KCG: Tensor, of_filter: float) -> Tensor:
    """[2 D]: `of_filter` for the columns of the filter, 1 for those of the gate."""
    scale_G = weight_KCG.new_ones(weight_KCG.shape[2])
    scale_G[: len(scale_G) // 2] = of_filter
    return scale_G


def _gradient_of_z(
    gates_MG: Tensor, grad_LNBD: Tensor | None, grad_last_NBD: Tensor | None
) -> Tensor:
    """[M, D], in the precision of the gates: what came for z and for its last step, together."""
    width = gates_MG.shape[1] // 2
    if grad_LNBD is None:
        grad_MD = gates_MG.new_zeros(len(gates_MG), width)
    else:
        grad_MD = grad_LNBD.to(gates_MG.dtype).reshape(-1, width)
    if grad_last_NBD is None:
        return grad_MD
    last_MD = grad_last_NBD.reshape(-1, width)
    if grad_LNBD is not None:
        grad_MD = grad_MD.clone()  # it is not ours to write to
    grad_MD[-len(last_MD) :] += last_MD
    return grad_MD


def _gradient_of_gates(gates_MG: Tensor, grad_MD: Tensor) -> Tensor:
    """The gradient [M, 2 D] of what goes into the sigmoid, from that of z = (1 - 2 s) g.

    That of the filter is 4 g s (1 - s), here without the 4: whoever multiplies it scales weights.
    """
    s_MD, g_MD = gates_MG.tensor_split(2, dim=1)
    grad_MG = torch.empty_like(gates_MG)
    into_s_MD, into_g_MD = grad_MG.tensor_split(2, dim=1)
    torch.mul(grad_MD, g_MD, out=into_s_MD)
    torch.addcmul(grad_MD, s_MD, grad_MD, value=-2, out=into_g_MD)
    _sigmoid_backward(grad_MG, gates_MG, grad_input=grad_MG)
    return grad_MG
