"""What ranks that share the sensors of a window send one another in a training step, predicted.

The number of features that a model multiplies with each operator, in both directions, is found by
a step without data on torch's `meta` device; which rows a product sends follows from the graph.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgti.graph import SensorGraph, SensorPartition, count_sent_rows
from pgti.models import AbstractModel, ModelShape, build_model
from pgti.nn import NUM_SUPPORTS, Supports
from pgti.run.sharding import check_can_shard
from pgti.shapes import NF

__all__ = ["HaloTraffic", "predict_halo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HaloTraffic:
    """The partition of the sensors, and what a training step sends for it in float32.

    Attributes:
        parts: sensors of each rank of a group.
        cut_edges: edges between sensors of two ranks.
        edges: of the whole graph.
        halos: for each rank, sensors of others that are neighbours of its own.
        products: products with an operator or its transpose in a step.
        step_bytes: that each rank of a group sends in a step of `windows` windows.
        windows: of a group in a step.
    """

    parts: tuple[int, ...]
    cut_edges: int
    edges: int
    halos: tuple[int, ...]
    products: int
    step_bytes: tuple[int, ...]
    windows: int


def predict_halo(
    name: str,
    options: Mapping[str, Any],
    shape: ModelShape,
    graph: SensorGraph,
    partition: SensorPartition,
    *,
    windows: int,
    activation_checkpointing: bool = False,
) -> HaloTraffic:
    """What a training step sends, computed as the traffic counter counts it.

    Args:
        name: of the model.
        options: of it.
        shape: of the data, with all N sensors.
        graph: of the sensors.
        partition: of them.
        windows: of a group of ranks in a step.
        activation_checkpointing: whether the backward pass repeats products.

    Raises:
        ConfigError: the model needs all sensors.
    """
    with torch.device("meta"):
        network = build_model(name, options, shape, is_restored=True)
        kind = check_can_shard(network, name)
        assert isinstance(network, AbstractModel)
        network.activation_checkpointing = activation_checkpointing
        recorder = _Recorder(kind, shape.num_nodes, partition.largest_part)
        sizes = (windows, shape.input_steps, partition.largest_part, shape.input_channels)
        inputs: dict[str, Tensor] = {}
        if shape.history_steps:
            rows = (windows, shape.history_steps, partition.largest_part, shape.history_channels)
            inputs["history"] = torch.empty(rows)
        network(torch.empty(sizes), recorder, **inputs).sum().backward()
    sent = _sent_bytes(recorder.row_bytes, Supports.operators_of(graph, kind), partition)
    return HaloTraffic(
        parts=tuple(map(len, partition.parts)),
        cut_edges=partition.cut_edges,
        edges=graph.num_edges,
        halos=partition.halos,
        products=recorder.num_products,
        step_bytes=tuple(recorder.sum_bytes + each for each in sent),
        windows=windows,
    )


def _sent_bytes(
    row_bytes: Mapping[tuple[int, bool], int], operators: Sequence[Any], partition: SensorPartition
) -> list[int]:
    """Bytes of rows that each part sends in all products."""
    total = np.zeros(len(partition.parts), dtype=np.int64)
    for (index, transposed), num_bytes in row_bytes.items():
        rows = count_sent_rows(operators[index], partition, transposed=transposed)
        total += num_bytes * rows
    sent: list[int] = total.tolist()
    return sent


class _Recorder(Supports):
    """Operators of some sensors that compute nothing and count what their products would send.

    Attributes:
        row_bytes: by operator and direction, the bytes of a row of all products.
        num_products: their number.
        sum_bytes: of sums over sensors.
    """

    is_sharded = True

    def __init__(self, kind: str, num_nodes: int, num_local: int) -> None:
        super().__init__([], SensorGraph.empty(num_nodes), kind)
        self._num_operators, self._num_local = NUM_SUPPORTS[kind], num_local
        self.row_bytes: Counter[tuple[int, bool]] = Counter()
        self.num_products, self.sum_bytes = 0, 0

    @property
    def num_local(self) -> int:
        """Those of the largest part."""
        return self._num_local

    @property
    def sensors_per_rank(self) -> int:
        """Those of the largest part."""
        return self._num_local

    def local(self, table: Tensor, dim: int = 0) -> Tensor:
        """As many entries."""
        return table.narrow(dim, 0, self._num_local)

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """The same shape; counts both directions."""
        total: Tensor = _CountedSum.apply(x, self)  # type: ignore[no-untyped-call]
        return total

    def product(
        self,
        index: int,
        x_NF: NF,
        *,
        transposed: bool = False,
        out: Tensor | None = None,
        accumulate: bool = False,
    ) -> NF:
        """The same shape; counts its row."""
        self.row_bytes[index, transposed] += x_NF.shape[1] * x_NF.element_size()
        self.num_products += 1
        return torch.empty_like(x_NF) if out is None else out


class _CountedSum(torch.autograd.Function):
    """Counts the bytes of a sum over ranks, and of that of its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, recorder: _Recorder) -> Tensor:
        ctx.recorder = recorder
        recorder.sum_bytes += x.nbytes
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.recorder.sum_bytes += grad.nbytes
        return grad, None
