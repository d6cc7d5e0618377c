"""Operators of a graph whose sensors are split over ranks, and sums over all sensors.

Every rank of a group has the same windows and some of the sensors. A product fetches the rows of
neighbours on other ranks, the halo, before it multiplies; the product with the transpose, in the
backward pass, has a halo of its own. What is added up over sensors (normalization, a pool of
states) is added up over the ranks of the group. Loss and gradients of parameters are those of a
rank's own sensors, and their sums over all ranks those of all sensors.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from pgti.graph import OperatorPart, SensorGraph, SensorPartition, cut_operator
from pgti.graph.sensor_graph import CsrMatrix
from pgti.nn.csr import csr_matrix, multiply_into
from pgti.nn.execution import normalized
from pgti.nn.sparse import Supports, operator_name
from pgti.shapes import NF

__all__ = ["SensorGroup", "ShardedSupports", "batch_norm", "layer_norm", "update_running"]


class _Pending(Protocol):
    def wait(self) -> None: ...


class SensorGroup(Protocol):
    """The ranks that have the same windows, each with some of the sensors."""

    @property
    def rank(self) -> int:
        """Of this process among them, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of ranks."""
        ...

    def exchange_rows(
        self,
        sent: Tensor,
        sent_sizes: Sequence[int],
        received: Tensor,
        received_sizes: Sequence[int],
    ) -> _Pending:
        """Start to send rows to every rank, and to receive some from it, by rank."""
        ...

    def all_reduce_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the ranks."""
        ...


class ShardedSupports(Supports):
    """One rank's rows of the operators of a graph whose sensors are split over a group of ranks.

    All ranks of the group must take the same products in the same order.

    Args:
        operators: S matrices [N, N].
        graph: N sensors.
        kind: names the operators.
        partition: which sensors are whose.
        group: the ranks.

    Attributes:
        group: the ranks.
        sensors: positions of this rank's n sensors, rising int64 [n].
        edge_index: empty: layers that work on edges need all of them.
        edge_weight: likewise.
    """

    is_sharded = True
    sensors: Tensor

    def __init__(
        self,
        operators: Sequence[CsrMatrix],
        graph: SensorGraph,
        kind: str,
        partition: SensorPartition,
        group: SensorGroup,
    ) -> None:
        self._partition, self.group = partition, group
        self._parts: dict[str, OperatorPart] = {}
        super().__init__(operators, SensorGraph.empty(graph.num_nodes), kind)
        self._sizes = {
            name: (part.sent_sizes, part.received_sizes, part.any_sent)
            for name, part in self._parts.items()
        }
        del self._parts
        self._largest_part = partition.largest_part
        sensors = torch.from_numpy(partition.parts[group.rank])
        self.register_buffer("sensors", sensors, persistent=False)

    @classmethod
    def cut(
        cls, graph: SensorGraph, kind: str, partition: SensorPartition, group: SensorGroup
    ) -> Self:
        """This rank's rows of the operators of `graph`, of a kind of `Supports.from_graph`."""
        return cls(Supports.operators_of(graph, kind), graph, kind, partition, group)

    @property
    def num_local(self) -> int:
        """Sensors of this rank, n."""
        return len(self.sensors)

    @property
    def sensors_per_rank(self) -> int:
        """Sensors of the largest part: ranks that cut their work by it cut it alike."""
        return self._largest_part

    def local(self, table: Tensor, dim: int = 0) -> Tensor:
        """The entries of this rank's sensors."""
        return table.index_select(dim, self.sensors)

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """The sum over the group, with its gradient: the sum of all ranks' gradients."""
        total: Tensor = _Sum.apply(x, self.group)  # type: ignore[no-untyped-call]
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
        """As `Supports.product`, of this rank's n rows; other ranks' rows come meanwhile."""
        name = operator_name(index, transposed=transposed)
        sent_sizes, received_sizes, any_sent = self._sizes[name]
        if not any_sent:
            return super().product(
                index, x_NF, transposed=transposed, out=out, accumulate=accumulate
            )
        rows = self.get_buffer(f"{name}_sent")
        sent = self.scratch("halo sent", (len(rows), x_NF.shape[1]), x_NF.dtype)
        halo = self.scratch("halo", (sum(received_sizes), x_NF.shape[1]), x_NF.dtype)
        torch.index_select(x_NF, 0, rows, out=sent)
        pending = self.group.exchange_rows(sent, sent_sizes, halo, received_sizes)
        out = super().product(index, x_NF, transposed=transposed, out=out, accumulate=accumulate)
        pending.wait()
        if len(halo):
            outer = self._matrix(f"{name}_outer", halo.dtype)
            multiply_into(out, outer, halo, accumulate=True)
        return out

    def _register(self, name: str, operator: CsrMatrix) -> None:
        """Register this rank's rows of an operator, and which rows other ranks need."""
        part = cut_operator(operator, self._partition, self.group.rank)
        super()._register(name, part.inner)
        super()._register(f"{name}_outer", part.outer)
        self.register_buffer(f"{name}_sent", torch.from_numpy(part.sent), persistent=False)
        self._parts[name] = part

    def _build_matrix(self, name: str, dtype: torch.dtype) -> Tensor:
        """CSR over the buffers; as many columns as sensors, or as rows in the halo."""
        rows, columns, values = self._csr_parts(name)
        of_operator, is_outer = name.removesuffix("_outer"), name.endswith("_outer")
        num_columns = sum(self._sizes[of_operator][1]) if is_outer else len(rows) - 1
        return csr_matrix(rows, columns, values.to(dtype), num_columns)


