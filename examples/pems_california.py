"""A year of all California on a small machine: from a graph file to metrics and forecasts.

The graph is real: the 11,160 sensors of California's freeways and the road distances between them.
The observations are simulated on that graph, because no five-minute series of all its sensors is
available. Such a series is SEMI-SYNTHETIC. It shows that pgti handles a data set of this size, in
how much memory and how fast; the printed metrics say nothing about real roads.

    python examples/pems_california.py pems_11k_graph.npz

By default it simulates a year (105,120 steps, 2.3 GB as int16, about a minute), trains a two-layer
DCRNN for 30 optimizer steps, evaluates 200 windows spread over the test split, and forecasts the
hour after the end of the series. Standard preprocessing would hold 419 GiB of windows for it. For
a trial of two weeks and three steps:

    python examples/pems_california.py pems_11k_graph.npz \
        --steps 4032 --max-steps 3 --windows 16 --out build/pems-trial

Any graph file works that `pgti ingest` reads without --edges: a dense matrix (.npy, .npz, .csv),
the CSR arrays of a sparse one (.npz), or DCRNN's adj_mx.pkl. The store is simulated once: another
--run trains on it again. `make bench-memory` measures the memory of all this.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pgti
from pgti.ingestion import read_graph

SHOWN_STEPS = ("3", "6", "12")  # 15, 30 and 60 minutes


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, train, evaluate and forecast; print the metrics."""
    options = parse_options(arguments)
    try:
        run_example(options)
    except pgti.PgtiError as error:
        sys.exit(f"error: {error}")


def run_example(options: argparse.Namespace) -> None:
    """From store to metrics."""
    store = open_store(options.graph, options.out / "store", options.steps)
    with timed("training"):
        run = pgti.train(
            store,
            options.out / options.run,
            model_options={"hidden": options.hidden},
            batch_size=options.batch_size,
            max_steps=options.max_steps,
            val_windows=options.windows,
        )
    with timed("evaluating"):
        report = run.evaluate("test", max_windows=options.windows).to_dict()["test"]
    forecast = options.out / f"{options.run}.npz"
    with timed("forecasting"):
        run.predict(forecast)
    print_metrics(report)
    print(f"the next {run.config.windows.horizon} steps of every sensor are in {forecast}")


def open_store(graph_file: Path, path: Path, steps: int) -> pgti.SeriesStore:
    """The store at `path`; simulated on the graph if it does not exist yet."""
    if not path.exists():
        graph, sensor_ids = read_graph(graph_file, pgti.IngestOptions())
        options = pgti.SimulationOptions(sensors=graph.num_nodes, steps=steps)
        with timed(f"simulating {steps:,} steps of {graph.num_nodes:,} sensors"):
            pgti.simulate(path, options, graph, node_ids=sensor_ids)
    store = pgti.SeriesStore.open(path)
    num_steps, num_nodes, _ = store.meta.shape
    print(
        f"{path}: semi-synthetic, simulated observations on the graph {graph_file.name}: "
        f"{num_steps:,} steps, {num_nodes:,} sensors, {store.meta.num_edges:,} edges, "
        f"{store.num_bytes / 1e9:.2f} GB"
    )
    return store


def print_metrics(report: dict[str, Any]) -> None:
    """Print the MAE in mph of the model and both baselines."""
    print(
        f"MAE in mph over {report['windows']:,} of {report['split_windows']:,} test windows "
        "(semi-synthetic observations)"
    )
    steps = [step for step in SHOWN_STEPS if step in report["mae"]]
    print(f"{'':20s}" + "".join(f"{f'step {step}':>10s}" for step in steps) + f"{'mean':>10s}")
    rows = {"dcrnn": report} | {
        name: report[name] for name in ("persistence", "historical-average")
    }
    for name, metrics in rows.items():
        cells = (metrics["mae"][step] for step in (*steps, "mean"))
        print(f"{name:20s}" + "".join(f"{cell:10.3f}" for cell in cells))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what the block does, and how long it took."""
    print(f"{what} ...", flush=True)
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.1f} s", flush=True)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graph", type=Path, help="graph file, such as pems_11k_graph.npz")
    parser.add_argument("--out", type=Path, default=Path("build/pems-california"))
    parser.add_argument("--run", default="run", help="name of the run in that directory")
    parser.add_argument("--steps", type=int, default=105_120, help="time steps of the series")
    parser.add_argument("--max-steps", type=int, default=30, help="optimizer steps")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=16, help="hidden units of each layer")
    parser.add_argument("--windows", type=int, default=200, help="evaluate at most so many windows")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
