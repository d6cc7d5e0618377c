"""MegaCRN against a reference with dense graphs and all terms of the convolutions."""

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import MegaCRN, MegaCRNConfig, TeacherForcing, build_config
from pgti.models.scheduled_sampling import scheduled_sampling_coins

from . import small_models
from .dense_reference import (
    affine,
    assert_same,
    chebyshev,
    dense_adjacency,
    sigmoid,
)
from .small_models import (
    BATCH,
    FLOAT64,
    NUM_NODES,
    TARGETS,
    count_parameters,
    inputs,
    metr_la_shape,
    supports_of,
)

STEPS, HORIZON = 3, 4
CALENDAR = torch.linspace(0, 0.9, BATCH * (STEPS + HORIZON)).double().view(BATCH, -1, 1)


def build(**options: object) -> MegaCRN:
    """A small model away from its start, with weights large enough to matter."""
    sizes = small_models.shape(
        input_steps=STEPS, horizon=HORIZON, calendar=("time-of-day",), input_channels=4
    )
    model = small_models.build("megacrn", sizes, **options)
    assert isinstance(model, MegaCRN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.double()


def step_of(layer: nn.Module, terms: list[Tensor], x: Tensor, h: Tensor) -> Tensor:
    """One step for one sample: x [N, C], h [N, D]; `terms` of both graphs, the identity twice."""
    size = h.shape[1]
    inputs, bias = layer.get_parameter("weight_input"), layer.get_parameter("bias")

    def convolve(state: Tensor, columns: slice, weight: str) -> Tensor:
        own = torch.cat([inputs[..., columns], layer.get_parameter(weight)], dim=1)
        joined = torch.cat([x, state], dim=1)
        products = zip(terms, own, strict=True)
        return sum((term @ joined @ w for term, w in products), start=bias[columns])

    ru = sigmoid(convolve(h, slice(2 * size), "weight_gates"))
    r, u = ru[:, :size], ru[:, size:]
    c = torch.tanh(convolve(r * h, slice(2 * size, None), "weight_candidate"))
    return u * h + (1 - u) * c


def reference(
    model: MegaCRN, x: Tensor, truths: dict[int, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Forecasts, and the term of the loss, [B, N]: sample by sample, step by step."""
    first, second = model.first_mixture @ model.memory, model.second_mixture @ model.memory
    form, order = model.config.adjacency, model.config.order
    terms = [
        term
        for pair in ((first, second), (second, first))
        for term in chebyshev(dense_adjacency(*pair, form), order)
    ]
    forecasts, losses = [], []
    for number, sample in enumerate(x):
        state = x.new_zeros(NUM_NODES, model.config.hidden)
        for row in sample:
            state = step_of(model.encoder, terms, row[:, :3], state)
        query = state @ model.query
        scores = torch.exp(query @ model.memory.T)
        scores = scores / scores.sum(dim=1, keepdim=True)
        losses.append(torch.stack([_term(model, q, s) for q, s in zip(query, scores, strict=True)]))
        state = torch.cat([state, scores @ model.memory], dim=1)
        fed, steps = x.new_zeros(NUM_NODES, model.shape.target_channels), []
        for step in range(HORIZON):
            time = CALENDAR[number, STEPS + step].expand(NUM_NODES, 1)
            state = step_of(model.decoder, terms, torch.cat([fed, time], dim=1), state)
            fed = affine(model.projection, state)
            steps.append(fed)
            if truths and step in truths:
                fed = truths[step][number]
        forecasts.append(torch.stack(steps))
    return torch.stack(forecasts), torch.stack(losses)


def _term(model: MegaCRN, query: Tensor, scores: Tensor) -> Tensor:
    """Of one sensor; torch adds 1e-6 to the differences, so that norms have gradients."""
    by_score = scores.detach().argsort(descending=True).tolist()
    first, second = (model.memory[index].detach() for index in by_score[:2])
    nearer, other = ((query - each + 1e-6).square().sum().sqrt() for each in (first, second))
    contrast = torch.clamp(nearer - other + 1, min=0)
    consistency = (query - first).square().mean()
    return model.config.contrast * contrast + model.config.consistency * consistency


def teacher_for(x: Tensor, step: int = 0) -> TeacherForcing:
    """Random targets."""
    targets = torch.randn(BATCH, HORIZON, NUM_NODES, TARGETS, dtype=x.dtype)
    return TeacherForcing(targets_BHNC=targets, calendar_BHF=CALENDAR[:, STEPS:], step=step, seed=4)


@pytest.mark.parametrize(("adjacency", "order"), [("dense", 3), ("dense", 2), ("low-rank", 3)])
def test_forecasts_terms_and_gradients_equal_the_reference(adjacency: str, order: int) -> None:
    """With both forms of the graphs; the gradients are those of forecasts and terms together."""
    model = build(adjacency=adjacency, order=order, contrast=0.3, consistency=0.2)
    x = inputs(FLOAT64, sizes=model.shape).requires_grad_()
    teacher = teacher_for(x)
    found = model(x, supports_of(model), teacher, CALENDAR)
    (term,) = teacher.added_losses
    expected, expected_term = reference(model, x)
    assert len(expected_term.unique()) > NUM_NODES
    wanted = (x, *model.parameters())
    assert_same(
        torch.cat([found.flatten(), term.flatten()]),
        torch.cat([expected.flatten(), expected_term.flatten()]),
        wanted,
        atol=1e-11,
    )


def test_terms_are_those_of_training_alone() -> None:
    """Without a teacher there is nothing to add to, and with weights of 0 nothing to add."""
    x = inputs(FLOAT64, sizes=build().shape)
    teacher = teacher_for(x)
    forecasts = build()(x, supports_of(build()), calendar=CALENDAR)
    model = build(contrast=0.0, consistency=0.0)
    assert torch.equal(model(x, supports_of(model), teacher, CALENDAR), forecasts)
    assert not teacher.added_losses


def test_scheduled_sampling_feeds_the_truth_where_the_coin_falls() -> None:
    """As the reference does with those steps."""
    model = build(scheduled_sampling=True, sampling_decay=2.0)
    x = inputs(FLOAT64, sizes=model.shape)
    teacher = teacher_for(x, step=1)
    coins = scheduled_sampling_coins(teacher.seed, teacher.step, HORIZON, 2.0)
    assert set(coins[:-1]) == {True, False}
    targets = teacher.targets_BHNC
    truths = {index: targets[:, index] for index, coin in enumerate(coins) if coin}
    found = model(x, supports_of(model), teacher, CALENDAR)
    expected, _ = reference(model, x, truths)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def test_parameters_are_as_many_as_in_the_released_code() -> None:
    """388,761 on METR-LA: memory and mixtures, two layers, the map."""
    model = MegaCRN(MegaCRNConfig(), metr_la_shape())
    memory = 20 * 64 + 64 * 64 + 2 * 207 * 20
    encoder, decoder = ((6 * (c + d) + 1) * 3 * d for c, d in ((1, 64), (2, 128)))
    assert count_parameters(model) == memory + encoder + decoder + 128 + 1 == 388_761


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prototypes": 1}, "prototypes is 1: it must be at least 2"),
        ({"contrast": -0.1}, "contrast is -0.1: it must be at least 0"),
        ({"consistency": float("inf")}, "consistency is inf: it must be finite"),
        ({"adjacency": "none"}, "adjacency is 'none': choose one of auto, dense, low-rank"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=words):
        build_config("megacrn", options)
