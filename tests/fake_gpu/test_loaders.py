"""Epochs of loaders on a fake GPU, wherever the rows are: nothing waits between batches."""

from pathlib import Path
from typing import Any

import pytest

from pgti.batching import build_batcher, build_loader
from pgti.windows import BlockShuffle, GlobalShuffle, PartitionShuffle
from pgti_bench.fake_device import FakeGpu

from .test_data import source_with_gaps


@pytest.mark.parametrize(
    ("batching", "placement", "order"),
    [
        ("index", "replicated", GlobalShuffle(1)),
        ("index", "replicated", BlockShuffle(1, 8)),
        ("device", "replicated", GlobalShuffle(1)),
        ("device", "replicated", BlockShuffle(1, 8)),
        ("device", "partitioned", PartitionShuffle(seed=1, partitions=2, block_size=4)),
        ("device", "partitioned", GlobalShuffle(1)),
    ],
    ids=str,
)
def test_an_epoch_waits_for_nothing(
    tmp_path: Path, batching: str, placement: str, order: Any
) -> None:
    """The first batch may move what stays on the GPU; fetched on one thread, which is checked."""
    source = source_with_gaps(tmp_path / "s")
    with FakeGpu() as gpu:
        batcher = build_batcher(batching, source, gpu.device, prefetch_depth=1)
        loader = build_loader(
            source,
            range(60),
            8,
            order,
            device=gpu.device,
            batching=batching,
            placement=placement,
            batcher=batcher,
        )
        next(loader.epoch(0))
        with gpu.checked() as launches:
            batches = list(loader.epoch(0))
        assert [batch.num_windows for batch in batches] == [8] * 7 + [4]
        assert all(batch.x.device == gpu.device for batch in batches)
        assert launches.total > 0
