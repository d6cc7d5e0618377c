"""Small sources of windows, and what it means that two batches are the same."""

from pathlib import Path

import numpy as np
import torch

from pgti.batching import Batch, WindowSource
from pgti.graph import SensorGraph
from pgti.store import Profile, Scaler, SeriesStore, StoreWriter
from pgti.windows import WindowSpec

CPU = torch.device("cpu")
GRIDS = np.array([10, 2, 4])
START = np.datetime64("2025-10-01T00:00")


def make_source(
    target: Path,
    shape: tuple[int, int, int],
    spec: WindowSpec,
    *,
    grid: bool = True,
    missing: float = 0.1,
    targets: tuple[int, ...] = (0,),
    calendar: tuple[str, ...] = ("time-of-day", "day-of-week"),
    profile: bool = False,
) -> WindowSource:
    """Windows of a store of random readings, int16 if they lie on a grid, another per channel."""
    generator = np.random.default_rng(5)
    values = generator.integers(-200, 900, shape) / (GRIDS[: shape[2]] if grid else 3)
    values[generator.random(shape) < missing] = np.nan
    values[0] = 1.0
    with StoreWriter(
        target,
        node_ids=tuple(str(i) for i in range(shape[1])),
        channels=tuple("abcdef"[: shape[2]]),
        graph=SensorGraph.empty(shape[1]),
    ) as writer:
        writer.append(values)
        writer.finish(start=START, interval_seconds=300)
    store = SeriesStore.open(target)
    assert store.meta.dtype == ("int16" if grid else "float32")
    return WindowSource(
        store=store,
        spec=spec,
        scaler=Scaler.fit(store, range(shape[0] // 2)),
        target_indices=targets,
        calendar=calendar,
        profile=Profile.fit(store, range(shape[0] // 2), targets) if profile else None,
    )


def assert_same(left: Batch, right: Batch) -> None:
    """Bit for bit the same windows; -0.0 is not 0.0."""
    for name in ("x", "x_mask", "y", "y_mask", "calendar"):
        one, other = getattr(left, name), getattr(right, name)
        if one is None or other is None:
            assert one is other, name
            continue
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes(), name
        assert not one.is_floating_point() or not one.isnan().any(), name
    np.testing.assert_array_equal(left.starts, right.starts)


def cloned(batch: Batch) -> Batch:
    """A batch that outlives the next one."""

    def copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.clone()

    return Batch(
        x=batch.x.clone(),
        x_mask=batch.x_mask.clone(),
        y=copy(batch.y),
        y_mask=copy(batch.y_mask),
        calendar=batch.calendar.clone(),
        starts=batch.starts.copy(),
    )
