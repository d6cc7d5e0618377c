"""Small sources of windows, their batchers, and what it means that two batches are the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgti.batching import Batch, Batcher, BatchRequest, WindowSource, build_batcher
from pgti.batching.assembler import TorchAssembler
from pgti.batching.batcher import WindowBatcher
from pgti.batching.config import Fill
from pgti.batching.decoded import DecodedBatcher
from pgti.batching.device_rows import DeviceRows
from pgti.batching.host_rows import HostRows
from pgti.batching.mapped_series import MappedSeries
from pgti.batching.numpy_assembler import PIECE_READINGS, NumpyAssembler
from pgti.batching.rows import PAGE_ROWS, RowFeatures
from pgti.batching.standard import StandardBatcher
from pgti.graph import SensorGraph
from pgti.store import Scaler, SeriesStore, StoreWriter, TypicalReadings
from pgti.store.static_features import StaticFeatures
from pgti.windows import WindowSpec

CPU = torch.device("cpu")
DTYPES = (("float32", "int16"), ("float64", "int32"))  # by whether exact and on a grid
LEVELS = 40_000_001.0 + 1_000_003 * np.arange(50)
ENCODINGS = [
    pytest.param(grid, exact, id=DTYPES[exact][grid])
    for exact in (False, True)
    for grid in (True, False)
]
"""Values of `grid` and `exact`."""
GRIDS = np.array([10, 2, 4])
START = np.datetime64("2025-10-01T00:00")
COVARIATES = ("future", "future_mask", "static", "static_codes", "history", "history_mask")


def make_source(
    target: Path,
    shape: tuple[int, int, int],
    spec: WindowSpec,
    *,
    grid: bool = True,
    exact: bool = False,
    missing: float = 0.1,
    targets: tuple[int, ...] = (0,),
    calendar: tuple[str, ...] = ("time-of-day", "day-of-week"),
    climatology: bool = False,
    fill: Fill = "last",
    observed_mask: bool = False,
    absent: Sequence[Any] = (),
    known: tuple[int, ...] = (),
    static: StaticFeatures | None = None,
) -> WindowSource:
    """Windows of a store of random readings, int16 if they lie on a grid, another per channel.

    Those of an exact store are large: float32 would have none of their last digits.

    Beside the random gaps, the readings at the indices `absent` are missing. The values of the
    channels `known` are known for four rows after the last, those of one sensor but for two.
    """
    generator = np.random.default_rng(5)
    values = generator.integers(-200, 900, shape) / (GRIDS[: shape[2]] if grid else 3)
    if exact:
        values += LEVELS[: shape[1], None]
    values[generator.random(shape) < missing] = np.nan
    values[0] = 1.0 if not exact else LEVELS[: shape[1], None]
    for index in absent:
        values[index] = np.nan
    with StoreWriter(
        target,
        node_ids=tuple(str(i) for i in range(shape[1])),
        channels=tuple("abcdef"[: shape[2]]),
        graph=SensorGraph.empty(shape[1]),
        exact=exact,
        known_future=tuple("abcdef"[channel] for channel in known),
        static=static,
    ) as writer:
        writer.append(values)
        future = values[1:5][..., list(known)].copy() if known else None
        if future is not None:
            future[2:, 0] = np.nan
        writer.finish(start=START, interval_seconds=300, future=future)
    store = SeriesStore.open(target)
    is_filled = fill == "last" and (store.meta.missing_count > 0 or bool(spec.history))
    assert store.meta.dtype == DTYPES[exact][grid]
    return WindowSource(
        store=store,
        spec=spec,
        scaler=Scaler.fit(store, range(shape[0] // 2)),
        target_indices=targets,
        calendar=calendar,
        typical=TypicalReadings.fit(store, range(shape[0] // 2))
        if climatology or is_filled
        else None,
        fill=fill,
        observed_mask=observed_mask,
        climatology=climatology,
        known_indices=store.meta.known_indices,
        static=store.static_features,
    )


def assert_same(left: Batch, right: Batch) -> None:
    """Bit for bit the same windows; -0.0 is not 0.0."""
    for name in ("x", "x_mask", "y", "y_mask", "calendar", *COVARIATES):
        one, other = getattr(left, name), getattr(right, name)
        if one is None or other is None:
            assert one is other, name
            continue
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes(), name
        assert not one.is_floating_point() or not one.isnan().any(), name
    np.testing.assert_array_equal(left.starts, right.starts)


def standard(source: WindowSource) -> StandardBatcher:
    """The oracle."""
    return StandardBatcher(source, CPU)


def indexed(source: WindowSource, prefetch_depth: int = 1) -> Batcher[Any]:
    """Index-batching as training builds it: these series are small enough to be decoded once."""
    return build_batcher("index", source, CPU, prefetch_depth=prefetch_depth)


def decoded(source: WindowSource, _depth: int = 1, **limits: int) -> Batcher[Any]:
    """Windows copied from decoded rows, by `page_rows` and `piece_readings`; never prefetched."""
    return DecodedBatcher(source, **limits)


def stored(
    source: WindowSource,
    depth: int = 1,
    page_rows: int = PAGE_ROWS,
    piece_readings: int = PIECE_READINGS,
) -> Batcher[Any]:
    """Windows cut from rows of the mapped series."""
    rows = HostRows(source, CPU, MappedSeries(source.store), RowFeatures(source, page_rows))
    return WindowBatcher(source, CPU, rows, NumpyAssembler(source, piece_readings), depth)


def stored_on_a_gpu(
    source: WindowSource, depth: int = 1, page_rows: int = PAGE_ROWS, **_: int
) -> Batcher[Any]:
    """The operations of a GPU, on the CPU."""
    rows = HostRows(source, CPU, MappedSeries(source.store), RowFeatures(source, page_rows))
    return WindowBatcher(source, CPU, rows, TorchAssembler(source, CPU), depth)


def resident(
    source: WindowSource, _depth: int = 1, piece_readings: int = PIECE_READINGS, **_: int
) -> Batcher[Any]:
    """Windows cut from rows on the compute device; never prefetched."""
    rows = DeviceRows(source, CPU)
    return WindowBatcher(source, CPU, rows, NumpyAssembler(source, piece_readings))


def resident_on_a_gpu(source: WindowSource, **_: int) -> Batcher[Any]:
    """The operations of a GPU, on the CPU."""
    return WindowBatcher(source, CPU, DeviceRows(source, CPU), TorchAssembler(source, CPU))


def request(starts: Any, **options: Any) -> BatchRequest:
    """A request for windows, with scratch memory of its own."""
    return BatchRequest(starts=np.asarray(starts, dtype=np.int64), **options)
