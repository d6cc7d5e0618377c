"""How much layers compute at a time, and which products are dense, for each kind of device.

A CPU computes in pieces that stay in its caches. A GPU has no use for that: each piece is another
launch of every kernel, some 6 us of the host, so there pieces are bounded by memory alone.

The limits of CPUs were measured. Those of GPUs are estimates: none has been measured on one.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch

__all__ = [
    "CPU_LIMITS",
    "ChunkLimits",
    "DenseLimits",
    "chunk_limits",
    "dense_limits",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkLimits:
    """How much layers compute at a time. Other limits change memory, speed and rounding.

    The defaults are those of CPUs.

    Attributes:
        activations: numbers of a recurrent layer that are not stored for a backward pass: the
            projected inputs of some time steps. 64 MiB in float32.
        tokens: of a transformer layer. At width 152 its activations take 9 KiB a token.
        gates: numbers of a `gated_convolution`: 1 MiB stays in a CPU's caches.
        window: inputs and gates of a `gated_window_convolution`. From 2^18 to 2^21 the time on a
            CPU differs by a tenth; without a limit it is a fifth longer.
        scores: of pairs of nodes, among which `nearest` chooses. 64 MiB in float32.
        graph_features: columns of a product with a learned graph, which then stay in cache: with
            303 nodes and 21 neighbours, half the time of all 26,624 columns on a CPU.
        mix_hop_features: numbers of a node in a `mix_hop_convolution`.
        mix_hop_numbers: the same of all nodes. With both limits 303 nodes take a fifth less time on
            a CPU, and 11,160 nodes the same time in a few dozen MiB.
        stored_weights: numbers in the weight matrices of all nodes up to which `NodeWeights` stores
            them. 64 MiB in float32, and as much for their gradient.
        node_weights: numbers in the weight matrices of some nodes, beyond: 4 MiB stay in cache.
    """

    activations: int = 1 << 24
    tokens: int = 1 << 16
    gates: int = 1 << 18
    window: int = 1 << 20
    scores: int = 1 << 24
    graph_features: int = 2048
    mix_hop_features: int = 1024
    mix_hop_numbers: int = 1 << 23
    stored_weights: int = 1 << 24
    node_weights: int = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseLimits:
    """Which products with a graph are dense. The defaults are those of CPUs.

    Attributes:
        density: fraction of non-zeros from which a dense [N, N] matrix multiplies faster than CSR:
            on two AVX-512 cores with MKL, N = 20 .. 2000, F = 96 .. 4096, CSR takes 0.8 to 1.9
            times as long as dense at 15 %, and 0.3 to 1.0 times at 8 %.
        nodes: N up to which such a matrix is stored dense too: one of 4096 nodes takes 64 MiB in
            float32, and the dual random walk has four.
        stacked: numbers in the powers of all operators up to which they are one dense matrix,
            [N, H, N], and the hops of a state one product; 0 never. On a CPU sparse products win.
    """

    density: float = 0.15
    nodes: int = 4096
    stacked: int = 0


CPU_LIMITS = ChunkLimits()

_ALL = 1 << 62
"""More than any tensor has: one piece."""

# Of a GPU with 64 GiB: what is bounded by memory grows and shrinks with it.
_GPU_LIMITS = ChunkLimits(
    activations=1 << 28,
    tokens=1 << 19,
    gates=_ALL,
    window=_ALL,
    scores=1 << 28,
    graph_features=_ALL,
    mix_hop_features=_ALL,
    mix_hop_numbers=_ALL,
    stored_weights=1 << 29,
    node_weights=1 << 26,
)
_BOUNDED_BY_MEMORY = ("activations", "tokens", "scores", "stored_weights", "node_weights")
_GPU_MEMORY_GIB = 64

# A dense product of [H N, N] and [N, 2048] takes about as long as the launches of four sparse ones
# at H = 5 and N = 500 in float32, and N = 1000 in TF32, at 50 and 200 TFLOP/s: 2^21 numbers are
# N = 647. CSR has a tenth of the throughput of dense products or less: hence the density.
_GPU_DENSE = DenseLimits(density=0.05, nodes=4096, stacked=1 << 21)


def chunk_limits(device: torch.device) -> ChunkLimits:
    """The limits of layers on a device."""
    return CPU_LIMITS if device.type == "cpu" else _gpu_limits(_memory_gib(device))


def dense_limits(device: torch.device) -> DenseLimits:
    """The limits of dense products on a device."""
    return DenseLimits() if device.type == "cpu" else _GPU_DENSE


@cache
def _gpu_limits(memory_gib: int) -> ChunkLimits:
    """Halved, or doubled, as often as the memory is."""
    doublings = memory_gib.bit_length() - _GPU_MEMORY_GIB.bit_length()
    factor = 2.0**doublings
    scaled = {name: int(getattr(_GPU_LIMITS, name) * factor) for name in _BOUNDED_BY_MEMORY}
    return replace(_GPU_LIMITS, **scaled)


@cache
def _memory_gib(device: torch.device) -> int:
    """Memory of a GPU; of a device without any, such as `meta`, that of an ordinary GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return _GPU_MEMORY_GIB
    total: int = torch.cuda.get_device_properties(device).total_memory
    return max(1, round(total / 2**30))
