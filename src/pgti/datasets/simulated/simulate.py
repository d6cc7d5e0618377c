"""Writing a simulated store chunk by chunk."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.datasets.simulated.options import STRETCH_STEPS, SimulationOptions
from pgti.datasets.simulated.road import road_graph
from pgti.datasets.simulated.traffic import Traffic
from pgti.display import count_of
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.options import check_names, require_path
from pgti.signatures import accept_options
from pgti.store import SeriesStore, StoreWriter

__all__ = ["simulate", "simulated_chunks"]


@accept_options(SimulationOptions)
def simulate(
    target: Path | str,
    options: SimulationOptions | None = None,
    graph: SensorGraph | None = None,
    *,
    node_ids: tuple[str, ...] | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
    **more: Any,
) -> SeriesStore:
    """Write a store of simulated speeds: one channel, `speed`, in mph on a grid of 0.1.

    Args:
        target: the store to create.
        options: size, seed and clock; the keywords below come first.
        graph: road graph whose edges point in the driving direction; None draws one from the seed.
            Without `options`, its nodes are the sensors.
        node_ids: sensor ids; None numbers the sensors from "0".
        overwrite: replace an existing store.
        progress: called after each chunk with the number of steps written so far.
        **more: options of `SimulationOptions`:

    Returns:
        The new store, opened.

    Raises:
        ConfigError: if the graph, the ids and `options.sensors` disagree.
        StoreError: if the target exists or cannot be written.
    """
    check_names(more, SimulationOptions.__slots__)
    if options is None:
        sensors = {} if graph is None else {"sensors": graph.num_nodes}
        options = SimulationOptions(**{**sensors, **more})
    else:
        options = replace(options, **more)
    target = require_path("target", target)
    graph = _choose_graph(options, graph)
    if node_ids is None:
        node_ids = tuple(str(node) for node in range(options.sensors))
    if len(node_ids) != options.sensors:
        raise ConfigError(
            f"{count_of(len(node_ids), 'sensor id')} for {count_of(options.sensors, 'sensor')}: "
            "give one for each"
        )
    writer = StoreWriter(
        target,
        node_ids=node_ids,
        channels=("speed",),
        units=("mph",),
        graph=graph,
        overwrite=overwrite,
    )
    with writer, closing(_prefetch(simulated_chunks(options, graph))) as chunks:
        writer.check_room(options.steps)
        for chunk in chunks:
            writer.append(chunk)
            if progress is not None:
                progress(writer.num_steps)
        writer.finish(
            start=options.start.astype("datetime64[s]"),
            interval_seconds=options.interval_seconds,
        )
    return SeriesStore.open(target, verify_up_to_bytes=0)


def simulated_chunks(
    options: SimulationOptions, graph: SensorGraph | None = None
) -> Iterator[NDArray[np.float32]]:
    """Simulated speeds without a store, in chunks [rows, N, 1] of `options.chunk_steps` rows.

    Args:
        options: size, seed and clock.
        graph: as in `simulate`.

    Raises:
        ConfigError: at the first chunk, if the graph and `options.sensors` disagree.
    """
    traffic = Traffic(options, _choose_graph(options, graph))
    for first in range(0, options.steps, options.chunk_steps):
        num_rows = min(options.chunk_steps, options.steps - first)
        chunk = np.empty((num_rows, options.sensors, 1), dtype=np.float32)
        for row in range(0, num_rows, STRETCH_STEPS):
            rows = chunk[row : row + STRETCH_STEPS, :, 0]
            rows[:] = traffic.advance()[: len(rows)]
        yield chunk


def _choose_graph(options: SimulationOptions, graph: SensorGraph | None) -> SensorGraph:
    if graph is None:
        return road_graph(options.sensors, options.seed)
    if graph.num_nodes != options.sensors:
        raise ConfigError(
            f"the graph has {count_of(graph.num_nodes, 'node')} and sensors is {options.sensors}: "
            "they must be the same"
        )
    return graph


def _prefetch(chunks: Iterator[NDArray[np.float32]]) -> Generator[NDArray[np.float32]]:
    """The same chunks, each computed in a thread while the one before it is written."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk
