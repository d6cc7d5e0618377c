"""AGCRN as LeiBAI/AGCRN computes it: at every step the graph, the weights of all nodes from their
embeddings, and a convolution of the concatenated input and state."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import AGCRN, AbstractModel
from pgti.nn import AdaptiveGRU, Supports
from pgti_bench.official.layers import linear, taken

__all__ = ["build_agcrn"]


class _Convolution(nn.Module):
    """A convolution with weights of each node."""

    def __init__(self, pool_RKCO: Tensor, pool_RO: Tensor) -> None:
        super().__init__()
        self.weights, self.biases = taken(pool_RKCO), taken(pool_RO)

    def forward(self, x_BNC: Tensor, embedding_NR: Tensor) -> Tensor:
        graph = functional.relu(embedding_NR @ embedding_NR.t()).softmax(dim=1)
        terms = [torch.eye(len(graph)), graph]
        for _ in range(2, self.weights.shape[1]):
            terms.append(2 * graph @ terms[-1] - terms[-2])
        weights_NKCO = torch.einsum("nr,rkco->nkco", embedding_NR, self.weights)
        mixed_BNKC = torch.einsum("knm,bmc->bknc", torch.stack(terms), x_BNC).permute(0, 2, 1, 3)
        mapped: Tensor = torch.einsum("bnkc,nkco->bno", mixed_BNKC, weights_NKCO)
        return mapped + embedding_NR @ self.biases


class _Cell(nn.Module):
    """A gated unit of such convolutions."""

    def __init__(self, layer: AdaptiveGRU) -> None:
        super().__init__()
        split = 2 * layer.hidden
        gates = torch.cat([layer.pool_input[..., :split], layer.pool_gates], dim=2)
        candidate = torch.cat([layer.pool_input[..., split:], layer.pool_candidate], dim=2)
        self.gates = _Convolution(gates, layer.pool_bias[:, :split])
        self.candidate = _Convolution(candidate, layer.pool_bias[:, split:])

    def forward(self, x_BNC: Tensor, h_BND: Tensor, embedding_NR: Tensor) -> Tensor:
        joined = torch.cat([x_BNC, h_BND], dim=2)
        z_BND, r_BND = torch.sigmoid(self.gates(joined, embedding_NR)).chunk(2, dim=2)
        c_BND = torch.tanh(self.candidate(torch.cat([x_BNC, z_BND * h_BND], dim=2), embedding_NR))
        return r_BND * h_BND + (1 - r_BND) * c_BND


class _AGCRN(nn.Module):
    """The layers one after the other."""

    def __init__(self, model: AGCRN) -> None:
        super().__init__()
        self.shape, self.hidden = model.shape, model.config.hidden
        self.embedding = taken(model.embedding)
        self.cells = nn.ModuleList(_Cell(layer) for layer in model.layers)  # type: ignore[arg-type] # are of that class
        self.regression = linear(model.regression.weight, model.regression.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, num_steps, num_nodes, _ = x.shape
        for cell in self.cells:
            h_BND, states = x.new_zeros(batch, num_nodes, self.hidden), []
            for step in range(num_steps):
                h_BND = cell(x[:, step], h_BND, self.embedding)
                states.append(h_BND)
            x = torch.stack(states, dim=1)
        forecast: Tensor = self.regression(x[:, -1])
        return forecast.view(batch, num_nodes, self.shape.horizon, -1).transpose(1, 2)


def build_agcrn(model: AbstractModel, supports: Supports) -> nn.Module:  # noqa: ARG001 - a `Rival`
    """Of an `AGCRN` whose graph is dense."""
    assert isinstance(model, AGCRN)
    return _AGCRN(model)
