"""Dense float64 references: operators as matrices, layers from their definitions, comparison."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pgti.graph import SensorGraph
from pgti.models import AbstractModel
from pgti.nn import Supports

from .small_models import STEPS_PER_DAY, supports_of

Model = TypeVar("Model", bound=AbstractModel)


def assert_same(
    found: Tensor,
    expected: Tensor,
    wanted: Sequence[Tensor],
    *,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    looser: float = 10,
) -> None:
    """Compare values, and gradients of `wanted` with `looser` times the tolerance."""
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    seed = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, seed),
        torch.autograd.grad(expected, wanted, seed),
        rtol=looser * rtol,
        atol=looser * atol,
    )


def assert_equals_reference(
    model: Model,
    x: Tensor,
    reference: Callable[[Model, Tensor], Tensor],
    *,
    supports: Supports | None = None,
    atol: float = 1e-12,
) -> None:
    """Compare forecasts, and the gradients of all parameters and inputs, in float64."""
    x = x.detach().requires_grad_()
    supports = supports_of(model) if supports is None else supports
    found = model(x, supports.double())
    assert_same(found, reference(model, x), (x, *model.parameters()), atol=atol)


def round_as_supports(matrix: np.ndarray) -> Tensor:
    """Operators are stored in float32."""
    return torch.from_numpy(matrix.astype(np.float32)).double()


def dense_walks(graph: SensorGraph) -> list[Tensor]:
    """(D_out^-1 A)^T and (D_in^-1 A^T)^T from the definition."""
    adjacency, walks = graph.adjacency.toarray().astype(np.float64), []
    for weights in (adjacency, adjacency.T):
        degrees = weights.sum(axis=1, keepdims=True)
        walk = np.where(degrees > 0, weights / np.where(degrees > 0, degrees, 1), 0).T
        walks.append(round_as_supports(walk))
    return walks


def powers(matrices: Sequence[Tensor], hops: int) -> list[Tensor]:
    """The identity, and the first powers of each matrix."""
    return [torch.eye(len(matrices[0]), dtype=torch.float64)] + [
        torch.linalg.matrix_power(matrix, k) for matrix in matrices for k in range(1, hops + 1)
    ]


def dense_adjacency(source: Tensor, target: Tensor, form: str) -> Tensor:
    """softmax(relu(E1 E2^T)) by rows, or the low-rank form."""
    if form == "low-rank":
        reads = torch.exp(source) / torch.exp(source).sum(dim=1, keepdim=True)
        return reads @ (torch.exp(target) / torch.exp(target).sum(dim=0)).T
    weights = torch.exp(torch.clamp(source @ target.T, min=0))
    return weights / weights.sum(dim=1, keepdim=True)


def chebyshev(matrix: Tensor, number: int) -> list[Tensor]:
    """T_0 .. of a matrix, at least two of them."""
    terms = [torch.eye(len(matrix), dtype=matrix.dtype), matrix]
    while len(terms) < number:
        terms.append(2 * matrix @ terms[-1] - terms[-2])
    return terms


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def adaptive_gru_step(
    layer: nn.Module, embedding: Tensor, terms: list[Tensor], x: Tensor, h: Tensor
) -> Tensor:
    """One step of an `AdaptiveGRU` for one sample, node by node: x [N, C], h [N, D].

    Node n has the weights of row n of `embedding`; `terms` are the polynomials of the graph.
    """
    pools = dict(layer.named_parameters())
    size, channels = h.shape[1], x.shape[1]
    of_gates = torch.cat([pools["pool_input"][..., : 2 * size], pools["pool_gates"]], dim=2)
    of_c = torch.cat([pools["pool_input"][..., 2 * size :], pools["pool_candidate"]], dim=2)

    def convolve(state: Tensor, pool: Tensor, bias_pool: Tensor) -> Tensor:
        joined = torch.cat([x, state], dim=1)
        assert joined.shape[1] == channels + size == pool.shape[2]
        nodes = []
        for node, own in enumerate(embedding):
            output = own @ bias_pool
            for k, term in enumerate(terms):
                weight = sum(own[r] * pool[r, k] for r in range(len(own)))
                output = output + term[node] @ joined @ weight
            nodes.append(output)
        return torch.stack(nodes)

    bias = pools["pool_bias"]
    zr = sigmoid(convolve(h, of_gates, bias[:, : 2 * size]))
    z, r = zr[:, :size], zr[:, size:]
    c = torch.tanh(convolve(z * h, of_c, bias[:, 2 * size :]))
    return r * h + (1 - r) * c


def affine(layer: nn.Module, x: Tensor) -> Tensor:
    """A `Linear`, of the last axis."""
    return x @ layer.get_parameter("weight").T + layer.get_parameter("bias")


def layer_norm(layer: nn.Module, x_TD: Tensor) -> Tensor:
    """Of each token, with a gain and an offset for each channel."""
    centered = x_TD - x_TD.mean(dim=1, keepdim=True)
    variance = centered.square().mean(dim=1, keepdim=True)
    scaled = centered / torch.sqrt(variance + 1e-5)
    return scaled * layer.get_parameter("weight") + layer.get_parameter("bias")


def regression(model: AbstractModel, state_ND: Tensor) -> Tensor:
    """All steps of one sample from the states of its nodes, [H, N, C_out]."""
    flat = affine(model.get_submodule("regression"), state_ND)
    return flat.unflatten(1, (model.shape.horizon, -1)).transpose(0, 1)


def calendar_vectors(
    model: AbstractModel, row: int, owner: nn.Module | None = None
) -> list[Tensor]:
    """The embeddings of the time of day and the day of the week, where the input has them.

    Args:
        model: with a `CalendarEmbedding`.
        owner: the part of the model that has it; by default the model.
        row: of the series, as `small_models.inputs` counts them.
    """
    places = {
        "time-of-day": ("calendar.time_of_day.weight", row % STEPS_PER_DAY),
        "day-of-week": ("calendar.day_of_week.weight", row // STEPS_PER_DAY % 7),
    }
    return [
        (owner or model).get_parameter(table)[place]
        for name, (table, place) in places.items()
        if name in model.shape.calendar
    ]
