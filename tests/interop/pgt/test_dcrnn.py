"""PGT's arithmetic against a dense float64 reference: by edge, by term and by sample."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pgti.errors import ConfigError
from pgti.graph import SensorGraph, dual_random_walk
from pgti.interop.pgt import load_pgt_state_dict
from pgti.interop.pgt.layers.dcrnn import LegacyDCRNN, LegacyDCRNNConfig, pgt_operators
from pgti.models import build_model

from ...models.small_models import FLOAT64, asymmetric_graph, build, inputs, shape, supports_of

ONE_TARGET = shape(
    horizon=12, target_channels=1, target_indices=(1,), input_channels=4, calendar=("time-of-day",)
)


def reference_operators(graph: SensorGraph) -> list[Tensor]:
    """Both operators from PGT's sums over lists of edges; what would be 1 / 0 is 0."""
    weights = graph.adjacency.toarray().astype(np.float64)
    num_nodes = len(weights)
    edges = [(r, c) for r in range(num_nodes) for c in range(num_nodes) if weights[r, c] > 0]
    forward, backward = np.zeros_like(weights), np.zeros_like(weights)
    for r, c in edges:
        forward[c, r] += 1 / weights[r].sum()
    reversed_edges = sorted((c, r) for r, c in edges)
    for (source, target), (r, _) in zip(reversed_edges, edges, strict=True):
        in_degree = weights[:, r].sum()
        backward[target, source] += 1 / in_degree if in_degree > 0 else 0
    # Operators are kept in float32.
    return [torch.from_numpy(each.astype(np.float32)).double() for each in (forward, backward)]


def reference_filter(x_NI: Tensor, weight: Tensor, bias: Tensor, operators: list[Tensor]) -> Tensor:
    """PGT's recurrence of terms, in which the first term is subtracted at every step."""
    out = bias.clone()
    for operator, weight_KIO in zip(operators, weight, strict=True):
        term = x_NI
        for k, weight_IO in enumerate(weight_KIO):
            if k == 1:
                term = operator @ x_NI
            elif k > 1:
                term = 2 * operator @ term - x_NI
            out = out + term @ weight_IO
    return out


def reference_states(model: LegacyDCRNN, x_LNC: Tensor, operators: list[Tensor]) -> Tensor:
    """[L, N, D] of one sample."""
    cell, states = model.cell, []
    h = x_LNC.new_zeros(x_LNC.shape[1], model.config.hidden)
    for x_NC in x_LNC:
        z, r = (
            torch.sigmoid(
                reference_filter(torch.cat([x_NC, h], 1), each.weight, each.bias, operators)
            )
            for each in (cell.conv_x_z, cell.conv_x_r)
        )
        reset = torch.cat([x_NC, h * r], 1)
        c = torch.tanh(reference_filter(reset, cell.conv_x_h.weight, cell.conv_x_h.bias, operators))
        h = z * h + (1 - z) * c
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_it_equals_the_dense_reference(hops: int, head: bool) -> None:
    """Forecasts and the gradients of all parameters, with PGT's K = 1 .. 4."""
    model = build("pgt-dcrnn", ONE_TARGET, hops=hops, head=head).double()
    assert isinstance(model, LegacyDCRNN)
    operators, x = reference_operators(asymmetric_graph()), inputs(FLOAT64, ONE_TARGET)
    found = model(x, supports_of(model).double())
    samples = []
    for x_LNC in x:
        states_LND = reference_states(model, x_LNC, operators)
        if model.regression is None:
            samples.append(states_LND[..., [1]])
        else:
            forecast_NH = states_LND[-1] @ model.regression.weight.T + model.regression.bias
            samples.append(forecast_NH.T.unsqueeze(-1))
    expected = torch.stack(samples)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    parameters = dict(model.named_parameters())
    gradients = [
        torch.autograd.grad(each.square().sum(), list(parameters.values()))
        for each in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


def test_its_operators_are_not_random_walks() -> None:
    """Neither conserves what it spreads: columns do not sum to 1."""
    graph = asymmetric_graph()
    for legacy, walk in zip(pgt_operators(graph), dual_random_walk(graph), strict=True):
        assert np.abs(legacy.toarray() - walk.toarray()).max() > 0.1
        columns = np.asarray(legacy.sum(axis=0))
        assert not np.allclose(columns[columns > 0], 1)


def test_operators_hold_finite_numbers_where_pgt_divides_by_zero() -> None:
    """Sensor 0 leads to sensor 1, and nothing leads to sensor 0."""
    forward, backward = pgt_operators(SensorGraph.from_edges(3, [0, 1], [1, 2], [2.0, 4.0]))
    assert forward.toarray().tolist() == [[0, 0, 0], [0.5, 0, 0], [0, 0.25, 0]]
    # Edges by target: 1 <- 0, 2 <- 1, divided by the in-degrees of sensors 0 (none) and 1 (2).
    assert backward.toarray().tolist() == [[0, 0, 0], [0, 0, 0.5], [0, 0, 0]]


def test_state_dicts_of_pgt_load() -> None:
    """Whatever the layer is called in the network around it; the head stays."""
    source, model = build("pgt-dcrnn", seed=0), build("pgt-dcrnn", seed=1)
    assert isinstance(source, LegacyDCRNN)
    assert isinstance(model, LegacyDCRNN)
    head = {key: value.clone() for key, value in model.state_dict().items() if "regress" in key}
    layer = {f"recurrent.{key}": value for key, value in source.cell.state_dict().items()}
    load_pgt_state_dict(model, {**layer, "linear.weight": torch.zeros(1, 6)})
    for key, value in source.cell.state_dict().items():
        assert torch.equal(model.cell.state_dict()[key], value)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in head.items())


