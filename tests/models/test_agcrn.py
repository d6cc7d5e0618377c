"""AGCRN against a reference that makes the weights of every node from the paper's equations."""

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.memory import LiveBytes
from pgti.models import AGCRN, AGCRNConfig, ModelShape, build_config
from pgti.nn import ChunkLimits

from . import cases
from .cases import FLOAT64, HORIZON, NUM_NODES, TARGETS, inputs, supports_of


def build(**options: object) -> AGCRN:
    """A small model away from its start, weights and embeddings large enough to matter."""
    model = cases.build("agcrn", cases.shape(input_steps=4), **options)
    assert isinstance(model, AGCRN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.double()


def reference_polynomials(model: AGCRN) -> list[Tensor]:
    """T_k of the learned N x N matrix."""
    embedding = model.embedding
    if model.config.adjacency == "low-rank":
        reads = torch.exp(embedding) / torch.exp(embedding).sum(dim=1, keepdim=True)
        matrix = reads @ (torch.exp(embedding) / torch.exp(embedding).sum(dim=0)).T
    else:
        weights = torch.exp(torch.clamp(embedding @ embedding.T, min=0))
        matrix = weights / weights.sum(dim=1, keepdim=True)
    terms = [torch.eye(NUM_NODES, dtype=FLOAT64), matrix]
    while len(terms) < model.config.order:
        terms.append(2 * matrix @ terms[-1] - terms[-2])
    return terms


def reference_cell(
    layer: nn.Module, embedding: Tensor, terms: list[Tensor], x: Tensor, h: Tensor
) -> Tensor:
    """One step of one layer for one sample, node by node: x [N, C], h [N, D]."""
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
    zr = 1 / (1 + torch.exp(-convolve(h, of_gates, bias[:, : 2 * size])))
    z, r = zr[:, :size], zr[:, size:]
    c = torch.tanh(convolve(z * h, of_c, bias[:, 2 * size :]))
    return r * h + (1 - r) * c


def reference(model: AGCRN, x: Tensor) -> Tensor:
    """The whole model: sample by sample, layer by layer, step by step."""
    terms, forecasts = reference_polynomials(model), []
    for sample in x:
        signals = list(sample)
        for layer in model.layers:
            state, states = x.new_zeros(NUM_NODES, model.config.hidden), []
            for signal in signals:
                state = reference_cell(layer, model.embedding, terms, signal, state)
                states.append(state)
            signals = states
        flat = signals[-1] @ model.regression.weight.T + model.regression.bias
        forecasts.append(flat.view(NUM_NODES, HORIZON, TARGETS).transpose(0, 1))
    return torch.stack(forecasts)


@pytest.mark.parametrize(
    ("adjacency", "order", "layers", "stored"),
    [
        ("dense", 2, 2, 1 << 24),
        ("dense", 3, 1, 0),
        ("low-rank", 2, 2, 0),
        ("low-rank", 3, 1, 1 << 24),
    ],
)
def test_forecasts_and_gradients_equal_the_reference(
    adjacency: str, order: int, layers: int, stored: int
) -> None:
    """With both forms of the graph, and with weights of nodes stored or computed when needed."""
    model = build(adjacency=adjacency, order=order, layers=layers)
    model.limits = ChunkLimits(stored_weights=stored)
    x = inputs(FLOAT64, sizes=model.shape).requires_grad_()
    found = model(x, supports_of(model))
    expected = reference(model, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    wanted, seed = (x, *model.parameters()), torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, seed),
        torch.autograd.grad(expected, wanted, seed),
        rtol=1e-9,
        atol=1e-10,
    )


def test_evaluation_in_parts_of_the_sequence_changes_nothing() -> None:
    """A step at a time or all at once."""
    model = build()
    x = inputs(FLOAT64, sizes=model.shape)
    expected = model(x, supports_of(model))
    model.limits = ChunkLimits(activations=1)
    with torch.no_grad():
        torch.testing.assert_close(model(x, supports_of(model)), expected, rtol=1e-12, atol=1e-12)


def test_every_node_has_weights_of_its_own() -> None:
    """Two nodes with the same readings forecast differently, unless they share the embedding."""
    model = build()
    x = inputs(FLOAT64, sizes=model.shape)
    x[:, :, 1] = x[:, :, 0]
    apart = model(x, supports_of(model))
    assert not torch.isclose(apart[:, :, 0], apart[:, :, 1]).any()
    with torch.no_grad():
        model.embedding[1] = model.embedding[0]
    same = model(x, supports_of(model))
    torch.testing.assert_close(same[:, :, 0], same[:, :, 1])


def test_parameters_are_as_many_as_published() -> None:
    """751,650 on METR-LA: embeddings, pools of weights and biases, the affine map."""
    shape = ModelShape(
        input_steps=12,
        horizon=12,
        num_nodes=207,
        input_channels=2,
        target_channels=1,
        target_indices=(0,),
        calendar=("time-of-day",),
    )
    model = AGCRN(AGCRNConfig(), shape)
    layers = sum(10 * (2 * (channels + 64) + 1) * 3 * 64 for channels in (2, 64))
    expected = 207 * 10 + layers + 64 * 12 + 12
    assert sum(parameter.numel() for parameter in model.parameters()) == expected == 751_650


def test_recomputation_takes_a_fraction_of_the_memory() -> None:
    """A quarter stays alive between the passes."""
    model = AGCRN(AGCRNConfig(hidden=16, embedding=2), cases.shape())
    supports, x = supports_of(model), inputs(batch=64)

    def kept_bytes() -> int:
        with LiveBytes() as memory:
            forecast = model(x, supports)
            kept = memory.alive_bytes
            forecast.sum().backward()
        return kept

    kept = kept_bytes()
    model.activation_checkpointing = True
    fewer = kept_bytes()
    assert fewer < kept / 4, (fewer, kept)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 1}, "order is 1: it must be at least 2"),
        ({"embedding": 0}, "embedding is 0"),
        ({"adjacency": "none"}, "adjacency is 'none': choose one of auto, dense, low-rank"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=words):
        build_config("agcrn", options)
