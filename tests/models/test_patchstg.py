"""PatchSTG against a reference with all attention weights, its sizes and its memory."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.models import AbstractModel, PatchSTGConfig, num_parameters
from pgti.nn import dropout

from .dense_reference import affine, assert_equals_reference, calendar_vectors, regression
from .small_models import (
    BATCH,
    FLOAT64,
    INPUT_STEPS,
    NUM_NODES,
    asymmetric_graph,
    build,
    inputs,
    measure_memory,
    metr_la_shape,
    shape,
)

LATITUDES, LONGITUDES = (37, 30, 36, 31, 35, 32, 33), range(NUM_NODES)
LEAVES = ((1, 3), (3, 5), (0, 2), (4, 6))
"""The southern half is 1, 3, 5, the northern one 6, 4, 2, 0: each is cut by longitude, and sensor 3
pads the leaf of sensor 1."""
OWN = (4, 0, 5, 2, 6, 3, 7)
"""The place of each sensor among those of all leaves."""
PATCH = 4


def located_graph() -> SensorGraph:
    coordinates = np.column_stack([LATITUDES, LONGITUDES])
    return SensorGraph(adjacency=asymmetric_graph().adjacency, coordinates=coordinates)


def drop(x: Tensor, probability: float) -> Tensor:
    return dropout(x, probability) if probability else x


def norm(x: Tensor) -> Tensor:
    centered = x - x.mean(dim=-1, keepdim=True)
    return centered / torch.sqrt(centered.square().mean(dim=-1, keepdim=True) + 1e-6)


def attend(block: nn.Module, x: Tensor, mask: Tensor, probability: float = 0) -> Tensor:
    """One block, with weights of all pairs of tokens, `mask` where they see each other."""
    query, key, value = affine(block.get_submodule("query_key_value"), norm(x)).chunk(3, dim=-1)
    scores = torch.exp(query @ key.transpose(-1, -2) / math.sqrt(x.shape[-1])) * mask
    weights = functional.dropout(scores / scores.sum(dim=-1, keepdim=True), probability)
    read = affine(block.get_submodule("attended"), weights @ value)
    x = x + drop(read, probability)
    units = affine(block.get_submodule("expansion"), norm(x))
    units = drop(units * (1 + torch.erf(units / math.sqrt(2))) / 2, probability)
    return x + drop(affine(block.get_submodule("contraction"), units), probability)


def reference(model: AbstractModel, x: Tensor) -> Tensor:
    """All places as one sequence: masks say who is in a patch, and who at the same place."""
    sensors = [sensor for leaf in LEAVES for sensor in leaf]
    index = torch.arange(len(sensors))
    patch, place = index // PATCH, index % PATCH
    samples = []
    for sample in range(BATCH):
        times = calendar_vectors(model, 31 * sample + INPUT_STEPS - 1)
        tokens = []
        for sensor in sensors:
            window = affine(model.get_submodule("window_embedding"), x[sample, :, sensor].flatten())
            own = model.get_parameter("node_embedding")[sensor]
            tokens.append(torch.cat([window, *times, own]))
        x_TD = torch.stack(tokens)
        for layer in range(2):
            part = model.get_submodule(f"layers.{layer}").get_submodule
            x_TD = attend(part("depth"), x_TD, patch[:, None] == patch)
            x_TD = attend(part("breadth"), x_TD, place[:, None] == place)
        samples.append(regression(model, torch.stack([x_TD[each] for each in OWN])))
    return torch.stack(samples)


@pytest.mark.parametrize("calendar", [("time-of-day", "day-of-week"), ()])
def test_forecasts_and_gradients_equal_the_reference(calendar: tuple[str, ...]) -> None:
    """Outputs and the gradients of all parameters and inputs, in float64."""
    sizes = shape(calendar=calendar, input_channels=3 + len(calendar))
    model = build("patchstg", sizes, layers=2).double()
    supports = model.build_supports(located_graph())
    assert_equals_reference(model, inputs(FLOAT64, sizes), reference, supports=supports, atol=1e-10)


def test_weights_outputs_and_units_are_dropped() -> None:
    """In training, in the order of the block, with the masks that torch's generator draws."""
    model = build("patchstg", dropout=0.3).double().train()
    block = model.get_submodule("layers.0.depth")
    x = torch.randn(2, 3, 4, 12, dtype=FLOAT64)
    torch.manual_seed(8)
    found = block(x)
    torch.manual_seed(8)
    expected = attend(block, x, torch.ones(4, 4), 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_patches_follow_the_coordinates_and_not_the_order_of_the_store() -> None:
    """As long as the sensors of a leaf stay in one order, which is that of their places."""
    model, graph = build("patchstg").double(), located_graph()
    assert graph.coordinates is not None
    x = inputs(FLOAT64)
    found = model(x, model.build_supports(graph))
    order = np.array([1, 0, 3, 2, 5, 4, 6])  # the places in a leaf are in the order of the store
    moved = SensorGraph(
        adjacency=graph.adjacency[order][:, order], coordinates=graph.coordinates[order]
    )
    with torch.no_grad():
        table = model.get_parameter("node_embedding")
        table.copy_(table[order])
    again = model(x[:, :, order], model.build_supports(moved))
    torch.testing.assert_close(again, found[:, :, order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("num_nodes", "options", "released"),
    [
        (8600, {}, 1_828_396),
        (3834, {"leaf_capacity": 2, "leaves_per_patch": 32}, 1_675_884),
        (716, {"node_embedding": 64, "leaf_capacity": 2, "leaves_per_patch": 32}, 2_277_164),
        (2352, {"window_embedding": 128, "leaf_capacity": 2, "leaves_per_patch": 128}, 3_109_996),
    ],
)
def test_parameters_are_those_of_the_released_code(
    num_nodes: int, options: dict[str, object], released: int
) -> None:
    """CA, GLA, SD and GBA: flow, time of day and day of the week, in steps of 15 minutes."""
    sizes = metr_la_shape(
        num_nodes=num_nodes,
        input_channels=3,
        calendar=("time-of-day", "day-of-week"),
        steps_per_day=96,
    )
    assert num_parameters("patchstg", options, sizes) == released


def test_memory_grows_with_the_sensors() -> None:
    """Where patches grow with them: without the weights of all pairs of sensors."""

    def step_bytes(num_nodes: int, checkpointing: bool) -> int:
        sizes = shape(num_nodes=num_nodes, input_steps=2, horizon=1)
        options = {"layers": 3, "leaves_per_patch": num_nodes // 64}
        model = build("patchstg", sizes, **options).train()
        model.activation_checkpointing = checkpointing
        graph = SensorGraph.empty(num_nodes)
        return measure_memory(model, inputs(sizes=sizes, batch=1), graph)[1]

    assert step_bytes(1024, False) < 3 * step_bytes(512, False)
    assert step_bytes(512, True) < 0.6 * step_bytes(512, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers is 0: it must be at least 1"),
        ({"leaf_capacity": 0}, "leaf_capacity is 0"),
        ({"leaves_per_patch": 6}, "leaves_per_patch is 6: it must be a power of 2"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PatchSTGConfig(**options)  # type: ignore[arg-type]
