"""ST-Balance against a reference with dense operators and whole attention weights; its sizes."""

import math

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import ModelShape, STBalance, STBalanceConfig, num_parameters

from .dense_reference import affine, assert_same, calendar_vectors, dense_walks, regression, sigmoid
from .history import DAYS, SPAN, history_inputs, history_shape
from .small_models import (
    BATCH,
    CHANNELS,
    FLOAT64,
    INPUT_STEPS,
    NUM_NODES,
    asymmetric_graph,
    build,
    inputs,
    metr_la_shape,
    shape,
    supports_of,
)


def attend(layer: nn.Module, x_ND: Tensor, memory_ND: Tensor, heads: int) -> Tensor:
    """Of each sensor to all, with the N x N weights of each head."""
    width, size = x_ND.shape[1], x_ND.shape[1] // heads
    of_x, of_memory = (affine(layer.get_submodule("query_key_value"), y) for y in (x_ND, memory_ND))
    read = []
    for first in range(0, width, size):
        query = of_x[:, first : first + size]
        key, value = (of_memory[:, start + first :][:, :size] for start in (width, 2 * width))
        weights = torch.exp(query @ key.T / math.sqrt(size))
        read.append(weights / weights.sum(dim=1, keepdim=True) @ value)
    return affine(layer.get_submodule("attended"), torch.cat(read, dim=1))


def transform(layer: nn.Module, x_ND: Tensor, memory_ND: Tensor | None, heads: int) -> Tensor:
    """A layer of the encoder, or of the decoder with a memory."""
    x_ND = x_ND + attend(layer.get_submodule("attention"), x_ND, x_ND, heads)
    if memory_ND is not None:
        x_ND = x_ND + attend(layer.get_submodule("memory_attention"), x_ND, memory_ND, heads)
    units = affine(layer.get_submodule("expansion"), x_ND).clamp(min=0)
    return x_ND + affine(layer.get_submodule("contraction"), units)


def perceptron(layers: nn.Module, h: Tensor) -> Tensor:
    for layer in layers.children():
        units = affine(layer.get_submodule("first"), h).clamp(min=0)
        h = h + affine(layer.get_submodule("second"), units)
    return h


