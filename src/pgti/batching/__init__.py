"""From window starts to batches: one file per strategy behind one small abstract class."""

from pgti.batching.base import Batcher as Batcher
from pgti.batching.base import WindowSource as WindowSource
from pgti.batching.batch import Batch as Batch
from pgti.batching.dataset import WindowDataset as WindowDataset
from pgti.batching.device import DeviceBatcher as DeviceBatcher
from pgti.batching.index import IndexBatcher as IndexBatcher
from pgti.batching.loader import BatchLoader as BatchLoader
from pgti.batching.partitioned import ExchangeBatcher as ExchangeBatcher
from pgti.batching.partitioned import PartitionedBatcher as PartitionedBatcher
from pgti.batching.standard import StandardBatcher as StandardBatcher
from pgti.batching.strategies import BATCHERS as BATCHERS
from pgti.batching.strategies import choose_batching as choose_batching
from pgti.batching.strategies import make_batcher as make_batcher
