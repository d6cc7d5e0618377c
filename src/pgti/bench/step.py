"""A training step: ours, its matrix products alone, and PGT's, in alternation.

Each runs in a process of its own, so that its peak memory is its own. The matrix products are
recorded from our step and run alone on buffers of the same shapes: no step can be faster.

The layers compared are `DiffusionGRU` and PGT's `BatchedDCRNN`, each with a linear map to one
target: the same hidden size, the same recurrence over the same steps, and as many sparse products
and terms of both random walks. Ours are the powers 0 .. K; PGT combines its terms by Chebyshev's
recurrence, 2 P T(k-1) - T(k-2), counts the identity, so that its K is one more, and has a second
matrix for it.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pgti.bench.contest import alternate_dropping
from pgti.bench.graphs import nearest_graph
from pgti.bench.products import ProductCount
from pgti.bench.results import Machine, Spread
from pgti.bench.step_crew import OwnProcesses, PeerProcess, StepCrew
from pgti.bench.step_options import StepOptions
from pgti.graph import SensorGraph
from pgti.training.config import Precision

__all__ = [
    "OwnFigures",
    "PeerFigures",
    "ProductFigures",
    "StepResult",
    "measure_step",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductFigures:
    """The matrix products of a step, alone.

    Args:
        count: how many, and how much arithmetic.
        dense_seconds: all dense ones, one after the other.
        sparse_seconds: all sparse ones.
    """

    count: ProductCount
    dense_seconds: Spread
    sparse_seconds: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFigures:
    """Our step in one precision.

    Args:
        precision: float32 or bfloat16.
        seconds: of a step.
        peak_bytes: most memory of its process, or of the GPU; None where the system does not tell.
        products: its matrix products, alone.
        over_products: time of the step in times of its products, both kinds.
        over_first: in times of the first precision's step; None for that one.
    """

    precision: Precision
    seconds: Spread
    peak_bytes: int | None
    products: ProductFigures
    over_products: Spread
    over_first: Spread | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerFigures:
    """A peer's step.

    Args:
        name: whose, and how it was run.
        versions: of its libraries.
        parameters: numbers that it learns.
        seconds: of a step.
        peak_bytes: most memory of its process, or of the GPU; None where the system does not tell.
        over_own: in times of our step in the first precision.
        memory_over_own: peak memory in times of ours; None where one is not known.
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
    """What `measure_step` found.

    Args:
        options: as they were asked for, the model's complete.
        nodes: sensors of the graph.
        edges: of the graph, those from a sensor to itself among them.
        parameters: numbers that our model learns.
        machine: where.
        own: our step, in each precision.
        peers: the others; empty where none was measured.
        left_out: what was not measured and why, a line each.
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
    log: Callable[[str], None] | None = None,
) -> StepResult:
    """Measure a training step in alternation with its products and with PGT's.

    Args:
        options: what to measure.
        graph: sensors and edges; a random graph of `options.nodes` if not given.
        pgt: interpreter of an environment with PGT; without one it is left out.
        log: told what is being done, a line at a time.

    Raises:
        BenchError: if one of our processes fails. A peer that fails is left out.
    """
    if graph is None:
        graph = nearest_graph(options.nodes, options.degree)
    with tempfile.TemporaryDirectory(prefix="pgti-bench-") as directory, ExitStack() as stack:
        path = Path(directory) / "graph.npz"
        graph.save(path)
        crew = StepCrew(options, path, stack, log or (lambda _line: None))
        own = [crew.start_own(precision) for precision in options.precisions]
        peers, left_out = crew.start_peers(pgt)
        contenders: dict[str, Callable[[], float]] = {}
        for each in own:
            contenders |= each.contenders()
        contenders |= {peer.name: peer.step for peer in peers}
        measures, failures = alternate_dropping(
            contenders,
            options.rounds,
            may_fail={peer.name for peer in peers},
            warmups=0,
            after_round=crew.tell_round,
        )
        figures = tuple(_own_figures(each, own[0], measures) for each in own)
        first = (measures[own[0].name], figures[0].peak_bytes)
        return StepResult(
            options=options,
            nodes=graph.num_nodes,
            edges=graph.num_edges,
            parameters=own[0].parameters,
            machine=replace(Machine.here(), threads=own[0].threads),
            own=figures,
            peers=tuple(
                _peer_figures(peer, measures[peer.name], *first)
                for peer in peers
                if peer.name in measures
            ),
            left_out=(*left_out, *failures.values()),
        )


def _own_figures(
    own: OwnProcesses, first: OwnProcesses, measures: Mapping[str, Sequence[float]]
) -> OwnFigures:
    seconds = measures[own.name]
    dense, sparse = (measures[f"{own.name} {kind}"] for kind in ("dense", "sparse"))
    products = [one + other for one, other in zip(dense, sparse, strict=True)]
    return OwnFigures(
        precision=own.precision,
        seconds=Spread.of(seconds),
        peak_bytes=own.stepping.ask(do="peak")["bytes"],
        products=ProductFigures(
            count=own.count, dense_seconds=Spread.of(dense), sparse_seconds=Spread.of(sparse)
        ),
        over_products=Spread.of_ratios(seconds, products),
        over_first=None if own is first else Spread.of_ratios(seconds, measures[first.name]),
    )


def _peer_figures(
    peer: PeerProcess, seconds: Sequence[float], own_seconds: Sequence[float], own_peak: int | None
) -> PeerFigures:
    peak: int | None = peer.worker.ask(do="peak")["bytes"]
    return PeerFigures(
        name=peer.name,
        versions=peer.versions,
        parameters=peer.parameters,
        seconds=Spread.of(seconds),
        peak_bytes=peak,
        over_own=Spread.of_ratios(seconds, own_seconds),
        memory_over_own=None if peak is None or own_peak is None else peak / own_peak,
    )
