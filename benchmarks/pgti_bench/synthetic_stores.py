"""Simulated stores of a given shape, or a short simulated one followed by a hole.

A hole takes no disk space and reads as zeros, so a series of any length is written in seconds. It
serves measurements of memory, which does not depend on the observed values.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pgti.datasets.simulated import SimulationOptions, simulate
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.ingestion import IngestOptions, read_graph
from pgti.storage import reraise_os_errors
from pgti.store import SeriesStore, StoreMeta
from pgti.store.layout import write_rows
from pgti.store.meta import DIGESTS_FILE, META_FILE, MOMENTS_FILE, SERIES_FILE, SERIES_OFFSET
from pgti.store.parts import write_headers
from pgti.store.statistics import (
    DIGEST_BYTES,
    BlockMoments,
    ReadingsDigest,
    RunningStatistics,
    digest_of,
)
from pgti_bench.errors import BenchError
from pgti_bench.paper_datasets import DatasetShape

__all__ = [
    "SIMULATED_STEPS",
    "Road",
    "disk_usage",
    "drop_page_cache",
    "lengthen",
    "read_road",
    "scratch_directory",
    "synthetic_store",
]

SIMULATED_STEPS = 2016  # simulated steps of a sparse series: a week of five-minute intervals


def scratch_directory(within: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary directory in one that is created if it is not there, else in the system's.

    Raises:
        RunError: it cannot be created.
    """
    with reraise_os_errors(f"{within} cannot be used"):
        if within is not None:
            within.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="pgti-", dir=within)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Road:
    """A graph to simulate on.

    Attributes:
        path: file that it was read from.
        graph: the graph.
        node_ids: its sensors; None if the file does not name them.
    """

    path: Path
    graph: SensorGraph
    node_ids: tuple[str, ...] | None


def read_road(path: Path) -> Road:
    """The graph in a file that `pgti ingest` reads.

    Raises:
        DataError: the file cannot be read, or holds no graph.
    """
    graph, node_ids = read_graph(path, IngestOptions())
    return Road(path=path, graph=graph, node_ids=node_ids)


