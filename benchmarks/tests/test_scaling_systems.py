"""The baselines of the scaling study make the batches that index-batching makes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pgti.batching import Batch, WindowSource, build_batcher
from pgti.distributed import SingleProcess
from pgti.graph import SensorGraph
from pgti.store import SeriesStore, StoreWriter
from pgti.windows import WindowSpec
from pgti_bench.scaling.dask import CHUNK_WINDOWS, DaskBatcher, dask_windows
from pgti_bench.scaling.options import SYSTEMS
from pgti_bench.scaling.systems import build_system_loader
from pgti_bench.scaling.windows import MaterializedBatcher, window_source, write_windows

SPEC = WindowSpec(input_steps=4, horizon=3)
STARTS = np.array([7, 100, 0, 101, 68])


def source_in(directory: Path) -> tuple[WindowSource, range]:
    """Windows of 200 steps of 5 sensors, a tenth of them missing."""
    generator = np.random.default_rng(2)
    values = generator.integers(100, 700, (200, 5, 1)) / np.float32(10)
    values[generator.random(values.shape) < 0.1] = np.nan
    nodes = np.arange(5)
    graph = SensorGraph.from_edges(5, nodes, (nodes + 1) % 5, nodes + 1)
    with StoreWriter(
        directory / "store", node_ids=tuple("abcde"), channels=("speed",), graph=graph
    ) as writer:
        writer.append(values.astype(np.float32))
        writer.finish(start=np.datetime64("2025-01-06T00:00"), interval_seconds=300)
    return window_source(SeriesStore.open(directory / "store"), SPEC)


def assert_near(left: Batch, right: Batch, tolerance: float) -> None:
    """The same windows, but for rounding."""
    for name in ("x", "y"):
        torch.testing.assert_close(
            getattr(left, name), getattr(right, name), rtol=tolerance, atol=tolerance
        )
    assert left.y_mask is not None
    assert right.y_mask is not None
    assert torch.equal(left.y_mask, right.y_mask)
    assert left.x_mask.shape == right.x_mask.shape
    assert left.calendar.shape == right.calendar.shape


def test_windows_in_a_file_are_those_of_index_batching(tmp_path: Path) -> None:
    """Bit for bit."""
    source, starts = source_in(tmp_path)
    written = write_windows(source, starts, tmp_path)
    assert written == len(starts) * 5 * 4 * (4 * 2 + 3)
    expected = build_batcher("index", source, torch.device("cpu")).gather(STARTS)
    assert_near(MaterializedBatcher(source, starts, tmp_path).gather(STARTS), expected, 0.0)


def test_windows_that_dask_holds_are_those_of_index_batching(tmp_path: Path) -> None:
    """In float64, inputs and targets with the time of day, and in more than one chunk."""
    dask = pytest.importorskip("dask")
    source, starts = source_in(tmp_path)
    with dask.config.set(scheduler="synchronous"):
        x, y = dask_windows(source, starts)
        assert (x.shape, y.shape) == ((136, 4, 5, 2), (136, 3, 5, 2))
        assert x.dtype == y.dtype == np.float64
        assert x.chunks[0] == (CHUNK_WINDOWS, CHUNK_WINDOWS, 12)
        made = DaskBatcher(source, starts, x, y).gather(STARTS)
    expected = build_batcher("index", source, torch.device("cpu")).gather(STARTS)
    assert_near(made, expected, 1e-5)


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "dask"])
def test_every_system_uses_each_window_once_an_epoch(system: str, tmp_path: Path) -> None:
    source, starts = source_in(tmp_path)
    write_windows(source, starts, tmp_path)
    loader = build_system_loader(
        system, source, starts, SingleProcess(), batch_size=32, seed=0, place=str(tmp_path)
    )
    used = np.concatenate([batch.starts for batch in loader.epoch(0)])
    assert len(used) == len(starts) == 136
    assert set(used.tolist()) == set(starts)
