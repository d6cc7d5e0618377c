"""`Supports`: the N x N operators of a graph on a device, and their products.

A product takes [N, F]: a batch is folded into the features, so one product serves all of it and
the graph is never replicated. The transpose of each operator is stored too, for the backward pass.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.graph import (
    SensorGraph,
    dual_random_walk,
    random_walk,
    renormalized_adjacency,
    scaled_laplacian,
)
from pgti.graph.sensor_graph import CsrMatrix
from pgti.nn.csr import csr_matrix, multiply_into
from pgti.nn.execution import autocast_dtype, hop_dtype
from pgti.nn.limits import DenseLimits, dense_limits
from pgti.nn.operator_arguments import new_handle
from pgti.nn.powers import stack_powers
from pgti.nn.scratch import Scratch
from pgti.nn.sparse_product import copied_powers, sparse_product
from pgti.shapes import NF

__all__ = ["NUM_SUPPORTS", "Supports", "operator_name"]

_BUILDERS: dict[str, tuple[int, Callable[[SensorGraph], Sequence[CsrMatrix]]]] = {
    "dual_random_walk": (2, dual_random_walk),
    "random_walk": (1, lambda graph: (random_walk(graph.adjacency).T.tocsr(),)),
    "renormalized": (1, lambda graph: (renormalized_adjacency(graph),)),
    "scaled_laplacian": (1, lambda graph: (scaled_laplacian(graph),)),
    "scaled_laplacian_with_loops": (1, lambda graph: (scaled_laplacian(graph, self_loops=True),)),
    "none": (0, lambda _: ()),
}

NUM_SUPPORTS = {kind: number for kind, (number, _) in _BUILDERS.items()}
"""Number of operators of each kind."""


class Supports(nn.Module):
    """S sparse operators of one graph, each with its transpose, and the graph's edges.

    They are buffers that move with the module and stay out of its state dict: a graph is data, not
    a parameter. They have float32 or float64 values, and are rounded to the precision of what they
    multiply, bfloat16 for instance: see `hop_dtype`.

    Args:
        operators: S matrices [N, N].
        graph: N sensors, for its edges.
        kind: names the operators.
        dense: which products are dense; None for what suits the device.

    `ShardedSupports` has the same interface for some of the sensors: products then exchange rows
    with other ranks. Layers that go around `multiply` and `product` ask `is_sharded` first.

    Attributes:
        is_sharded: whether this rank has some of the sensors only.
        num_nodes: N, those of all ranks.
        edge_index: [2, E] int64, sources and targets, for layers that work on edges.
        edge_weight: [E].
        handle: by which operators of the compiler find it: see `pgti.nn.operator_arguments`.
    """

    is_sharded: ClassVar[bool] = False
    edge_index: Tensor
    edge_weight: Tensor

    def __init__(
        self,
        operators: Sequence[CsrMatrix],
        graph: SensorGraph,
        kind: str,
        *,
        dense: DenseLimits | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.num_nodes = graph.num_nodes
        self.dense = dense
        self._num_operators = len(operators)
        for index, operator in enumerate(operators):
            self._register(operator_name(index, transposed=False), operator)
            self._register(operator_name(index, transposed=True), operator.T.tocsr())
        self.register_buffer("edge_index", torch.tensor(graph.edge_index), persistent=False)
        self.register_buffer("edge_weight", torch.tensor(graph.edge_weight), persistent=False)
        self._matrices: dict[tuple[str, torch.dtype], Tensor] = {}
        self._scratch = Scratch()
        self.handle = new_handle(self)

    @classmethod
    def from_graph(cls, graph: SensorGraph, kind: str = "dual_random_walk") -> Self:
        """The operators of `graph`.

        Args:
            graph: N sensors.
            kind: `dual_random_walk` for walks along and against the edges (S = 2), `random_walk`
                for walks along the edges alone (S = 1), `renormalized` for the adjacency with self
                loops of GCN (S = 1), `scaled_laplacian` for that of Chebyshev filters (S = 1),
                `scaled_laplacian_with_loops` for the same with the graph's self loops (S = 1),
                `none` for no operator (S = 0).

        Raises:
            ConfigError: `kind` is another word.
        """
        return cls(cls.operators_of(graph, kind), graph, kind)

    @staticmethod
    def operators_of(graph: SensorGraph, kind: str) -> Sequence[CsrMatrix]:
        """The S matrices [N, N] of a kind of `from_graph`, which see.

        Raises:
            ConfigError: `kind` is another word.
        """
        if kind not in _BUILDERS:
            raise ConfigError(f"supports {kind!r} do not exist: use one of {', '.join(_BUILDERS)}")
        return _BUILDERS[kind][1](graph)

    def __len__(self) -> int:
        """Number of operators S."""
        return self._num_operators

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the operators, and of every product."""
        return self.edge_weight.dtype

    @property
    def num_local(self) -> int:
        """Sensors of this rank: all N here."""
        return self.num_nodes

    @property
    def sensors_per_rank(self) -> int:
        """Sensors of the rank that has the most: all N here. Sizes of pieces follow from it."""
        return self.num_nodes

    def local(self, table: Tensor, dim: int = 0) -> Tensor:
        """The part of a table of all N sensors that belongs to those of this rank; differentiable.

        Args:
            table: N long in `dim`, such as parameters of each sensor.
            dim: the sensors'.
        """
        return table

    def sum_over_ranks(self, x: Tensor) -> Tensor:
        """The sum over all ranks of their part of a sum over sensors; differentiable."""
        return x

    def multiply(self, index: int, x_NF: NF) -> NF:
        """S_index @ x, [N, F]; differentiable repeatedly.

        In the precision of the operators, or `hop_dtype` under autocast.

        Args:
            index: of the operator, 0 .. S-1.
            x_NF: [N, F].
        """
        x_NF = x_NF.to(hop_dtype(x_NF.device, autocast_dtype(x_NF.device)) or self.dtype)
        return sparse_product(x_NF, self, index)

    def product(
        self,
        index: int,
        x_NF: NF,
        *,
        transposed: bool = False,
        out: Tensor | None = None,
        accumulate: bool = False,
    ) -> NF:
        """S_index @ x, or with its transpose, without gradients: for autograd functions.

        Args:
            index: of the operator, 0 .. S-1.
            x_NF: [N, F], in the operators' precision or bfloat16, in which case the product adds up
                in float32 and is rounded.
            transposed: multiply by the transpose.
            out: [N, F] of that precision to write to, not `x_NF`; None allocates one.
            accumulate: add to `out` instead of overwriting it.
        """
        if out is None:
            out = torch.empty_like(x_NF, memory_format=torch.contiguous_format)
        matrix = self._matrix(operator_name(index, transposed=transposed), x_NF.dtype)
        return multiply_into(out, matrix, x_NF, accumulate=accumulate)

    def stacked_powers(
        self, hops: int, dtype: torch.dtype | None = None, *, identity: bool = True
    ) -> Tensor | None:
        """All powers of all operators as one matrix, where the graph is small enough for that.

        The hops of a state [N, F] are then one dense product, which is [N, H, F] in memory.

        Args:
            hops: K, powers of each operator.
            dtype: its precision; that of the operators by default.
            identity: begin with the identity.

        Returns:
            [N * H, N]: see `stack_powers`. None if the limits of dense products do not allow it.
        """
        limits = self.dense or dense_limits(self.edge_weight.device)
        numbers = (1 + len(self) * hops) * self.num_nodes**2
        if self.is_sharded or not len(self) or numbers > limits.stacked:
            return None
        dtype = dtype or self.dtype
        if torch.compiler.is_compiling():
            return copied_powers(self, hops, dtype, identity=identity)
        name = f"powers {hops} {identity}"
        return self._built(name, dtype, lambda: self._stack_powers(hops, identity))

    def power_sums(self, hops: int) -> Tensor:
        """[N, H]: row sums of `stacked_powers`, which are the hops of a constant."""
        if torch.compiler.is_compiling():
            return (
                copied_powers(self, hops, self.dtype, identity=True)
                .sum(dim=1)
                .view(self.num_nodes, -1)
            )

        def build() -> Tensor:
            return self._stack_powers(hops, identity=True).sum(dim=1).view(self.num_nodes, -1)

        return self._built(f"sums of powers {hops}", self.dtype, build)

    def _stack_powers(self, hops: int, identity: bool) -> Tensor:
        names = (operator_name(index, transposed=False) for index in range(len(self)))
        return stack_powers([self._csr_parts(name) for name in names], hops, identity=identity)

    def _built(self, name: str, dtype: torch.dtype, build: Callable[[], Tensor]) -> Tensor:
        """A matrix that is built on first use on a device."""
        if (name, dtype) not in self._matrices:
            # Outside inference mode, or training could not use it afterwards.
            with torch.inference_mode(False), torch.no_grad():
                self._matrices[name, dtype] = build().to(dtype)
        return self._matrices[name, dtype]

    def csr_parts(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Operator `index` in CSR form: starts of rows [N + 1], columns, values."""
        return self._csr_parts(operator_name(index, transposed=False))

    def _csr_parts(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """The buffers of an operator: starts of rows, columns, values."""
        rows, columns, values = (
            self.get_buffer(f"{name}_{part}") for part in ("rows", "columns", "values")
        )
        return rows, columns, values

    def scratch(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Temporary memory on the device: `Scratch.block`.

        A layer that allocates at every time step spends much of a large step on page faults:
        allocators return large blocks to the system.
        """
        return self._scratch.block(name, shape, dtype, self.edge_weight.device)

    @property
    def built_bytes(self) -> int:
        """Bytes of the operators that are built, beside the buffers."""
        return sum(each.nbytes for each in self._matrices.values() if not each.is_sparse_csr)

    def free_memory(self) -> None:
        """Free scratch memory and operators; layers allocate and build them again."""
        self._matrices.clear()
        self._scratch = Scratch()

    def take_memory(self) -> object:
        """Scratch memory and operators: they stay where they are as long as the result lives.

        Layers use the same operators, until the module moves, and other scratch memory.
        """
        taken, self._scratch = self._scratch, Scratch()
        return taken, tuple(self._matrices.values())

    def _register(self, name: str, operator: CsrMatrix) -> None:
        """Register an operator as three buffers; MKL and cuSPARSE take int32 indices."""
        parts = {
            "rows": operator.indptr.astype(np.int32),
            "columns": operator.indices.astype(np.int32),
            "values": operator.data.astype(np.float32),
        }
        for part, array in parts.items():
            self.register_buffer(f"{name}_{part}", torch.tensor(array), persistent=False)

    def _matrix(self, name: str, dtype: torch.dtype) -> Tensor:
        """The operator as torch multiplies it fastest; built on first use on a device."""
        matrix = self._matrices.get((name, dtype))
        if matrix is None:
            matrix = self._built(name, dtype, lambda: self._build_matrix(name, dtype))
        return matrix

    def _build_matrix(self, name: str, dtype: torch.dtype) -> Tensor:
        """CSR over the buffers (sharing their memory), or dense where that is faster."""
        rows, columns, values = self._csr_parts(name)
        matrix = csr_matrix(rows, columns, values.to(dtype))
        density = values.numel() / self.num_nodes**2
        limits = self.dense or dense_limits(values.device)
        if density >= limits.density and self.num_nodes <= limits.nodes:
            return matrix.to_dense()
        return matrix

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the buffers, and drop matrices and scratch memory of the old ones."""
        self.free_memory()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles have the buffers; a copy builds matrices over its own."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_matrices", "_scratch", "handle")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_matrices": {}, "_scratch": Scratch()})  # type: ignore[no-untyped-call]
        self.handle = new_handle(self)


def operator_name(index: int, *, transposed: bool) -> str:
    """Name under which an operator's buffers are registered."""
    return f"operator_{index}_transposed" if transposed else f"operator_{index}"
