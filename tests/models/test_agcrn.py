"""AGCRN against a reference that makes the weights of every node from the paper's equations."""

import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.models import AGCRN, AGCRNConfig, build_config
from pgti.nn import ChunkLimits

from . import small_models
from .dense_reference import (
    adaptive_gru_step,
    assert_equals_reference,
    chebyshev,
    dense_adjacency,
    regression,
)
from .small_models import (
    FLOAT64,
    NUM_NODES,
    count_parameters,
    inputs,
    measure_memory,
    metr_la_shape,
    supports_of,
)


def build(**options: object) -> AGCRN:
    """A small model away from its start, weights and embeddings large enough to matter."""
    model = small_models.build("agcrn", small_models.shape(input_steps=4), **options)
    assert isinstance(model, AGCRN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.double()


def reference(model: AGCRN, x: Tensor) -> Tensor:
    """The whole model: sample by sample, layer by layer, step by step."""
    adjacency = dense_adjacency(model.embedding, model.embedding, model.config.adjacency)
    terms, forecasts = chebyshev(adjacency, model.config.order), []
    for sample in x:
        signals = list(sample)
        for layer in model.layers:
            state, states = x.new_zeros(NUM_NODES, model.config.hidden), []
            for signal in signals:
                state = adaptive_gru_step(layer, model.embedding, terms, signal, state)
                states.append(state)
            signals = states
        forecasts.append(regression(model, signals[-1]))
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
    assert_equals_reference(model, inputs(FLOAT64, sizes=model.shape), reference, atol=1e-11)


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
    model = AGCRN(AGCRNConfig(), metr_la_shape())
    layers = sum(10 * (2 * (channels + 64) + 1) * 3 * 64 for channels in (2, 64))
    expected = 207 * 10 + layers + 64 * 12 + 12
    assert count_parameters(model) == expected == 751_650


def test_recomputation_takes_a_fraction_of_the_memory() -> None:
    """A quarter stays alive between the passes."""
    model = AGCRN(AGCRNConfig(hidden=16, embedding=2), small_models.shape())
    x = inputs(batch=64)
    stored, _ = measure_memory(model, x)
    model.activation_checkpointing = True
    fewer, _ = measure_memory(model, x)
    assert fewer < stored / 4, (fewer, stored)


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
