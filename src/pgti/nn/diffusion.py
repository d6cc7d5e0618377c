"""Convolutions over a graph: diffusion convolution, its parts, and Chebyshev filters.

Diffusion convolution (Li et al., Diffusion Convolutional Recurrent Neural Network, ICLR 2018,
eq. 2) is  y = sum_k S^k x W_k  over the supports S and powers k = 1 .. K of each, plus one identity
term: H = 1 + S * K hops in all, in the order x, S1 x, S1^2 x, .., S2 x, S2^2 x, ...

A batch is folded into the features: states are [N, B, C] and a product sees [N, B * C].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pgti.nn import plain
from pgti.nn.execution import (
    autocast_dtype,
    hop_dtype,
    refuse_second_derivative,
    without_autocast,
)
from pgti.nn.operators import Operation, Operator
from pgti.nn.sparse import Supports
from pgti.shapes import NF

__all__ = [
    "DiffusionProduct",
    "chebyshev_convolution",
    "diffuse",
    "diffusion_convolution",
]

# Up to this many channels the hops of a state are copied side by side for one matrix product;
# beyond, a product per hop is faster than the copy (measured at 16 and 32 channels, float32).
_NARROW_CHANNELS = 16


def diffuse(x_NF: NF, supports: Supports, hops: int) -> list[NF]:
    """[x, S1 x, S1^2 x, .., S2 x, S2^2 x, ..]: 1 + S * K tensors [N, F], the first x itself.

    Differentiable. An isolated node receives zeros from all K = `hops` powers.
    """
    diffused = [x_NF]
    for index in range(len(supports)):
        state_NF = x_NF
        for _ in range(hops):
            state_NF = supports.multiply(index, state_NF)
            diffused.append(state_NF)
    return diffused


def diffusion_convolution(
    x_LNBC: Tensor, weight_HCO: Tensor, bias_O: Tensor, supports: Supports
) -> Tensor:
    """Diffusion convolution of L independent states.

    Args:
        x_LNBC: [L, N, B, C].
        weight_HCO: [H, C, O], a matrix per hop.
        bias_O: [O].
        supports: S operators on N nodes; K = (H - 1) / S.

    Returns:
        [L, N, B, O], contiguous, in the precision of the supports.
    """
    if x_LNBC.shape[-1] <= _NARROW_CHANNELS:
        return _narrow_convolution(x_LNBC, weight_HCO, bias_O, supports)
    output: Tensor = _convolve(
        x_LNBC.to(supports.dtype).contiguous(),
        weight_HCO,
        bias_O,
        supports,
        autocast_dtype(x_LNBC.device),
    )
    return output


def _narrow_convolution(
    x_LNBC: Tensor, weight_HCO: Tensor, bias_O: Tensor, supports: Supports
) -> Tensor:
    """All L states in one sparse product per hop, then one matrix product over all hops."""
    num_steps, num_nodes, batch, channels = x_LNBC.shape
    hops = (weight_HCO.shape[0] - 1) // len(supports)
    x_NF = x_LNBC.permute(1, 0, 2, 3).reshape(num_nodes, num_steps * batch * channels)
    dtype = hop_dtype(x_NF.device, autocast_dtype(x_NF.device)) or supports.dtype
    diffused = [
        part_NF.view(num_nodes, num_steps, batch, channels)
        for part_NF in diffuse(x_NF.to(dtype), supports, hops)
    ]
    # [N, L, B, H * C] -> [L, N, B, H * C]: hops vary slower than channels, as in the weight.
    gathered = torch.cat(diffused, dim=-1).transpose(0, 1)
    output = functional.linear(gathered, weight_HCO.flatten(0, 1).t(), bias_O)
    return output.to(supports.dtype).contiguous()


def chebyshev_convolution(
    x_NBLC: Tensor, weight_KCO: Tensor, bias_O: Tensor, supports: Supports
) -> Tensor:
    """Chebyshev filter of K - 1 orders on every batch entry and step, differentiable.

    Defferrard et al., Convolutional Neural Networks on Graphs with Fast Localized Spectral
    Filtering, NeurIPS 2016, eq. 4, for an operator S with eigenvalues in [-1, 1], such as the
    scaled Laplacian:  y = sum_k T_k(S) x W_k,  T_0 = I,  T_1 = S,  T_k = 2 S T_{k-1} - T_{k-2}.
    The weights come first and then the polynomials, by Clenshaw's recurrence b_k = x W_k +
    2 S b_{k+1} - b_{k+2}: the same number of products with S, of O channels instead of C.

    Args:
        x_NBLC: [N, B, L, C].
        weight_KCO: [K, C, O], a matrix per order, from 0 on.
        bias_O: [O].
        supports: one operator on N nodes.

    Returns:
        [N, B, L, O], in the precision of the supports.
    """
    num_terms, _, width = weight_KCO.shape
    num_nodes = x_NBLC.shape[0]
    weight_QC = weight_KCO.transpose(1, 2).flatten(0, 1)
    bias_Q = functional.pad(bias_O, (0, (num_terms - 1) * width))
    products_NBLQ = functional.linear(x_NBLC, weight_QC, bias_Q)
    terms_KNF = [
        term_NBLO.reshape(num_nodes, -1).to(supports.dtype)
        for term_NBLO in torch.tensor_split(products_NBLQ, num_terms, dim=-1)
    ]
    latest_NF, before_NF = terms_KNF[-1], None
    for order in range(num_terms - 2, -1, -1):
        product_NF = supports.multiply(0, latest_NF)
        # In the last step S counts once.
        state_NF = torch.add(terms_KNF[order], product_NF, alpha=2 if order else 1)
        if before_NF is not None:
            state_NF = state_NF - before_NF
        latest_NF, before_NF = state_NF, latest_NF
    return latest_NF.view(*x_NBLC.shape[:3], width)


class DiffusionProduct:
    """A diffusion convolution and its gradients, for use inside autograd functions.

    One object serves one weight during one call of an autograd function. With a `matmul_dtype`
    (autocast) the operands of matrix products are rounded to it, and hops where `hop_dtype` says
    so, while states and sums over hops and time stay in the supports' precision. Intermediate
    results are in the supports' scratch memory, which each method overwrites.
    """

    def __init__(
        self, weight_HCO: Tensor, supports: Supports, matmul_dtype: torch.dtype | None
    ) -> None:
        self._supports = supports
        self._hops = (weight_HCO.shape[0] - 1) // len(supports)
        self._matmul_dtype = matmul_dtype
        self._hop_dtype = hop_dtype(weight_HCO.device, matmul_dtype) or supports.dtype
        self._weight_HCO = weight_HCO.to(matmul_dtype or supports.dtype)

    def add_output(self, x_NBC: Tensor, out_NBO: Tensor) -> None:
        """Add sum_k S^k x W_k to out, which is contiguous."""
        out_MO = out_NBO.view(-1, out_NBO.shape[2])
        hops = self._diffuse(x_NBC)
        if self._matmul_dtype is None:
            for hop_MC, weight_CO in zip(hops, self._weight_HCO, strict=True):
                out_MO.addmm_(hop_MC, weight_CO)
        else:
            # One product over all hops, so that the sum is rounded once and not H times.
            shape = (len(out_MO), *self._weight_HCO.shape[:2])
            gathered_MHC = self._scratch("gathered", shape, self._matmul_dtype)
            for position, hop_MC in enumerate(hops):
                gathered_MHC[:, position] = hop_MC
            self._add_product(gathered_MHC.flatten(1), self._weight_HCO.flatten(0, 1), out_MO)

    def add_gradients(
        self,
        x_NBC: Tensor,
        grad_MO: Tensor,
        *,
        into_weight_HCO: Tensor,
        into_x_NBC: Tensor | None,
    ) -> None:
        """Add (S^k x)^T grad to the gradient of W_k, and sum_k (S^T)^k grad W_k^T to that of x.

        The hops of x are recomputed; or, if the outputs are at most as wide as x, hops of the
        gradient are computed, which serve both sums: (S^k x)^T g = x^T (S^T)^k g.

        Args:
            x_NBC: the input.
            grad_MO: [M, O], gradient of the output, M = N * B rows, which may be strided.
            into_weight_HCO: [H, C, O].
            into_x_NBC: [N, B, C], contiguous, not `x_NBC`; None if it is not needed.
        """
        if into_x_NBC is not None and grad_MO.shape[1] <= x_NBC.shape[2]:
            self._add_by_diffused_gradient(x_NBC, grad_MO, into_weight_HCO, into_x_NBC)
            return
        rounded_MO = self._round("gradient", grad_MO)
        for hop_MC, out_CO in zip(self._diffuse(x_NBC), into_weight_HCO, strict=True):
            self._add_product(self._round("hop", hop_MC).t(), rounded_MO, out_CO)
        if into_x_NBC is not None:
            self._add_by_horner(rounded_MO, into_x_NBC.view(len(into_x_NBC), -1))

    def _add_by_diffused_gradient(
        self, x_NBC: Tensor, grad_MO: Tensor, into_weight_HCO: Tensor, into_x_NBC: Tensor
    ) -> None:
        shape = (*x_NBC.shape[:2], grad_MO.shape[1])
        grad_NBO = self._scratch("gradient", shape, self._hop_dtype).copy_(grad_MO.view(shape))
        x_CM = self._round("x", x_NBC.flatten(0, 1)).t()
        into_x_MC = into_x_NBC.view(-1, into_x_NBC.shape[2])
        hops = self._diffuse(grad_NBO, transposed=True)
        for hop_MO, weight_CO, out_CO in zip(hops, self._weight_HCO, into_weight_HCO, strict=True):
            rounded_MO = self._round("hop", hop_MO)
            self._add_product(x_CM, rounded_MO, out_CO)
            self._add_product(rounded_MO, weight_CO.t(), into_x_MC)

    def _add_by_horner(self, grad_MO: Tensor, into_x_NF: Tensor) -> None:
        """Add sum_k (S^T)^k grad W_k^T in S * K sparse products."""
        shape = into_x_NF.shape
        self._add_weighted(0, grad_MO, into_x_NF, beta=1)
        for index in range(len(self._supports)):
            nearest, farthest = 1 + index * self._hops, (index + 1) * self._hops
            state_NF = self._scratch("horner 0", shape, self._hop_dtype)
            self._add_weighted(farthest, grad_MO, state_NF, beta=0)
            for hop in range(farthest - 1, nearest - 1, -1):
                name = f"horner {(farthest - hop) % 2}"
                nearer_NF = self._scratch(name, shape, self._hop_dtype)
                self._add_weighted(hop, grad_MO, nearer_NF, beta=0)
                state_NF = self._supports.product(
                    index, state_NF, transposed=True, out=nearer_NF, accumulate=True
                )
            if state_NF.dtype == into_x_NF.dtype:
                self._supports.product(
                    index, state_NF, transposed=True, out=into_x_NF, accumulate=True
                )
            else:
                into_x_NF.add_(self._supports.product(index, state_NF, transposed=True))

    def _add_weighted(self, hop: int, grad_MO: Tensor, out_NF: Tensor, *, beta: int) -> None:
        """Write, or with beta = 1 add, grad W_k^T to out."""
        weight_OC = self._weight_HCO[hop].t()
        self._add_product(grad_MO, weight_OC, out_NF.view(-1, weight_OC.shape[1]), beta=beta)

    def _add_product(
        self, left_IJ: Tensor, right_JK: Tensor, out_IK: Tensor, *, beta: int = 1
    ) -> None:
        """Write beta * out + left @ right to out, in the operands' or the supports' precision."""
        if out_IK.dtype == left_IJ.dtype:
            out_IK.addmm_(left_IJ, right_JK, beta=beta)
            return
        assert self._matmul_dtype is not None
        product_IK = self._scratch("product", out_IK.shape, self._matmul_dtype)
        torch.mm(left_IJ, right_JK, out=product_IK)
        _ = out_IK.add_(product_IK) if beta else out_IK.copy_(product_IK)

    def _diffuse(self, x_NBC: Tensor, *, transposed: bool = False) -> list[Tensor]:
        """The hops of x, or with the transposes, as [N * B, C]: `diffuse` without autograd.

        All but the first, x itself unless it is rounded, are in scratch memory.
        """
        if x_NBC.dtype != self._hop_dtype:
            x_NBC = self._scratch("hop 0", x_NBC.shape, self._hop_dtype).copy_(x_NBC)
        x_NF = x_NBC.flatten(1, 2)
        hops = [x_NBC.flatten(0, 1)]
        for index in range(len(self._supports)):
            state_NF = x_NF
            for _ in range(self._hops):
                out_NF = self._scratch(f"hop {len(hops)}", x_NF.shape, self._hop_dtype)
                state_NF = self._supports.product(
                    index, state_NF, transposed=transposed, out=out_NF
                )
                hops.append(state_NF.view(-1, x_NBC.shape[2]))
        return hops

    def _round(self, name: str, tensor_MC: Tensor) -> Tensor:
        """The operand of a matrix product, in its precision."""
        if self._matmul_dtype is None or tensor_MC.dtype == self._matmul_dtype:
            return tensor_MC
        scratch = self._scratch(f"rounded {name}", tensor_MC.shape, self._matmul_dtype)
        return scratch.copy_(tensor_MC)

    def _scratch(self, name: str, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        return self._supports.scratch(name, shape, dtype or self._supports.dtype)


class _Convolution(Operation):
    """`diffusion_convolution` of wide states, one at a time, so that its data stay in cache.

    Stores its input alone; the backward pass recomputes its H diffused copies.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_LNBC: Tensor,
        weight_HCO: Tensor,
        bias_O: Tensor,
        supports: Supports,
        matmul_dtype: torch.dtype | None,
    ) -> Tensor:
        ctx.save_for_backward(x_LNBC, weight_HCO)
        ctx.options = supports, matmul_dtype
        output_LNBO = bias_O.to(supports.dtype).repeat(*x_LNBC.shape[:-1], 1)
        with without_autocast(x_LNBC.device):
            product = DiffusionProduct(weight_HCO, supports, matmul_dtype)
            for x_NBC, output_NBO in zip(x_LNBC, output_LNBO, strict=True):
                product.add_output(x_NBC, output_NBO)
        return output_LNBO

    @staticmethod
    def backward(ctx: Any, grad_LNBO: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_LNBC, weight_HCO = ctx.saved_tensors
        supports, matmul_dtype = ctx.options
        grad_LMO = grad_LNBO.contiguous().flatten(1, 2)
        grad_x_LNBC = torch.zeros_like(x_LNBC) if ctx.needs_input_grad[0] else None
        grad_weight_HCO = torch.zeros_like(weight_HCO, dtype=supports.dtype)
        with without_autocast(x_LNBC.device):
            product = DiffusionProduct(weight_HCO, supports, matmul_dtype)
            for step, grad_MO in enumerate(grad_LMO):
                product.add_gradients(
                    x_LNBC[step],
                    grad_MO,
                    into_weight_HCO=grad_weight_HCO,
                    into_x_NBC=None if grad_x_LNBC is None else grad_x_LNBC[step],
                )
        return grad_x_LNBC, grad_weight_HCO, grad_LMO.sum(dim=(0, 1)), None, None

    @staticmethod
    def like(x_LNBC: Tensor, weight_HCO: Tensor, *_: Any) -> tuple[Tensor]:
        return (x_LNBC.new_empty(*x_LNBC.shape[:-1], weight_HCO.shape[2]),)

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        x_LNBC, weight_HCO = ctx.saved_tensors
        return (
            torch.empty_like(x_LNBC),
            weight_HCO.new_empty(weight_HCO.shape, dtype=x_LNBC.dtype),
            x_LNBC.new_empty(weight_HCO.shape[2]),
        )


_convolve = Operator(
    _Convolution,
    "diffusion_convolution",
    returns=["output"],
    saves=["x_LNBC", "weight_HCO"],
    plain=plain.diffusion_convolution,
)
