"""A3T-GCN against a dense float64 reference, and what its attention is there for."""

import pytest
import torch
from torch import Tensor

from pgti.models import A3TGCN

from .dense_reference import assert_equals_reference, regression
from .small_models import FLOAT64, INPUT_STEPS, build, count_parameters, inputs, shape, supports_of
from .test_tgcn import reference_states


def build_a3tgcn(seed: int = 0) -> A3TGCN:
    """A small A3T-GCN, in float64, that knows no time of day or week."""
    sizes = shape(input_channels=3, calendar=())
    model = build("a3tgcn", sizes, seed=seed).double()
    assert isinstance(model, A3TGCN)
    return model


def readings() -> Tensor:
    """Inputs without a calendar, float64."""
    return inputs(FLOAT64, shape(input_channels=3, calendar=()))


def reference_context(model: A3TGCN, states: list[Tensor]) -> Tensor:
    """Scores, softmax over time and sum, one sensor after the other: [N, D]."""
    (first, _, second), contexts = model.score, []
    for states_of_node in torch.stack(states, dim=1):
        scores = []
        for state in states_of_node:
            units = torch.tanh(first.weight @ state + first.bias)
            scores.append((second.weight @ units).squeeze())
        shares = [torch.exp(score) for score in scores]
        context = torch.zeros_like(states_of_node[0])
        for share, state in zip(shares, states_of_node, strict=True):
            context = context + share / sum(shares) * state
        contexts.append(context)
    return torch.stack(contexts)


def reference(model: A3TGCN, x: Tensor) -> Tensor:
    """The whole model, sample by sample."""
    contexts = [reference_context(model, reference_states(model.cell, sample)) for sample in x]
    return torch.stack([regression(model, context) for context in contexts])


def test_forecasts_and_gradients_equal_the_dense_reference() -> None:
    """Outputs and the gradients of all parameters and inputs, in float64."""
    assert_equals_reference(build_a3tgcn(), readings(), reference)


def test_the_state_is_carried_so_the_order_of_time_matters() -> None:
    """Steps in another order give another forecast, and not once nothing is carried on.

    Attention alone does not know the order of what it weighs.
    """
    model, x = build_a3tgcn(), readings()
    supports = supports_of(model).double()
    shuffled = x[:, torch.randperm(INPUT_STEPS, generator=torch.Generator().manual_seed(1))]
    assert (model(shuffled, supports) - model(x, supports)).abs().amax(dim=(0, 1, 3)).min() > 1e-3
    hidden = model.config.hidden
    with torch.no_grad():
        model.cell.bias[hidden : 2 * hidden] = -100.0  # the update gate keeps nothing,
        model.cell.weight_candidate.zero_()  # and the candidate sees no state
    torch.testing.assert_close(model(shuffled, supports), model(x, supports))


def test_equal_scores_give_the_mean_of_the_states() -> None:
    """A perceptron that says 0 weighs all steps alike."""
    model, x = build_a3tgcn(), readings()
    with torch.no_grad():
        model.score[2].weight.zero_()
    means = [torch.stack(reference_states(model.cell, sample)).mean(dim=0) for sample in x]
    expected = torch.stack([regression(model, each) for each in means])
    torch.testing.assert_close(
        model(x, supports_of(model).double()), expected, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_large_scores_do_not_overflow(scale: float) -> None:
    """A sharp softmax picks one state: forecasts stay finite, in float32 too."""
    model, x = build_a3tgcn().float(), readings().float()
    supports = supports_of(model)
    with torch.no_grad():
        model.score[2].weight.mul_(scale)
        assert torch.isfinite(model(x, supports)).all()


def test_parameters_do_not_depend_on_the_graph_or_the_length() -> None:
    """The released code's attention is as wide as N, and its head as L."""
    counts = set()
    for changes in ({}, {"num_nodes": 40}, {"input_steps": 5}):
        model = build("a3tgcn", shape(**changes))
        counts.add(count_parameters(model))
    assert len(counts) == 1