def test_other_state_dicts_are_refused() -> None:
    """One line that says which parameter, and what would fit."""
    model = build("pgt-dcrnn")
    assert isinstance(model, LegacyDCRNN)
    layer = {f"a.{key}": value for key, value in model.cell.state_dict().items()}
    with pytest.raises(ConfigError, match="has 0 layers with the parameter 'conv_x_z"):
        load_pgt_state_dict(model, {})
    two = {**layer, **{f"b.{key}": value for key, value in layer.items()}}
    with pytest.raises(ConfigError, match="has 2 layers"):
        load_pgt_state_dict(model, two)
    wrong = {**layer, "a.conv_x_r.weight": torch.zeros(2, 3, 11, 6)}
    with pytest.raises(ConfigError, match=r"a\.conv_x_r\.weight has the shape \(2, 3, 11, 6\)"):
        load_pgt_state_dict(model, wrong)
    del layer["a.conv_x_h.bias"]
    with pytest.raises(ConfigError, match=r"a\.conv_x_h\.bias has the shape None"):
        load_pgt_state_dict(model, layer)


def test_pgts_smallest_example_has_150_parameters() -> None:
    """`BatchedDCRNN(2, 2, K=3)`, which its published examples train, has no head."""
    sizes = shape(
        horizon=12, target_channels=1, target_indices=(0,), input_channels=2,
        calendar=("time-of-day",),
    )  # fmt: skip
    model = build_model("pgt-dcrnn", {"hidden": 2, "hops": 2, "head": False}, sizes)
    assert sum(each.numel() for each in model.parameters()) == 150


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"horizon": 5}, "input_steps is 12 and horizon 5: without a head"),
        ({"target_indices": (2,)}, "hidden is 2 and a target is channel 2: without a head"),
    ],
)
def test_states_that_cannot_be_forecasts_are_refused(
    changes: dict[str, object], words: str
) -> None:
    """Without a head there is one state per input, of the first channels."""
    sizes = shape(**{"horizon": 12, "target_channels": 1, "target_indices": (0,), **changes})
    with pytest.raises(ConfigError, match=words):
        LegacyDCRNN(LegacyDCRNNConfig(hidden=2, head=False), sizes)
