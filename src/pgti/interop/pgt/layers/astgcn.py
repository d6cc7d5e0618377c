"""ASTGCN and MSTGCN of PyTorch Geometric Temporal as forecasters, and the eigenvalue they ask for.

What each layer is, and what is wrong with it, stands in `pgti.interop.pgt.layers.PGT_LAYERS`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse import linalg as sparse_linalg
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pgti.errors import ConfigError, option
from pgti.graph.sensor_graph import CsrMatrix
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.layers.forecaster import LayerClass, WholeForecaster
from pgti.interop.pgt.layers.recurrent import HopsConfig
from pgti.shapes import BLNC

__all__ = ["ASTGCNConfig", "MSTGCNConfig", "PgtASTGCN", "PgtMSTGCN", "largest_eigenvalue"]

_DENSE_UP_TO_NODES = 64  # an iterative solver needs more nodes

_EIGENVALUES = WeakIdKeyDictionary()  # by edges, as long as they are alive


@dataclass(frozen=True, kw_only=True, slots=True)
class MSTGCNConfig(HopsConfig):
    """Options of MSTGCN.

    Attributes:
        hidden: filters of every convolution, over the graph and over time.
        blocks: blocks of both, one after the other.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 64
    blocks: int = 2

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, blocks=1, hops=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ASTGCNConfig(MSTGCNConfig):
    """Options of ASTGCN, whose blocks begin with attention.

    Attributes:
        normalization: of the Laplacian: none, D - A, or sym, I - D^-1/2 A D^-1/2.

    Raises:
        ConfigError: an option out of range.
    """

    normalization: str = "none"

    def __post_init__(self) -> None:
        MSTGCNConfig.__post_init__(self)
        if self.normalization not in ("none", "sym"):
            raise ConfigError(f"normalization is {self.normalization!r}: it is one of none, sym")


class PgtMSTGCN(WholeForecaster):
    """Takes [B, N, C, L], and edges for each time step, as for graphs that change.

    Its path for a graph that does not change mixes nodes, channels and samples up, unless there is
    one sample of one channel.
    """

    layer_name = "MSTGCN"
    width_attribute = "_final_conv.out_channels"
    config: MSTGCNConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`MSTGCN(blocks, C, K, D, D, stride 1, outputs, L)`."""
        return layer_class(*self._arguments())

    def _arguments(self) -> tuple[Any, ...]:
        config, shape = self.config, self.shape
        filters = (config.hops + 1, config.hidden, config.hidden, 1)
        outputs = shape.horizon * shape.target_channels
        return (config.blocks, shape.input_channels, *filters, outputs, shape.input_steps)

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The forecasts."""
        value = largest_eigenvalue(edges.index, x.shape[2])
        blocks = sys.modules[type(self.layer._blocklist[0]).__module__]
        with fixed_eigenvalue(blocks, value):
            forecasts: Tensor = self.layer(x.permute(0, 2, 3, 1), self._edges(x, edges))
        return forecasts

    def _edges(self, x: BLNC, edges: Edges) -> list[Tensor] | Tensor:
        return [edges.index] * x.shape[1]


class PgtASTGCN(PgtMSTGCN):
    """Takes [B, N, C, L] and the edges: `ASTGCN(..., N, normalization)`, the rest as MSTGCN's."""

    layer_name = "ASTGCN"
    config: ASTGCNConfig

    def _arguments(self) -> tuple[Any, ...]:
        normalization = None if self.config.normalization == "none" else self.config.normalization
        return (*super()._arguments(), self.shape.num_nodes, normalization)

    def _edges(self, x: BLNC, edges: Edges) -> Tensor:
        return edges.index


def largest_eigenvalue(edge_index: Tensor, num_nodes: int) -> float:
    """Real part of the largest eigenvalue of L = D - A, the same at every call; 1 where L is 0.

    A [N, N] has a 1 for every edge that is not a self loop, D its row sums. Computed once for a
    tensor of edges [2, E].
    """
    if edge_index not in _EIGENVALUES:
        _EIGENVALUES[edge_index] = _compute(edge_index, num_nodes)
    value: float = _EIGENVALUES[edge_index]
    return value


@contextmanager
def fixed_eigenvalue(module: Any, value: float) -> Iterator[None]:
    """Inside the block, the layers of a module of PGT use this eigenvalue.

    They compute it with `LaplacianLambdaMax()(data).lambda_max`, in every block at every call and,
    where edges are given for each time step, for each of these. scipy begins every such search at
    random, so that the same forecast would differ in its last digits from call to call.
    """
    original = module.LaplacianLambdaMax
    module.LaplacianLambdaMax = lambda: lambda _: SimpleNamespace(lambda_max=value)
    try:
        yield
    finally:
        module.LaplacianLambdaMax = original


def _compute(edge_index: Tensor, num_nodes: int) -> float:
    sources, targets = edge_index.cpu().numpy()
    between = sources != targets
    sources, targets = sources[between], targets[between]
    if not len(sources):
        return 1.0
    size = (num_nodes, num_nodes)
    adjacency = sparse.csr_array((np.ones(len(sources)), (sources, targets)), shape=size)
    laplacian = (sparse.diags_array(adjacency.sum(axis=1)) - adjacency).tocsr()
    # Sorted by strongly connected components it is block triangular, so its eigenvalues are those
    # of the blocks on the diagonal. The whole of a directed chain would not converge.
    count, component = csgraph.connected_components(adjacency, connection="strong")
    order = np.argsort(component, kind="stable")
    ends = np.cumsum(np.bincount(component, minlength=count))
    blocks = np.split(order, ends[:-1])
    values = [_largest(laplacian[nodes][:, nodes]) for nodes in blocks]
    return float(values[np.argmax(np.abs(values))].real)


def _largest(laplacian: CsrMatrix) -> complex:
    """The eigenvalue of the largest absolute value.

    Raises:
        ConfigError: if the search for it does not converge.
    """
    num_nodes = laplacian.shape[0]
    if num_nodes <= _DENSE_UP_TO_NODES:
        values = np.linalg.eigvals(laplacian.toarray())
    else:
        start = np.random.default_rng(0).random(num_nodes)
        try:
            values = sparse_linalg.eigs(laplacian, k=1, v0=start, return_eigenvectors=False)
        except sparse_linalg.ArpackNoConvergence:
            raise ConfigError(
                f"the largest eigenvalue of the graph, {num_nodes} sensors of it in one piece, is "
                f"not found, and this layer of PGT needs it: use {option('model', 'stgcn')}"
            ) from None
    return complex(values[np.argmax(np.abs(values))])
