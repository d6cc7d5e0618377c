"""A training step of pgti, its matrix products alone, and PGT's step, interleaved.

Each runs in a separate process, so that its peak memory is its own. The matrix products are
recorded from pgti's step and run alone on buffers of the same shapes: no step can be faster.

The layers compared are `DiffusionGRU` and PGT's `BatchedDCRNN`, each with a linear map to one
target: the same hidden size, the same recurrence over the same steps, and equally many sparse
products and terms of both random walks. pgti's terms are the powers 0 .. K; PGT combines its terms
by Chebyshev's recurrence, 2 P T(k-1) - T(k-2), counts the identity, so that its K is one more, and
has a second matrix for it.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pgti.graph import SensorGraph
from pgti.run.results import Machine, Spread
from pgti.training.config import Precision
from pgti_bench.interleave import interleave_dropping, spread_of_ratios
from pgti_bench.step.options import StepOptions, nearest_graph
from pgti_bench.step.products import ProductCount
from pgti_bench.step.workers import OwnWorkers, PeerWorker, StepWorkers

__all__ = [
    "CompiledFigures",
    "OwnFigures",
    "PeerFigures",
    "ProductFigures",
    "StepResult",
    "measure_step",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductFigures:
    """The matrix products of a step, alone.

    Attributes:
        count: their number and arithmetic.
        dense_seconds: of all dense products, one after the other.
        sparse_seconds: of all sparse products.
    """

    count: ProductCount
    dense_seconds: Spread
    sparse_seconds: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledFigures:
    """pgti's step, compiled.

    Attributes:
        first_seconds: of the first step, which compiles.
        seconds: of a step.
        peak_bytes: peak memory of its process, the compiler's included, or of the GPU; None where
            it is not reported.
        over_eager: time over that of the uncompiled step.
    """

    first_seconds: float
    seconds: Spread
    peak_bytes: int | None
    over_eager: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFigures:
    """pgti's step in one precision.

    Attributes:
        precision: float32 or bfloat16.
        seconds: of a step.
        peak_bytes: peak memory of its process, or of the GPU; None where it is not reported.
        products: its matrix products alone.
        over_products: time of the step over that of its products, both kinds.
        over_first: time over that of the first precision's step; None for the first.
        compiled: the compiled step; None if it was not measured.
    """

    precision: Precision
    seconds: Spread
    peak_bytes: int | None
    products: ProductFigures
    over_products: Spread
    over_first: Spread | None
    compiled: CompiledFigures | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerFigures:
    """PGT's step.

    Attributes:
        name: how it was run.
        versions: of its libraries.
        parameters: number of trainable parameters.
        seconds: of a step.
        peak_bytes: peak memory of its process, or of the GPU; None where it is not reported.
        over_own: time over that of pgti's step in the first precision.
        memory_over_own: peak memory over that of pgti; None if either is unknown.
    """

    name: str
    versions: Mapping[str, str]
    parameters: int
    seconds: Spread
    peak_bytes: int | None
    over_own: Spread
    memory_over_own: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """The result of `measure_step`.

    Attributes:
        options: as given, the model's complete.
        nodes: sensors of the graph.
        edges: of the graph, self-loops included.
        parameters: number of trainable parameters of pgti's model.
        machine: where it was measured.
        own: pgti's step, in each precision.
        peers: PGT's steps; empty if none was measured.
        left_out: what was not measured and why, one line each.
    """

    options: StepOptions
    nodes: int
    edges: int
    parameters: int
    machine: Machine
    own: tuple[OwnFigures, ...]
    peers: tuple[PeerFigures, ...]
    left_out: tuple[str, ...]


def measure_step(
    options: StepOptions,
    graph: SensorGraph | None = None,
    *,
    pgt: Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> StepResult:
    """Measure a training step interleaved with its products alone and with PGT's step.

    Args:
        options: what to measure.
        graph: sensors and edges; a random graph of `options.nodes` if not given.
        pgt: interpreter of an environment with PGT; PGT is left out if not given.
        log: receives one line for each thing that is done.

    Raises:
        BenchError: if one of pgti's processes fails. A PGT process that fails is left out.
    """
    if graph is None:
        graph = nearest_graph(options.nodes, options.degree)
    with tempfile.TemporaryDirectory(prefix="pgti-bench-") as directory, ExitStack() as stack:
        path = Path(directory) / "graph.npz"
        graph.save(path)
        workers = StepWorkers(options, path, stack, log)
        own = [workers.start_own(precision) for precision in options.precisions]
        peers, left_out = workers.start_peers(pgt)
        contenders: dict[str, Callable[[], float]] = {}
        for each in own:
            contenders |= each.contenders()
        contenders |= {peer.name: peer.step for peer in peers}
        measurements, failures = interleave_dropping(
            contenders,
            options.rounds,
            may_fail={peer.name for peer in peers},
            warmups=0,
            after_round=workers.log_round,
        )
        figures = tuple(_own_figures(each, own[0], measurements) for each in own)
        first = (measurements[own[0].name], figures[0].peak_bytes)
        return StepResult(
            options=options,
            nodes=graph.num_nodes,
            edges=graph.num_edges,
            parameters=own[0].parameters,
            machine=replace(Machine.here(), threads=own[0].threads),
            own=figures,
            peers=tuple(
                _peer_figures(peer, measurements[peer.name], *first)
                for peer in peers
                if peer.name in measurements
            ),
            left_out=(*left_out, *failures.values()),
        )


def _own_figures(
    own: OwnWorkers, first: OwnWorkers, measurements: Mapping[str, Sequence[float]]
) -> OwnFigures:
    seconds = measurements[own.name]
    dense, sparse = (measurements[f"{own.name} {kind}"] for kind in ("dense", "sparse"))
    products = [one + other for one, other in zip(dense, sparse, strict=True)]
    return OwnFigures(
        precision=own.precision,
        seconds=Spread.of(seconds),
        peak_bytes=own.stepping.ask(do="peak")["bytes"],
        products=ProductFigures(
            count=own.count, dense_seconds=Spread.of(dense), sparse_seconds=Spread.of(sparse)
        ),
        over_products=spread_of_ratios(seconds, products),
        over_first=None if own is first else spread_of_ratios(seconds, measurements[first.name]),
        compiled=_compiled_figures(own, measurements),
    )


def _compiled_figures(
    own: OwnWorkers, measurements: Mapping[str, Sequence[float]]
) -> CompiledFigures | None:
    if own.compiled is None or own.compile_seconds is None:
        return None
    seconds = measurements[f"{own.name} compiled"]
    return CompiledFigures(
        first_seconds=own.compile_seconds,
        seconds=Spread.of(seconds),
        peak_bytes=own.compiled.ask(do="peak")["bytes"],
        over_eager=spread_of_ratios(seconds, measurements[own.name]),
    )


def _peer_figures(
    peer: PeerWorker, seconds: Sequence[float], own_seconds: Sequence[float], own_peak: int | None
) -> PeerFigures:
    peak: int | None = peer.worker.ask(do="peak")["bytes"]
    return PeerFigures(
        name=peer.name,
        versions=peer.versions,
        parameters=peer.parameters,
        seconds=Spread.of(seconds),
        peak_bytes=peak,
        over_own=spread_of_ratios(seconds, own_seconds),
        memory_over_own=None if peak is None or own_peak is None else peak / own_peak,
    )
