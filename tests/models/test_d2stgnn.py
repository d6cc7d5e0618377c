"""D2STGNN against a dense float64 reference after the released code, with graphs once per step."""

import math

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import D2STGNN, D2STGNNConfig, num_parameters

from .dense_reference import (
    affine,
    assert_same,
    calendar_vectors,
    dense_walks,
    layer_norm,
    sigmoid,
)
from .small_models import (
    BATCH,
    FLOAT64,
    HORIZON,
    NUM_NODES,
    TARGETS,
    asymmetric_graph,
    build,
    inputs,
    metr_la_shape,
    shape,
    supports_of,
)


def build_d2stgnn(**options: object) -> D2STGNN:
    """A small D2STGNN without dropout, its running statistics away from their first values."""
    model = build("d2stgnn", **{"dropout": 0.0, **options})
    assert isinstance(model, D2STGNN)
    norm = model.graphs.norm
    for name in ("running_mean", "running_var"):
        norm.get_buffer(name).add_(0.5 * torch.rand(norm.num_features))
    return model.double()


def softmax(scores: Tensor) -> Tensor:
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    return weights / weights.sum(dim=-1, keepdim=True)


class Reference:
    """The released network for one sample with a model's weights, tensors [L, N, D]."""

    def __init__(self, model: D2STGNN, x: Tensor) -> None:
        self.model, self.config = model, model.config
        hidden = self.expand(x)
        self.means, self.variances = (
            model.graphs.norm.get_buffer(name) for name in ("running_mean", "running_var")
        )
        if model.training:  # of all rows of the batch
            self.means = hidden.mean(dim=(0, 1))
            self.variances = hidden.var(dim=(0, 1), correction=0)

    def expand(self, x: Tensor) -> Tensor:
        """[.., N, 2 D] of windows [.., L, N, C]."""
        windows = x[..., :3].transpose(-3, -2).flatten(-2)
        return affine(self.model.graphs.expansion, windows).clamp(min=0)

    def graphs(self, x: Tensor, times: Tensor) -> list[Tensor]:
        """All graphs in the order of the weights, [N, N]: the dynamic ones, then the learned."""
        part, model = self.model.graphs, self.model
        normed = (self.expand(x) - self.means) / torch.sqrt(self.variances + 1e-5)
        window = affine(part.contraction, normed * part.norm.weight + part.norm.bias)
        graphs = []
        for walk, vectors in zip(
            dense_walks(asymmetric_graph()),
            (model.target_embedding, model.source_embedding),
            strict=True,
        ):
            features = torch.cat([window, times.expand(NUM_NODES, -1), vectors], dim=1)
            query, key = features @ part.query.weight.T, features @ part.key.weight.T
            attention = softmax(query @ key.T / math.sqrt(self.config.hidden))
            masked = attention * (walk + 1e-7)
            graphs.append(masked / masked.sum(dim=1, keepdim=True))
        graphs.append(softmax((model.source_embedding @ model.target_embedding.T).clamp(min=0)))
        off = 1 - torch.eye(NUM_NODES, dtype=FLOAT64)
        return [
            torch.linalg.matrix_power(graph, power) * off
            for graph in graphs
            for power in range(1, self.config.hops + 1)
        ]

    def convolve(self, block: nn.Module, steps: Tensor, graphs: list[Tensor]) -> Tensor:
        """[N, D] from `kernel` steps: every step meets every graph."""
        width, kernel = self.config.hidden, self.config.kernel
        joined = torch.cat(list(steps), dim=1)
        local = (joined @ block.get_parameter("local.weight").T).clamp(min=0)
        parts = [local[:, step * width :][:, :width] for step in range(kernel)]
        tiled, stacked = [torch.cat([graph] * kernel, dim=1) for graph in graphs], torch.cat(parts)
        mixed = [torch.stack(parts).mean(dim=0), *(graph @ stacked for graph in tiled)]
        return affine(block.get_submodule("mixing"), torch.cat(mixed, dim=1))

    def diffuse(
        self, block: nn.Module, h: Tensor, gated: Tensor, graphs: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """What is left, and the future's states."""
        kernel = self.config.kernel
        steps = range(len(h) - kernel + 1)
        states = [self.convolve(block, gated[step : step + kernel], graphs) for step in steps]
        future = [states[-1]]
        while len(future) < -(-HORIZON // self.config.gap):
            recent = [*gated[1 - kernel :], *future][-kernel:]
            future.append(self.convolve(block, torch.stack(recent), graphs))
        backcast = affine(block.get_submodule("backcast"), torch.stack(states)).clamp(min=0)
        left = h[kernel - 1 :] - backcast
        return self.normalize(block.get_submodule("norm"), left), future

    def normalize(self, norm: nn.Module, x: Tensor) -> Tensor:
        """LayerNorm of every token."""
        return layer_norm(norm, x.flatten(0, 1)).view(x.shape)

    def step(self, cell: nn.Module, x: Tensor, h: Tensor) -> Tensor:
        """Torch's GRU."""
        part, width = cell.get_parameter, self.config.hidden
        into = (x @ part("weight_ih").T + part("bias_ih")).split(width, dim=1)
        own = (h @ part("weight_hh").T + part("bias_hh")).split(width, dim=1)
        r, u = sigmoid(into[0] + own[0]), sigmoid(into[1] + own[1])
        return (1 - u) * torch.tanh(into[2] + r * own[2]) + u * h

    def attend(self, block: nn.Module, query: Tensor, states: Tensor) -> Tensor:
        """[N, D]: one query of every sensor, to its states [S, N, D]."""
        width, size = self.config.hidden, self.config.hidden // self.config.heads
        maps, read = block.get_submodule("query_key_value"), []
        asked, kept = affine(maps, query), affine(maps, states)
        for head in range(self.config.heads):
            place = slice(head * size, (head + 1) * size)
            keys, values = kept[..., width : 2 * width], kept[..., 2 * width :]
            scores = (asked[None, :, :width] * keys)[..., place].sum(dim=2) / math.sqrt(size)
            weights = softmax(scores.T)
            read.append((weights.T[..., None] * values[..., place]).sum(dim=0))
        return affine(block.get_submodule("attended"), torch.cat(read, dim=1))

    def inherit(self, block: nn.Module, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What is left, and the future's states."""
        cell, state, states = block.get_submodule("cell"), torch.zeros_like(h[0]), []
        for x in h:
            state = self.step(cell, x, state)
            states.append(state)
        kept = self.encode(torch.stack(states))
        read = torch.stack([self.attend(block, query, kept) for query in kept])
        future = [read[-1]]
        while len(future) < -(-HORIZON // self.config.gap):
            state = self.step(cell, future[-1], kept[-1])
            kept = self.encode(torch.cat([kept, state[None]]))
            future.append(self.attend(block, state, kept))
        if not hasattr(block, "backcast") or block.backcast is None:
            return h, future
        backcast = affine(block.get_submodule("backcast"), read).clamp(min=0)
        return self.normalize(block.get_submodule("norm"), h - backcast), future

    def encode(self, states: Tensor) -> Tensor:
        """Sine and cosine of every position, added."""
        width = self.config.hidden
        rows = [
            [
                (math.cos if channel % 2 else math.sin)(
                    place / 10_000 ** (channel // 2 * 2 / width)
                )
                for channel in range(width)
            ]
            for place in range(len(states))
        ]
        return states + torch.tensor(rows, dtype=torch.float32).double()[:, None]

    def sample(self, x: Tensor, first_row: int) -> Tensor:
        """[H, N, C_out] from one window [L, N, C]."""
        model, config = self.model, self.config
        own = torch.cat([model.source_embedding, model.target_embedding], dim=1)
        rows = range(first_row, first_row + len(x))
        times = torch.stack([torch.cat(calendar_vectors(model, row)) for row in rows])
        graphs = self.graphs(x, times[-1])
        missing = max(0, config.receptive_field - len(x))
        x, times = (torch.cat([each[:1]] * missing + [each]) for each in (x, times))
        h, total = affine(model.entrance, x[..., :3]), []
        for layer in model.layers:
            part, gated = layer.get_submodule, []
            for step, time in zip(h, times[len(times) - len(h) :], strict=True):
                joined = torch.cat([time.expand(NUM_NODES, -1), own], dim=1)
                units = affine(part("gate"), joined).clamp(min=0)
                gated.append(step * sigmoid(affine(part("gate_end"), units)))
            h, diffused = self.diffuse(part("diffusion"), h, torch.stack(gated), graphs)
            h, inherent = self.inherit(part("inherent"), h)
            total.append(affine(part("diffusion.forecast"), torch.stack(diffused)))
            total.append(affine(part("inherent.forecast"), torch.stack(inherent)))
        state = affine(model.end, torch.stack(total).sum(dim=0).clamp(min=0)).clamp(min=0)
        forecast = affine(model.regression, state).view(-1, NUM_NODES, config.gap, TARGETS)
        return forecast.transpose(1, 2).flatten(0, 1)[:HORIZON]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rows", [12, 3])
def test_forecasts_and_gradients_equal_the_reference(training: bool, rows: int) -> None:
    """Also a window shorter than the receptive field, and the statistics of a batch."""
    sizes = shape(input_steps=rows)
    model = build("d2stgnn", sizes, dropout=0.0).double().train(training)
    assert isinstance(model, D2STGNN)
    x = inputs(FLOAT64, sizes).requires_grad_()
    reference = Reference(model, x)
    expected = torch.stack([reference.sample(x[index], 31 * index) for index in range(BATCH)])
    found = model(x, supports_of(model).double())
    wanted = (x, *model.parameters())
    assert_same(found, expected, wanted, rtol=1e-8, atol=1e-10)


def test_another_kernel_gap_and_hops_equal_the_reference() -> None:
    model = build_d2stgnn(kernel=2, gap=2, hops=3)
    x = inputs(FLOAT64).requires_grad_()
    reference = Reference(model, x)
    expected = torch.stack([reference.sample(x[index], 31 * index) for index in range(BATCH)])
    found = model(x, supports_of(model).double())
    assert_same(found, expected, (x, *model.parameters()), rtol=1e-8, atol=1e-10)


def test_parameters_are_those_of_the_released_code_that_it_uses() -> None:
    """METR-LA with speed, time of day and day of the week, summed up by the code's shapes."""

    def linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
        return inputs * outputs + outputs * bias

    gate = linear(40, 64) + linear(64, 1)
    diffusion = linear(96, 96, bias=False) + linear(7 * 32, 32) + linear(32, 256) + linear(32, 32)
    inherent = 2 * linear(32, 96) + linear(32, 96) + linear(32, 32) + linear(32, 256)
    backcast, norm = linear(32, 32), 2 * 32
    layer = gate + diffusion + norm + inherent + backcast + norm
    graphs = linear(12, 64) + 2 * 64 + linear(64, 32) + 2 * linear(62, 32, bias=False)
    tables = (288 + 7) * 10 + 2 * 207 * 10
    used = linear(1, 32) + tables + 5 * layer + graphs + linear(256, 512) + linear(512, 3)
    unused = 5 * 2 * 32 + linear(10, 32)  # a normalization a layer, a map of the time of day
    assert used + unused == 391_962
    sizes = metr_la_shape(
        input_channels=3, calendar=("time-of-day", "day-of-week"), steps_per_day=288
    )
    assert num_parameters("d2stgnn", {}, sizes) == used - backcast - norm == 390_170


def test_units_are_dropped_in_training_alone() -> None:
    """Of graphs, convolutions, states and attention."""
    model = build("d2stgnn", dropout=0.5)
    x, supports = inputs(), supports_of(model)
    torch.manual_seed(0)
    assert torch.equal(model(x, supports), model(x, supports))
    model.train()
    assert not torch.equal(model(x, supports), model(x, supports))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 5}, "heads is 5: it must divide hidden, 32"),
        ({"kernel": 1}, "kernel is 1: it must be at least 2"),
        ({"gap": 0}, "gap is 0"),
        ({"dropout": 1}, "dropout is 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        D2STGNNConfig(**options)  # type: ignore[arg-type]
