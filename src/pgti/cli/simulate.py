"""`pgti simulate`: a store of simulated traffic."""

from pathlib import Path

from pgti.cli.flags import JsonFlag
from pgti.cli.info import log_store, store_facts
from pgti.cli.output import print_results
from pgti.errors import ConfigError

__all__ = ["simulate_command"]

_DEFAULT_SENSORS = 64


def simulate_command(
    *,
    out: Path,
    sensors: int | None = None,
    steps: int = 8064,
    graph: Path | None = None,
    edges: tuple[str, ...] = (),
    seed: int = 1,
    start: str = "2025-01-06T00:00",
    interval_seconds: int = 300,
    outage_fraction: float = 0.02,
    overwrite: bool = False,
    json: JsonFlag = False,
) -> None:
    """Create a store of simulated traffic speeds, in mph to one decimal.

    The series has daily and weekly cycles, congestion that spreads along the edges, noise and
    sensor outages; the same seed gives the same series. Use it for examples, tests and scaling
    measurements: accuracy on it does not transfer to real roads.

    Args:
        out: The store to create.
        sensors: Number of sensors. By default that of the graph, or 64 without a graph.
        steps: Number of time steps.
        graph: Graph file to simulate on, with edges in driving direction. By default a random
            road-like graph.
        edges: Arrays or columns of that file: (source, target) or (source, target, weight).
        seed: Random seed.
        start: Time of the first time step, ISO 8601.
        interval_seconds: Seconds between time steps.
        outage_fraction: Fraction of readings that are missing.
        overwrite: Replace an existing store, once the new one is complete.
    """
    from pgti.cli.progress import progress_bars
    from pgti.datasets.simulated import SimulationOptions
    from pgti.datasets.simulated import simulate as simulate_store
    from pgti.ingestion import IngestOptions, read_graph
    from pgti.store import parse_time

    if edges and graph is None:
        raise ConfigError(
            f"--edges is {','.join(edges)} and --graph is missing: name the graph file"
        )
    road, ids = (None, None) if graph is None else read_graph(graph, IngestOptions(edges=edges))
    if sensors is None:
        sensors = _DEFAULT_SENSORS if road is None else road.num_nodes
    options = SimulationOptions(
        sensors=sensors,
        steps=steps,
        seed=seed,
        start=parse_time("start", start),
        interval_seconds=interval_seconds,
        outage_fraction=outage_fraction,
    )
    with progress_bars("simulate") as bars:
        store = simulate_store(
            out,
            options,
            road,
            node_ids=ids,
            overwrite=overwrite,
            progress=lambda done: bars.rows(done, steps),
        )
    log_store(store)
    print_results(store_facts(store), as_json=json)
