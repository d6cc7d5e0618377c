"""STGCN as hazdzz/STGCN computes it: convolutions of [B, C, L, N], filters by einsum."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import STGCN, AbstractModel
from pgti.nn import Supports
from pgti_bench.official.layers import dense_operators, linear, taken

__all__ = ["build_stgcn"]


class _Gated(nn.Module):
    """A causal convolution, a gated linear unit, and a residual connection."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weight_KCG = layer.get_parameter("weight")
        kernel, inputs, width = weight_KCG.shape
        self.convolution = nn.Conv2d(inputs, width, (kernel, 1))
        self.convolution.weight = taken(weight_KCG.permute(2, 1, 0).unsqueeze(3))
        self.convolution.bias = taken(layer.get_parameter("bias"))
        self.kernel, self.gap = kernel, width // 2 - inputs

    def forward(self, x_BCLN: Tensor) -> Tensor:
        a_BDLN, b_BDLN = self.convolution(x_BCLN).chunk(2, dim=1)
        if self.gap >= 0:
            newest = x_BCLN[:, :, self.kernel - 1 :]
            a_BDLN = a_BDLN + functional.pad(newest, (0, 0, 0, 0, 0, self.gap))
        gated: Tensor = a_BDLN * torch.sigmoid(b_BDLN)
        return gated


class _Norm(nn.Module):
    """Layer normalization of [B, C, L, N] over nodes and channels."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, nn.LayerNorm)
        self.norm = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
        self.norm.load_state_dict(norm.state_dict())

    def forward(self, x_BCLN: Tensor) -> Tensor:
        normed: Tensor = self.norm(x_BCLN.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Convolution, filter, convolution, norm."""

    def __init__(self, block: nn.Module, laplacian_NN: Tensor, probability: float) -> None:
        super().__init__()
        part = block.get_submodule
        self.before, self.after = _Gated(part("before")), _Gated(part("after"))
        self.weight = taken(part("filter").get_parameter("weight"))
        self.bias = taken(part("filter").get_parameter("bias"))
        self.norm, self.dropout = _Norm(part("norm")), nn.Dropout(probability)
        self.register_buffer("laplacian", laplacian_NN)

    def forward(self, x_BCLN: Tensor) -> Tensor:
        x = self.before(x_BCLN).permute(0, 2, 3, 1)
        laplacian = self.get_buffer("laplacian")
        terms = [x, torch.einsum("hi,btij->bthj", laplacian, x)]
        for _ in range(2, len(self.weight)):
            again = torch.einsum("hi,btij->bthj", 2 * laplacian, terms[-1])
            terms.append(again - terms[-2])
        terms = terms[: len(self.weight)]
        filtered = torch.einsum("btkhi,kij->bthj", torch.stack(terms, dim=2), self.weight)
        y = self.after(functional.relu(filtered + self.bias).permute(0, 3, 1, 2))
        dropped: Tensor = self.dropout(self.norm(y))
        return dropped


class _STGCN(nn.Module):
    """All blocks, and the output block."""

    def __init__(self, model: STGCN, laplacian_NN: Tensor) -> None:
        super().__init__()
        self.shape, probability = model.shape, model.config.dropout
        self.blocks = nn.Sequential(
            *(_Block(block, laplacian_NN, probability) for block in model.blocks)
        )
        self.temporal, self.norm = _Gated(model.temporal), _Norm(model.norm)
        self.end = linear(model.end.weight, model.end.bias)
        self.regression = linear(model.regression.weight, model.regression.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.temporal(self.blocks(x.permute(0, 3, 1, 2))))[:, :, 0].transpose(1, 2)
        forecast: Tensor = self.regression(functional.relu(self.end(h)))
        return forecast.view(len(x), x.shape[2], self.shape.horizon, -1).transpose(1, 2)


def build_stgcn(model: AbstractModel, supports: Supports) -> nn.Module:
    """Of an `STGCN` whose input is at least as long as its receptive field."""
    assert isinstance(model, STGCN)
    return _STGCN(model, dense_operators(supports)[0])