def synthetic_store(
    shape: DatasetShape,
    directory: Path,
    road: Road | None = None,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> SeriesStore:
    """A simulated store of the shape; an existing one is reused.

    Args:
        shape: steps, sensors and interval; one channel.
        directory: where it is, or will be written, under the shape's name.
        road: the graph to simulate on, if it has as many nodes as the shape; a road-like graph is
            generated otherwise.
        log: receives one line for each thing that is done.

    Raises:
        BenchError: a store of another shape or graph has that name.
        StoreError: it cannot be written, or is not a store.
    """
    path = directory / shape.name
    fits = road is not None and road.graph.num_nodes == shape.num_nodes
    if os.path.lexists(path):
        return _check(SeriesStore.open(path), shape, road if fits else None)
    options = SimulationOptions(
        sensors=shape.num_nodes,
        steps=min(SIMULATED_STEPS, shape.num_steps) if shape.is_sparse else shape.num_steps,
        interval_seconds=shape.interval_seconds,
    )
    graph, node_ids = (road.graph, road.node_ids) if road is not None and fits else (None, None)
    log(f"writing {path}: {shape.num_steps:,} steps of {shape.num_nodes:,} simulated sensors")
    if not shape.is_sparse:
        simulate(path, options, graph, node_ids=node_ids)
        return SeriesStore.open(path)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{shape.name}.", dir=directory) as scratch:
        short = Path(scratch) / "store"
        simulate(short, options, graph, node_ids=node_ids)
        log(f"{path} is sparse: after its first {options.steps:,} steps every observation is 0")
        lengthen(short, shape.num_steps)
        short.rename(path)
    return SeriesStore.open(path)


def lengthen(path: Path, num_steps: int) -> StoreMeta:
    """Append time steps to a store by a hole at the end of its series: observed values of 0.

    Its statistics and hashes are those of the longer series, so that it is a valid store. It is
    changed in place: an interruption leaves a store that cannot be opened.

    Args:
        path: the store; its times are regular.
        num_steps: its new number of time steps.

    Returns:
        Its new description.

    Raises:
        ConfigError: it has at least as many steps already, or irregular times.
        StoreError: there is no store, or it is damaged.
    """
    store = SeriesStore.open(path)
    old = store.meta
    if num_steps <= old.num_steps or not old.is_regular:
        raise ConfigError(
            f"num_steps is {num_steps} and {path} has {old.num_steps} "
            f"{'regular' if old.is_regular else 'irregular'} rows: a regular series gets longer"
        )
    digest, moments, open_moments = _lengthen_statistics(store, num_steps)
    row_bytes = store.raw[0].nbytes
    assert store.links is not None
    links = np.concatenate([store.links, digest.links_array()])
    del store
    write_rows(path / MOMENTS_FILE, moments)
    write_rows(path / DIGESTS_FILE, links)
    with (path / SERIES_FILE).open("r+b") as file:
        file.truncate(SERIES_OFFSET + num_steps * row_bytes)
    parts = old.parts | {
        MOMENTS_FILE: digest_of(moments),
        DIGESTS_FILE: digest_of(links),
        SERIES_FILE: digest.hexdigest(),
    }
    meta = replace(old, num_steps=num_steps, parts=parts, open_moments=open_moments)
    write_headers(path, meta)
    (path / META_FILE).write_text(meta.to_json(), encoding="utf-8")
    return meta


def drop_page_cache(directory: Path) -> None:
    """Drop the pages of a directory's files from the page cache, where the system can.

    Pages are charged to the control group that first reads them: a group whose pages others have
    read would seem to need none.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # dirty pages cannot be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_usage(directory: Path) -> int:
    """Bytes that the files of a directory take on disk, without holes."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _check(store: SeriesStore, shape: DatasetShape, road: Road | None) -> SeriesStore:
    meta = store.meta
    wanted = (shape.num_steps, shape.num_nodes, 1)
    if meta.shape != wanted:
        raise BenchError(
            f"{store.path} is a store of {meta.shape} and {shape.name} is {wanted}: remove it or "
            "choose another --workdir"
        )
    if road is not None and meta.num_edges != road.graph.num_edges:
        raise BenchError(
            f"{store.path} has {meta.num_edges} edges and {road.path} has {road.graph.num_edges}: "
            "remove it or choose another --workdir"
        )
    return store


def _lengthen_statistics(
    store: SeriesStore, num_steps: int
) -> tuple[ReadingsDigest, np.ndarray, tuple[tuple[float, float, float], ...]]:
    """Digest, moments of whole blocks [blocks, C, 3] and of the open one; zeros were appended."""
    meta, sizes = store.meta, store.meta.sizes
    assert store.links is not None  # what it has simulated is of the newest format
    link = store.links[-1].tobytes() if len(store.links) else bytes(DIGEST_BYTES)
    statistics = RunningStatistics.resume(
        sizes, meta.num_steps, meta.open_moments, link, store.read
    )
    moments, digest = statistics.moments, statistics.digest

    def zeros(rows: int) -> np.ndarray:
        return np.zeros((rows, meta.num_nodes, meta.num_channels), dtype=np.float32)

    while digest.num_rows < num_steps:
        digest.update(zeros(min(sizes.group_rows, num_steps - digest.num_rows)))
    begun = min(num_steps - moments.num_rows, -moments.num_rows % sizes.block_rows)
    moments.update(zeros(begun))
    whole = (num_steps - moments.num_rows) // sizes.block_rows
    blocks = [*store.block_moments, *moments.blocks]
    if whole:  # all alike
        one = BlockMoments(sizes)
        one.update(zeros(sizes.block_rows))
        blocks += one.blocks * whole
    last = BlockMoments(sizes) if whole else moments
    last.update(zeros(num_steps - moments.num_rows - whole * sizes.block_rows))
    return digest, np.array(blocks).reshape(-1, meta.num_channels, 3), last.open_moments()
