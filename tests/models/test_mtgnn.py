"""MTGNN against a dense float64 reference, its learned graph, and what its docstring promises."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.memory import LiveBytes
from pgti.models import MTGNN, MTGNNConfig, build_model
from pgti.nn import ChunkLimits

from .dense_reference import affine, assert_equals_reference, regression
from .small_models import (
    FLOAT64,
    build,
    count_parameters,
    inputs,
    metr_la_shape,
    shape,
    supports_of,
)

KERNELS = (2, 3, 6, 7)


def reference_graph(model: MTGNN) -> Tensor:
    """A = relu(tanh(alpha (M1 M2^T - M2 M1^T))), all but the k largest of a row set to zero."""
    learner, alpha = model.graph, model.config.alpha
    first = torch.tanh(alpha * affine(learner.source, learner.source_embedding))
    second = torch.tanh(alpha * affine(learner.target, learner.target_embedding))
    full = torch.relu(torch.tanh(alpha * (first @ second.t() - second @ first.t())))
    rows = []
    for row in full:
        smallest = row.sort(descending=True).values[: model.config.neighbours][-1]
        rows.append(torch.where(row >= smallest, row, 0.0))
    return torch.stack(rows)


def reference_hops(x: Tensor, graph: Tensor, weight: Tensor, bias: Tensor, beta: float) -> Tensor:
    """One direction for one sample, [L, N, C], step by step."""
    with_loops = graph + torch.eye(len(graph), dtype=graph.dtype)
    walk = with_loops / with_loops.sum(dim=1, keepdim=True)
    steps = []
    for step in x:
        state, output = step, bias + step @ weight[0]
        for hop in weight[1:]:
            state = beta * step + (1 - beta) * walk @ state
            output = output + state @ hop
        steps.append(output)
    return torch.stack(steps)


def reference_inception(layer: nn.Module, x: Tensor, dilation: int) -> Tensor:
    """tanh(filter) . sigmoid(gate) for one sample, kernel by kernel, the newest steps kept."""
    weights = [layer.get_parameter(f"weights.{index}") for index in range(4)]
    biases = [layer.get_parameter(f"biases.{index}") for index in range(4)]
    halves = []
    for half in range(2):
        parts = []
        for taps, weight, bias in zip(KERNELS, weights, biases, strict=True):
            steps = [
                bias[half]
                + sum(
                    x[last - back * dilation] @ weight[-1 - back, :, half] for back in range(taps)
                )
                for last in range(6 * dilation, len(x))
            ]
            parts.append(torch.stack(steps))
        halves.append(torch.cat(parts, dim=-1))
    return torch.tanh(halves[0]) * torch.sigmoid(halves[1])


def all_steps(layer: nn.Module, x: Tensor) -> Tensor:
    """A map of all steps and channels of a node: [L, N, C] -> [N, S]."""
    weight_SLC = layer.get_parameter("weight").unflatten(1, (len(x), -1))
    return torch.einsum("slc,lnc->ns", weight_SLC, x) + layer.get_parameter("bias")


def reference_layer(
    layer: nn.Module, x: Tensor, graph: Tensor, beta: float, dilation: int
) -> tuple[Tensor, Tensor]:
    """One layer for one sample, and its skip connection."""
    z = reference_inception(layer.get_submodule("inception"), x, dilation)
    weight, bias = layer.get_parameter("hop_weight"), layer.get_parameter("hop_bias")
    y = x[-len(z) :]
    for direction, edges in enumerate((graph, graph.t())):
        y = y + reference_hops(z, edges, weight[direction], bias[direction], beta)
    norm = layer.get_submodule("norm")
    deviation = y - y.mean()
    y = deviation / torch.sqrt(deviation.square().mean() + 1e-5)
    gain_LNC, offset_LNC = (norm.get_parameter(name).transpose(0, 1) for name in ("weight", "bias"))
    return y * gain_LNC + offset_LNC, all_steps(layer.get_submodule("skip"), z)


def reference(model: MTGNN, x: Tensor) -> Tensor:
    """The whole model, sample by sample."""
    graph, config = reference_graph(model), model.config
    samples = []
    for sample in x:
        missing = max(0, config.receptive_field - len(sample))
        padded = torch.cat([sample.new_zeros(missing, *sample.shape[1:]), sample])
        skips = all_steps(model.first_skip, padded)
        state = affine(model.entrance, padded)
        for index, layer in enumerate(model.layers):
            dilation = config.dilation_growth**index
            state, skip = reference_layer(layer, state, graph, config.beta, dilation)
            skips = skips + skip
        skips = (skips + all_steps(model.last_skip, state)).clamp(min=0)
        hidden = affine(model.end, skips).clamp(min=0)
        samples.append(regression(model, hidden))
    return torch.stack(samples)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, {}),
        ({"layers": 3, "hops": 1, "neighbours": 20, "beta": 0.3}, {}),  # more than there are nodes
        ({"hops": 3}, {"num_nodes": 30}),  # few enough neighbours for sparse products
        ({"dilation_growth": 2, "layers": 2}, {"input_steps": 21}),  # longer than it needs
    ],
)
def test_forecasts_and_gradients_equal_the_dense_reference(
    options: dict[str, object], sizes: dict[str, object]
) -> None:
    """In evaluation, where dropout does nothing, in float64; embeddings have gradients too."""
    of_data = shape(**sizes)
    model = build("mtgnn", of_data, **options).double()
    assert isinstance(model, MTGNN)
    supports = supports_of(model, SensorGraph.empty(of_data.num_nodes))
    x = inputs(FLOAT64, of_data)
    assert_equals_reference(model, x, reference, supports=supports, atol=1e-10)


def edges_of(model: MTGNN) -> tuple[Tensor, Tensor]:
    """The two operators as dense matrices: along the edges, and against them."""
    graph = model.graph()
    return (
        graph.neighbours.matrix(graph.along_NK).to_dense(),
        graph.neighbours.matrix(graph.against_NK, transposed=True).to_dense(),
    )


def with_nodes(num_nodes: int, **options: object) -> MTGNN:
    """A small model with fresh weights."""
    torch.manual_seed(4)
    model = build_model(
        "mtgnn", {"hidden": 4, "embedding": 8, **options}, shape(num_nodes=num_nodes)
    )
    assert isinstance(model, MTGNN)
    return model


@pytest.mark.parametrize("num_nodes", [12, 60])
def test_the_learned_graph_is_sparse_directed_and_normalised(num_nodes: int) -> None:
    """At most k edges a row beside the loop, none of them both ways, rows that sum to one."""
    with torch.no_grad():
        along, against = edges_of(with_nodes(num_nodes, neighbours=5, alpha=0.5))
    loops = torch.eye(num_nodes, dtype=torch.bool)
    edges = (along > 1e-6) & ~loops
    assert edges.sum(dim=1).max() == 5
    assert not (edges & edges.t()).any()
    assert torch.equal((against > 1e-6) & ~loops, edges.t())
    for operator in (along, against):
        assert (operator.diagonal() > 0).all()
        torch.testing.assert_close(operator.sum(dim=1), torch.ones(num_nodes))


def test_neighbours_are_chosen_where_weights_are_saturated() -> None:
    """Weights that all round to 1 are still told apart by what saturates them."""
    model = with_nodes(30, neighbours=3, alpha=50.0)
    graph = model.graph()
    first = torch.tanh(50 * model.graph.source(model.graph.source_embedding))
    second = torch.tanh(50 * model.graph.target(model.graph.target_embedding))
    scores = first @ second.t() - second @ first.t()
    assert ((torch.tanh(50 * scores) == 1).sum(dim=1) > 3).all()
    chosen = scores.gather(1, graph.neighbours.index_NK[:, 1:])
    smallest = scores.topk(3, dim=1).values[:, -1]
    assert (chosen.min(dim=1).values >= smallest - 1e-4).all()


@pytest.mark.parametrize("alpha", [3.0, 0.5])
def test_the_papers_alpha_saturates_every_weight(alpha: float) -> None:
    """As the docstring says: embeddings have no gradient with 3, and a good one with 0.5."""
    model = with_nodes(303, hidden=4, embedding=40, alpha=alpha)
    graph = model.graph()
    weights = (graph.along_NK / graph.along_NK[:, :1])[:, 1:]
    is_saturated = alpha == 3
    assert (weights == 1).all() == is_saturated
    assert weights.min() == 1 if is_saturated else 0.2 < weights.min() < weights.max() < 1
    (graph.along_NK * torch.randn_like(graph.along_NK)).sum().backward()
    gradient = model.graph.source_embedding.grad
    assert gradient is not None
    assert (gradient == 0).all() == is_saturated


def test_no_matrix_of_all_pairs_is_alive() -> None:
    """A step on 2,000 nodes keeps and makes less than one N x N matrix at a time."""
    num_nodes = 2000
    sizes = shape(num_nodes=num_nodes, input_steps=1, horizon=1)
    options = {"hidden": 4, "skip_channels": 4, "end_channels": 4, "embedding": 4, "layers": 1}
    model = build_model("mtgnn", {"neighbours": 5, **options}, sizes)
    supports = supports_of(model, SensorGraph.empty(num_nodes))
    x = inputs(sizes=sizes, batch=1)
    model.limits = ChunkLimits(scores=100 * num_nodes)
    with LiveBytes() as memory:
        model(x, supports).sum().backward()
    assert memory.peak_bytes < 4 * num_nodes**2


def dropout_zeros(model: MTGNN) -> Iterator[float]:
    """The share of zeros among what goes into each skip connection."""
    shares: dict[str, float] = {}

    def record(name: str) -> None:
        def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            shares[name] = float((given[0] == 0).double().mean())

        model.get_submodule(name).register_forward_pre_hook(hook)

    for name in ("first_skip", "layers.0.skip", "layers.1.skip", "last_skip"):
        record(name)
    model(torch.ones(400, 12, 7, 5), supports_of(model))
    yield from shares.values()


def test_dropout_is_where_the_paper_has_it() -> None:
    """In training: of the input of the first skip connection and of every z, nowhere else."""
    sizes = shape()
    padding = 1 - 12 / 13
    model = build("mtgnn", sizes, dropout=0.4)
    assert isinstance(model, MTGNN)
    assert model.config.receptive_field == 13
    assert list(dropout_zeros(model)) == pytest.approx([padding, 0, 0, 0], abs=1e-9)
    shares = list(dropout_zeros(model.train()))
    assert shares == pytest.approx([padding + 0.4 * (1 - padding), 0.4, 0.4, 0], abs=0.02)


def test_the_sensors_graph_is_not_used() -> None:
    """Whatever it is, forecasts are the same."""
    model, x = build("mtgnn"), inputs()
    assert torch.equal(
        model(x, supports_of(model)), model(x, supports_of(model, SensorGraph.empty(7)))
    )


def test_parameters_are_as_many_as_published() -> None:
    """405,452 on METR-LA, but for three maps of 32 to 32 channels that are never used there."""
    model = build_model("mtgnn", {}, metr_la_shape())
    expected = 405_452 - 3 * (32 * 32 + 32)
    assert count_parameters(model) == expected == 402_284


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 30}, "hidden is 30: it must be a multiple of 4"),
        ({"neighbours": 0}, "neighbours is 0: it must be at least 1"),
        ({"beta": 1.0}, r"beta is 1\.0: it must be below 1"),
        ({"alpha": 0.0}, r"alpha is 0\.0: it must be positive and finite"),
        ({"alpha": float("inf")}, "alpha is inf: it must be positive and finite"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    """One line with the option, its value and the rule."""
    with pytest.raises(ConfigError, match=message):
        MTGNNConfig(**options)  # type: ignore[arg-type]