def reference(model: STBalance, x: Tensor, history: Tensor | None) -> Tensor:
    """The whole model, one sample at a time."""
    config, sizes = model.config, model.shape
    # The rows of D^-1 A: the operators of diffusion are their transposes.
    rows = [walk.T for walk in dense_walks(asymmetric_graph())]
    nodes = []
    for embedding, matrix_NN in zip(model.node_embeddings, rows, strict=True):
        units = affine(embedding.get_submodule("first"), matrix_NN).clamp(min=0)
        nodes.append(units + affine(embedding.get_submodule("second"), units))
    samples = []
    for sample in range(BATCH):
        readings = x[sample, ..., : CHANNELS - 2]
        window_ND = torch.stack(
            [torch.cat(list(readings[:, node].unbind(1))) for node in range(NUM_NODES)]
        )
        encoded = window_ND
        for layer in model.encoder:
            encoded = transform(layer, encoded, None, config.heads)
        decoded = window_ND
        for layer in model.decoder:
            decoded = transform(layer, decoded, encoded, config.heads)
        handed = torch.cat([encoded, decoded], dim=1)
        if history is not None:
            past = torch.stack(
                [
                    torch.cat(
                        [
                            torch.cat([history[sample, :, node, c], x[sample, :, node, c]])
                            for c in dict.fromkeys(sizes.target_indices)
                        ]
                    )
                    for node in range(NUM_NODES)
                ]
            )
            handed = torch.cat([affine(model.get_submodule("history_embedding"), past), handed], 1)
        of_nodes, states, results = list(nodes), [], []
        for number, stage in enumerate(model.stages):
            if number:
                gates = list(model.gates)[2 * number - 2 :]
                of_nodes = [
                    node
                    * sigmoid(
                        affine(
                            gate.get_submodule("scale"),
                            attend(gate.get_submodule("attention"), state, state, config.heads),
                        )
                    )
                    for node, gate, state in zip(of_nodes, gates[:2], states, strict=True)
                ]
            times = [
                table.expand(NUM_NODES, -1)
                for table in calendar_vectors(model, 31 * sample + INPUT_STEPS - 1, stage)
            ]
            states = [
                affine(
                    direction,
                    perceptron(
                        stage.get_submodule("shared"), torch.cat([handed, node, *times], dim=1)
                    ),
                )
                for direction, node in zip(
                    stage.get_submodule("directions").children(), of_nodes, strict=True
                )
            ]
            both = perceptron(stage.get_submodule("both"), torch.cat(states, dim=1))
            handed = affine(stage.get_submodule("result"), both)
            results.append(handed)
        last = perceptron(model.get_submodule("output"), torch.cat(results, dim=1))
        samples.append(regression(model, last))
    return torch.stack(samples)


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ((), {"layers": 2, "heads": 2}),
        (SPAN, {"stages": 3}),
        (DAYS, {"heads": 2, "history_embedding": 4}),
    ],
)
@pytest.mark.parametrize("calendar", [("time-of-day", "day-of-week"), ()])
@pytest.mark.parametrize("targets", [(1, 0), (1, 1)])
def test_forecasts_and_gradients_equal_the_reference(
    rows: tuple[range, ...],
    options: dict[str, object],
    calendar: tuple[str, ...],
    targets: tuple[int, ...],
) -> None:
    """Architecture alone and with history, in float64."""
    changes = {"calendar": calendar, "input_channels": CHANNELS - 2 + len(calendar)}
    sizes = shape(target_indices=targets, **changes)
    if rows:
        sizes = history_shape(rows, target_indices=targets, **changes)
    model = build("st-balance", sizes, **options).double()
    assert isinstance(model, STBalance)
    x = inputs(FLOAT64, sizes).requires_grad_()
    history = history_inputs(sizes).requires_grad_() if rows else None
    found = model(x, supports_of(model).double(), history=history)
    wanted = (x, *(() if history is None else (history,)), *model.parameters())
    assert_same(found, reference(model, x, history), wanted, atol=1e-11)


def published_shape(num_nodes: int, rows_per_day: int, history: int) -> ModelShape:
    """One channel, both calendar features; `history` rows that end with the window."""
    span = (range(INPUT_STEPS - history, 0),) if history else ()
    return metr_la_shape(
        num_nodes=num_nodes,
        input_channels=3,
        calendar=("time-of-day", "day-of-week"),
        steps_per_day=rows_per_day,
        history=span,
        history_channels=len(span),
    )


@pytest.mark.parametrize(
    ("sizes", "options", "published"),
    [
        (published_shape(307, 288, 288), {"heads": 2}, 656_608),
        (published_shape(8_600, 96, 1_344), {}, 1_714_200),
        (published_shape(8_600, 96, 0), {}, 1_673_700),
    ],
    ids=["PEMS04", "CA", "CA without history"],
)
def test_parameters_are_those_published(
    sizes: ModelShape, options: dict[str, object], published: int
) -> None:
    """As the logs of the released code say."""
    assert num_parameters("st-balance", options, sizes) == published


def test_training_drops_units_and_evaluation_does_not() -> None:
    """The same weights and inputs."""
    model, x = build("st-balance"), inputs()
    supports = supports_of(model)
    evaluated = model(x, supports)
    model.train()
    assert not torch.equal(model(x, supports), evaluated)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": 1}, "stages is 1: it must be at least 2"),
        ({"heads": 3}, "heads is 3: it must divide hidden, 64"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        STBalanceConfig(**options)  # type: ignore[arg-type]


def test_heads_must_divide_the_window() -> None:
    """Of 12 rows of 3 channels here."""
    with pytest.raises(ConfigError, match="heads is 8: it must divide the 36 numbers of a window"):
        STBalance(STBalanceConfig(heads=8), shape())