class _Sum(torch.autograd.Function):
    """The sum over a group of ranks; every rank uses all of it, so its gradient is their sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SensorGroup) -> Tensor:
        ctx.group = group
        return _summed(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _summed(grad, ctx.group), None


def _summed(x: Tensor, group: SensorGroup) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    group.all_reduce_(total)
    return total


def layer_norm(x: Tensor, norm: nn.LayerNorm, supports: Supports) -> Tensor:
    """Layer normalization over all sensors and their channels.

    Args:
        x: [.., n, C], this rank's sensors.
        norm: over [N, C], with a gain and an offset for each of them.
        supports: knows which sensors these are.
    """
    if not supports.is_sharded:
        return normalized(x, norm)
    count = norm.normalized_shape[0] * norm.normalized_shape[1]
    mean = supports.sum_over_ranks(x.sum(dim=(-2, -1), keepdim=True)) / count
    centered = x - mean
    variance = supports.sum_over_ranks(centered.square().sum(dim=(-2, -1), keepdim=True)) / count
    gain, offset = supports.local(norm.weight), supports.local(norm.bias)
    return centered * torch.rsqrt(variance + norm.eps) * gain + offset


def batch_norm(x_MC: Tensor, norm: nn.BatchNorm1d, supports: Supports) -> Tensor:
    """Batch normalization over the rows of all sensors.

    Args:
        x_MC: [M, C], of this rank's sensors, the same number for each.
        norm: of C channels, with running statistics.
        supports: knows which sensors these are.
    """
    if not (supports.is_sharded and norm.training):
        normed_MC: Tensor = norm(x_MC)
        return normed_MC
    count = len(x_MC) // supports.num_local * supports.num_nodes
    mean_C = supports.sum_over_ranks(x_MC.sum(dim=0)) / count
    centered_MC = x_MC - mean_C
    variance_C = supports.sum_over_ranks(centered_MC.square().sum(dim=0)) / count
    update_running(norm, mean_C.detach(), variance_C.detach() * (count / max(1, count - 1)))
    return centered_MC * (torch.rsqrt(variance_C + norm.eps) * norm.weight) + norm.bias


def update_running(norm: nn.BatchNorm1d, mean_C: Tensor, variance_C: Tensor) -> None:
    """Move the running statistics towards those of a batch, as torch's layer does."""
    running_mean_C, running_var_C, momentum = norm.running_mean, norm.running_var, norm.momentum
    if running_mean_C is None or running_var_C is None or momentum is None:
        raise ValueError("a batch normalization without momentum of its running statistics")
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    with torch.no_grad():
        running_mean_C.lerp_(mean_C.to(running_mean_C.dtype), momentum)
        running_var_C.lerp_(variance_C.to(running_var_C.dtype), momentum)
