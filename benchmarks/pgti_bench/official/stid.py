"""STID as GestaltCogTeam/STID computes it: 1 x 1 convolutions of [B, D, N, 1]."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import STID, AbstractModel
from pgti.models.layers import ResidualLayer
from pgti.nn import Supports
from pgti_bench.official.layers import convolution, taken

__all__ = ["build_stid"]


class _Perceptron(nn.Module):
    """A residual layer."""

    def __init__(self, layer: ResidualLayer, dropout: float) -> None:
        super().__init__()
        self.first, self.second = _pointwise(layer.first), _pointwise(layer.second)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BDN1: Tensor) -> Tensor:
        units: Tensor = self.second(self.dropout(functional.relu(self.first(x_BDN1))))
        return units + x_BDN1


class _STID(nn.Module):
    """Vectors of the calendar are looked up for every sensor."""

    def __init__(self, model: STID) -> None:
        super().__init__()
        self.shape = model.shape
        times, days = model.calendar.time_of_day, model.calendar.day_of_week
        assert times is not None
        assert days is not None
        self.nodes, self.times, self.days = map(
            taken, (model.node_embedding, times.weight, days.weight)
        )
        self.window = _pointwise(model.window_embedding)
        layers = (_Perceptron(each, model.config.dropout) for each in model.layers)
        self.layers = nn.Sequential(*layers)
        self.regression = _pointwise(model.regression)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, num_nodes, channels = x.shape
        index_BN = (x[:, -1, :, channels - 2] * len(self.times) + 0.5).long()
        day_BN = (x[:, -1, :, channels - 1] * 7 + 0.5).long()
        windows = x.transpose(1, 2).contiguous().view(batch, num_nodes, -1)
        parts = [
            self.window(windows.transpose(1, 2).unsqueeze(3)),
            *(
                each.transpose(1, 2).unsqueeze(3)
                for each in (
                    self.nodes.expand(batch, -1, -1),
                    self.times[index_BN],
                    self.days[day_BN],
                )
            ),
        ]
        forecast: Tensor = self.regression(self.layers(torch.cat(parts, dim=1)))
        return forecast


def build_stid(model: AbstractModel, _: Supports) -> nn.Module:
    """The network, with the weights of `model`."""
    assert isinstance(model, STID)
    return _STID(model)


def _pointwise(layer: nn.Linear) -> nn.Conv2d:
    return convolution(layer.weight[..., None], layer.bias)
