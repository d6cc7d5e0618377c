"""What several of the networks share."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pgti.models import AbstractModel
from pgti.nn import Supports

__all__ = ["Rival", "convolution", "copied", "dense_operators", "linear", "taken"]


class Rival(NamedTuple):
    """A network as released code computes it.

    Attributes:
        build: gets a model and the operators of its graph; the network that it makes has copies of
            the model's weights, and `forward(x)` gives what the model gives.
        code: whose way of computing it has.
    """

    build: Callable[[AbstractModel, Supports], nn.Module]
    code: str


def taken(tensor: Tensor) -> nn.Parameter:
    """A copy of a weight."""
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format))


def copied(layer: nn.Module) -> nn.Linear:
    """An affine map with copies of the weights of another."""
    assert isinstance(layer, nn.Linear)
    return linear(layer.weight, layer.bias)


def linear(weight_OI: Tensor, bias_O: Tensor | None = None) -> nn.Linear:
    """An affine map with copies of weights [O, I] and [O]."""
    layer = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=bias_O is not None)
    layer.weight = taken(weight_OI)
    if bias_O is not None:
        layer.bias = taken(bias_O)
    return layer


def convolution(weight_OIK: Tensor, bias_O: Tensor, dilation: int = 1) -> nn.Conv2d:
    """A convolution over K steps of [B, I, N, L], with copies of weights [O, I, K] and [O]."""
    outputs, inputs, kernel = weight_OIK.shape
    layer = nn.Conv2d(inputs, outputs, (1, kernel), dilation=(1, dilation))
    layer.weight, layer.bias = taken(weight_OIK.unsqueeze(2)), taken(bias_O)
    return layer


def dense_operators(supports: Supports) -> list[Tensor]:
    """The operators of a graph, [N, N] each: released codes multiply with dense matrices."""
    identity_NN = torch.eye(supports.num_nodes)
    return [supports.product(index, identity_NN) for index in range(len(supports))]
