"""Affine maps with batch normalization and relu, whose running statistics a caller moves.

So a pass whose activations are computed twice moves them once: `update_running` with the moments
that `normed_relu` appended in the first.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.nn.execution import without_autocast
from pgti.nn.linear import linear

__all__ = ["NormedMaps", "normed_relu"]


class NormedMaps(nn.Module):
    """relu(norm(x W)), for several maps of one input.

    A bias would be taken off with the mean.

    Args:
        inputs: channels of x.
        width: D, outputs of each map.
        number: of maps.
        epsilon: of the normalization.
    """

    def __init__(self, inputs: int, width: int, number: int = 1, *, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number * width, inputs))
        for weight in torch.split(self.weight, width):
            nn.init.xavier_uniform_(weight)
        self.norm = nn.BatchNorm1d(number * width, eps=epsilon)

    def forward(self, x: Tensor, moments: list[Tensor]) -> Tensor:
        """[.., number * D]; appends the mean and the variance of the batch in training."""
        return normed_relu(linear(x, self.weight, None), self.norm, moments)

    def of_sum(
        self, h_BTND: Tensor, sensors_ND: Tensor, times_BTD: Tensor, moments: list[Tensor]
    ) -> Tensor:
        """The maps of [h, sensor + time]."""
        of_h, of_embedding = self.weight.chunk(2, dim=1)
        y = self._of_embedding(sensors_ND, times_BTD, of_embedding)
        y_of_h = linear(h_BTND, of_h.contiguous(), None)
        return normed_relu(y_of_h + y.to(y_of_h.dtype), self.norm, moments)

    def of_embedding(self, sensors_ND: Tensor, times_BTD: Tensor, moments: list[Tensor]) -> Tensor:
        """The maps of sensor + time."""
        return normed_relu(
            self._of_embedding(sensors_ND, times_BTD, self.weight), self.norm, moments
        )

    def _of_embedding(self, sensors_ND: Tensor, times_BTD: Tensor, weight: Tensor) -> Tensor:
        # Few numbers, among whose rows a normalization would magnify what autocast rounds off.
        with without_autocast(weight.device):
            of_sensor_NO = functional.linear(sensors_ND, weight)
            return of_sensor_NO + functional.linear(times_BTD, weight)[:, :, None]


def normed_relu(y: Tensor, norm: nn.BatchNorm1d, moments: list[Tensor]) -> Tensor:
    """Relu of the batch normalization over all rows, without moving running statistics.

    Args:
        y: [.., C].
        norm: of C channels.
        moments: receives the mean and the unbiased variance of the batch in training, [C] each.
    """
    y_MC = y.flatten(0, -2)
    if not norm.training:
        normed_MC: Tensor = norm(y_MC)
        return functional.relu(normed_MC).view(y.shape)
    normed_MC, mean_C, scale_C = torch.native_batch_norm(
        y_MC, norm.weight, norm.bias, None, None, True, 0.0, norm.eps
    )
    count = len(y_MC)
    variance_C = scale_C.detach().square().reciprocal() - norm.eps
    moments += [mean_C.detach(), variance_C * (count / max(1, count - 1))]
    return functional.relu(normed_MC).view(y.shape)
