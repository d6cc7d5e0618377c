"""From window starts to batches: where rows are, how batches are made of them, and loaders."""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.batching.batch import Batch as Batch
    from pgti.batching.batcher import Batcher as Batcher
    from pgti.batching.batcher import BatchRequest as BatchRequest
    from pgti.batching.build import BATCHINGS as BATCHINGS
    from pgti.batching.build import PLACEMENTS as PLACEMENTS
    from pgti.batching.build import PREFETCH_DEPTH as PREFETCH_DEPTH
    from pgti.batching.build import build_batcher as build_batcher
    from pgti.batching.build import build_loader as build_loader
    from pgti.batching.build import build_sharding as build_sharding
    from pgti.batching.build import choose_batching as choose_batching
    from pgti.batching.config import WindowConfig as WindowConfig
    from pgti.batching.dataset import CovariateSample as CovariateSample
    from pgti.batching.dataset import HistorySample as HistorySample
    from pgti.batching.dataset import WindowDataset as WindowDataset
    from pgti.batching.dataset import WindowSample as WindowSample
    from pgti.batching.device_rows import device_bytes as device_bytes
    from pgti.batching.loader import BatchLoader as BatchLoader
    from pgti.batching.sampler import WindowSampler as WindowSampler
    from pgti.batching.source import WindowSource as WindowSource
    from pgti.batching.source import needs_typical as needs_typical
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
