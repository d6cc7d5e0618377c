"""Every layer of PGT called as its own documentation says: one sample, one step, one graph."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pgti.graph import SensorGraph, from_dense
from pgti.interop.pgt.package import import_pgt
from pgti.models import ModelShape

NUM_NODES, INPUT_STEPS, HORIZON, CHANNELS, TARGETS = 7, 6, 3, 3, 2
SHAPE = ModelShape(
    input_steps=INPUT_STEPS,
    horizon=HORIZON,
    num_nodes=NUM_NODES,
    input_channels=CHANNELS,
    target_channels=TARGETS,
    target_indices=(1, 0),
    calendar=("time-of-day",),
    steps_per_day=24,
)
OUTPUTS = HORIZON * TARGETS

Run = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class DirectLayer:
    """How a layer is built and called without this package.

    Attributes:
        make: the layer, from its class.
        run: its features [N, W] of one sample: (layer, x_LNC, edge_index, edge_weight).
        options: of the model that the layer is compared with.
    """

    make: Callable[[Any], nn.Module]
    run: Run
    options: dict[str, object] = field(default_factory=lambda: {"hidden": 6})


def graph() -> SensorGraph:
    """Directed and weighted, with some self loops; sensor 3 is isolated, all others are led to."""
    generator = torch.Generator().manual_seed(4)
    size = (NUM_NODES, NUM_NODES)
    matrix = torch.rand(size, generator=generator)
    matrix *= torch.rand(size, generator=generator) < 0.4
    for node in range(NUM_NODES):
        matrix[node, (node + 1) % NUM_NODES] = 0.1 + 0.1 * node
    matrix[3], matrix[:, 3] = 0, 0
    matrix[2, 4] = 0.3
    return from_dense(matrix.numpy())


def _recurrent(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    state = None
    for x_NC in x_LNC:
        state = layer(x_NC, edge_index, edge_weight, state)
    assert state is not None
    return state


def _with_batch_axis(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    return _recurrent(layer, x_LNC.unsqueeze(1), edge_index, edge_weight)[0]


def _lstm(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    states = (None, None)
    for x_NC in x_LNC:
        states = layer(x_NC, edge_index, edge_weight, *states)[-2:]
    assert states[0] is not None
    return states[0]


def _relational(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    return _lstm(layer, x_LNC, edge_index, torch.zeros(len(edge_weight), dtype=torch.int64))


def _evolving(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    layer.reinitialize_weight()
    return torch.cat([layer(x_NC, edge_index, edge_weight) for x_NC in x_LNC], dim=1)


def _batched_dcrnn(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    states: Tensor = layer(x_LNC.unsqueeze(0), edge_index, edge_weight)
    return states[0, -1]


def _periods(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    state: Tensor = layer(x_LNC.permute(1, 2, 0), edge_index, edge_weight)
    return state


def _periods_2(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    state: Tensor = layer(x_LNC.permute(1, 2, 0).unsqueeze(0), edge_index, edge_weight)
    return state[0]


def _mpnn_lstm(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    copies = torch.cat([edge_index + step * NUM_NODES for step in range(INPUT_STEPS)], dim=1)
    x_MC = torch.cat(list(x_LNC))
    features: Tensor = layer(x_MC, copies, torch.cat([edge_weight] * INPUT_STEPS))
    return features


def _st_conv(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    left_LND = layer(x_LNC.unsqueeze(0), edge_index, edge_weight)[0]
    return torch.cat(list(left_LND), dim=1)


def _edges_alone(layer: Any, x_LNC: Tensor, edge_index: Tensor, _: Tensor) -> Tensor:
    forecast: Tensor = layer(x_LNC.permute(1, 2, 0).unsqueeze(0), edge_index)
    return forecast[0]


def _edges_of_each_step(layer: Any, x_LNC: Tensor, edge_index: Tensor, _: Tensor) -> Tensor:
    forecast: Tensor = layer(x_LNC.permute(1, 2, 0).unsqueeze(0), [edge_index] * len(x_LNC))
    return forecast[0]


def _matrix(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    matrix_NN = torch.zeros(NUM_NODES, NUM_NODES)
    for (source, target), weight in zip(edge_index.T.tolist(), edge_weight.tolist(), strict=True):
        matrix_NN[source, target] = weight
    forecast_1KN1 = layer(x_LNC.permute(2, 1, 0).unsqueeze(0), matrix_NN)
    return forecast_1KN1[0, :, :, 0].T


def _aagcn(layer: Any, x_LNC: Tensor, edge_index: Tensor, _: Tensor) -> Tensor:
    graphs = import_pgt("nn.attention.tsagcn").GraphAAGCN(edge_index, NUM_NODES).A
    layer.A = layer.gcn1.A = graphs
    made_DLN = layer(x_LNC.permute(2, 0, 1).unsqueeze(0).contiguous())[0]
    return torch.cat(list(made_DLN.permute(1, 2, 0)), dim=1)


def _agcrn(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:  # noqa: ARG001
    state = None
    for x_NC in x_LNC:
        state = layer(x_NC.unsqueeze(0), layer.embedding_of_the_model, state)
    assert state is not None
    return state[0]


def _mtgnn(layer_class: Any, *, learned_graph: bool) -> nn.Module:
    made: nn.Module = layer_class(
        True, learned_graph, 2, NUM_NODES, [2, 3, 6, 7], 7, 0.3, NUM_NODES, 40, 1, 8, 8, 16, 32,
        INPUT_STEPS, CHANNELS, OUTPUTS, 3, 0.05, 3, True,
    )  # fmt: skip
    return made


def _with_cell_of(layer: Any, x_LNC: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
    """DyGrEncoder gives (output, H, C); the output is H."""
    return _lstm(layer, x_LNC, edge_index, edge_weight)


_SELF_LOOPS = torch.arange(NUM_NODES).expand(2, -1)

CASES: dict[str, DirectLayer] = {
    "A3TGCN": DirectLayer(make=lambda c: c(CHANNELS, 6, INPUT_STEPS), run=_periods),
    "A3TGCN2": DirectLayer(
        make=lambda c: c(CHANNELS, 6, INPUT_STEPS, batch_size=4), run=_periods_2
    ),
    "AAGCN": DirectLayer(
        make=lambda c: c(CHANNELS, 6, _SELF_LOOPS, NUM_NODES, adaptive=False), run=_aagcn
    ),
    "AGCRN": DirectLayer(
        make=lambda c: c(NUM_NODES, CHANNELS, 6, 3, 4),
        run=_agcrn,
        options={"hidden": 6, "hops": 2, "embedding": 4},
    ),
    "ASTGCN": DirectLayer(
        make=lambda c: c(2, CHANNELS, 3, 6, 6, 1, OUTPUTS, INPUT_STEPS, NUM_NODES),
        run=_edges_alone,
    ),
    "BatchedDCRNN": DirectLayer(
        make=lambda c: c(CHANNELS, 6, K=4), run=_batched_dcrnn, options={"hidden": 6, "hops": 3}
    ),
    "DCRNN": DirectLayer(make=lambda c: c(CHANNELS, 6, K=3), run=_recurrent),
    "DyGrEncoder": DirectLayer(make=lambda c: c(6, 2, "add", 6, 1), run=_with_cell_of),
    "EvolveGCNH": DirectLayer(make=lambda c: c(NUM_NODES, CHANNELS), run=_evolving, options={}),
    "EvolveGCNO": DirectLayer(make=lambda c: c(CHANNELS), run=_evolving, options={}),
    "GCLSTM": DirectLayer(make=lambda c: c(CHANNELS, 6, 3), run=_lstm),
    "GConvGRU": DirectLayer(make=lambda c: c(CHANNELS, 6, 3), run=_recurrent),
    "GConvLSTM": DirectLayer(make=lambda c: c(CHANNELS, 6, 3), run=_lstm),
    "LRGCN": DirectLayer(make=lambda c: c(CHANNELS, 6, 1, 1), run=_relational),
    "MPNNLSTM": DirectLayer(
        make=lambda c: c(CHANNELS, 6, NUM_NODES, INPUT_STEPS, 0.5), run=_mpnn_lstm
    ),
    "MSTGCN": DirectLayer(
        make=lambda c: c(2, CHANNELS, 3, 6, 6, 1, OUTPUTS, INPUT_STEPS), run=_edges_of_each_step
    ),
    "MTGNN": DirectLayer(
        make=lambda c: _mtgnn(c, learned_graph=True), run=_matrix, options={"hidden": 8}
    ),
    "STConv": DirectLayer(make=lambda c: c(NUM_NODES, CHANNELS, 6, 6, 3, 3), run=_st_conv),
    "TGCN": DirectLayer(make=lambda c: c(CHANNELS, 6), run=_recurrent),
    "TGCN2": DirectLayer(make=lambda c: c(CHANNELS, 6, batch_size=4), run=_with_batch_axis),
}
VARIANTS: dict[str, tuple[str, DirectLayer]] = {
    "MTGNN with the graph of the store": (
        "MTGNN",
        DirectLayer(
            make=lambda c: _mtgnn(c, learned_graph=False),
            run=_matrix,
            options={"hidden": 8, "learned_graph": False},
        ),
    ),
    "ASTGCN with a normalised Laplacian": (
        "ASTGCN",
        DirectLayer(
            make=lambda c: c(2, CHANNELS, 3, 6, 6, 1, OUTPUTS, INPUT_STEPS, NUM_NODES, "sym"),
            run=_edges_alone,
            options={"hidden": 6, "normalization": "sym"},
        ),
    ),
}
