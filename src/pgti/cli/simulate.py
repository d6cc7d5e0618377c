"""`pgti simulate`: a store of simulated traffic."""

from pathlib import Path

from pgti.cli.info import store_summary
from pgti.cli.output import log, print_json
from pgti.cli.row_progress import rows_progress
from pgti.datasets.simulated import SimulationOptions
from pgti.datasets.simulated import simulate as simulate_store
from pgti.errors import ConfigError
from pgti.ingest import IngestOptions, read_graph
from pgti.run import parse_time
from pgti.store import SeriesStore

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
    json: bool = False,
) -> None:
    """Write a store of simulated traffic speeds in mph, on a 0.1 grid.

    Daily and weekly rhythm, congestion that travels along the edges, noise and sensor outages;
    the same seed gives the same series. It serves examples, tests and measurements of scale:
    accuracy on it says nothing about real roads.

    Args:
        out: The store to make.
        sensors: Number of sensors; those of the graph, or else 64, if not given.
        steps: Number of time steps.
        graph: Graph file to simulate on, whose edges point in the driving direction; without one
            a road-like graph is made.
        edges: Arrays or columns (source, target) or (source, target, weight) of that file.
        seed: Seed of everything that is random.
        start: Time of the first step.
        interval_seconds: Seconds between steps.
        outage_fraction: Sharding of readings that are missing.
        overwrite: Replace an existing store once the new one is complete.
        json: Print one JSON object as the last line of standard output.
    """
    if edges and graph is None:
        raise ConfigError(f"--edges names {', '.join(edges)} and there is no --graph: name a file")
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
    with rows_progress("simulate") as progress:
        simulate_store(
            out,
            options,
            road,
            node_ids=ids,
            overwrite=overwrite,
            progress=None if progress is None else lambda done: progress(done, steps),
        )
    log(f"{steps:,} steps of {sensors:,} sensors are in {out}")
    if json:
        print_json(store_summary(SeriesStore.open(out)))
