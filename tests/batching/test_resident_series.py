"""Rows that a rank holds: in chunks of host memory, or in a tensor on its device."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pgti.batching import WindowSource, build_loader
from pgti.batching.resident_series import DeviceSeries, HeldRows, ResidentSeries
from pgti.windows import GlobalShuffle, Order, PartitionShuffle, WindowSpec

from .sources import CPU, assert_same, make_source, standard

KINDS: dict[str, Callable[[WindowSource], HeldRows]] = {
    "host": lambda source: ResidentSeries(source.store),
    "device": lambda source: DeviceSeries(source, CPU),
}


@pytest.fixture
def source(tmp_path: Path) -> WindowSource:
    return make_source(tmp_path / "s", (60, 3, 2), WindowSpec(input_steps=4, horizon=2))


def rows_of(source: WindowSource, rows: range) -> torch.Tensor:
    return torch.from_numpy(np.array(source.store.raw[rows.start : rows.stop]))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_and_go(source: WindowSource, kind: str) -> None:
    """Whatever was held before, what is read is what the store has there."""
    held = KINDS[kind](source)
    held.reserve(20)
    held.load([range(5, 15), range(30, 40)])
    for first in (10, 20, 32, 38, 44):
        new = range(first + 5, first + 12)
        held.retain([range(first, first + 6)])
        arriving = held.empty(len(new))
        arriving.copy_(rows_of(source, new).view_as(arriving))
        held.write(new, arriving)
        found = held.read(new)
        assert torch.equal(found.view(len(new), -1), rows_of(source, new).view(len(new), -1))
    assert held.row_bytes == 3 * 2 * source.store.raw.dtype.itemsize


def test_a_device_finds_rows_by_their_number(source: WindowSource) -> None:
    """In as many places as there were rows at once, wherever rows have been put."""
    held = DeviceSeries(source, CPU)
    held.load([range(8)])
    held.retain([range(4, 8)])
    held.write(range(20, 24), rows_of(source, range(20, 24)))
    assert len(held.rows) == 8
    numbers = torch.tensor([[4, 23], [20, 7]])
    found = held.rows[held.places_of(numbers)]
    assert torch.equal(found, rows_of(source, range(60))[numbers])
    held.write(range(50, 53), rows_of(source, range(50, 53)))
    assert len(held.rows) == 11
    assert torch.equal(held.read(range(50, 53)), rows_of(source, range(50, 53)))
    assert torch.equal(held.read(range(4, 8)), rows_of(source, range(4, 8)))


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
@pytest.mark.parametrize(
    "order",
    [PartitionShuffle(seed=3, partitions=4, block_size=2, rotation=0.5), GlobalShuffle(3)],
    ids=["partitions", "global"],
)
def test_batches_of_one_rank(source: WindowSource, device: str, order: Order) -> None:
    """Rows that stay on the device of the only rank give the bits of materialised windows."""
    where, oracle = torch.device(device), standard(source)
    starts = source.spec.starts(60)
    loader = build_loader(
        source, starts, 7, order, device=where, batching="device", placement="partitioned"
    )
    for epoch in range(3):
        for batch in loader.epoch(epoch):
            assert batch.x.device.type == device
            assert_same(batch.to("cpu"), oracle.gather(batch.starts))
        loader.prefetch_epoch(epoch + 1)
