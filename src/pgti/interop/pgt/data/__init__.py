"""PGT's data sets, loaders and signals on index-batching and on stores."""

from pgti.interop.pgt.data.index_dataset import IndexDataset as IndexDataset
from pgti.interop.pgt.data.index_dataset import collate_windows as collate_windows
from pgti.interop.pgt.data.index_loaders import get_index_dataset as get_index_dataset
from pgti.interop.pgt.data.loader_classes import ChickenpoxDatasetLoader as ChickenpoxDatasetLoader
from pgti.interop.pgt.data.loader_classes import METRLADatasetLoader as METRLADatasetLoader
from pgti.interop.pgt.data.loader_classes import PemsAllLADatasetLoader as PemsAllLADatasetLoader
from pgti.interop.pgt.data.loader_classes import PemsBayDatasetLoader as PemsBayDatasetLoader
from pgti.interop.pgt.data.loader_classes import PemsDatasetLoader as PemsDatasetLoader
from pgti.interop.pgt.data.loader_classes import (
    WindmillOutputLargeDatasetLoader as WindmillOutputLargeDatasetLoader,
)
from pgti.interop.pgt.data.sampler import WindowSampler as WindowSampler
from pgti.interop.pgt.data.signals import from_loader as from_loader
from pgti.interop.pgt.data.signals import to_store as to_store
from pgti.interop.pgt.data.snapshots import Snapshots as Snapshots
from pgti.interop.pgt.data.snapshots import snapshots as snapshots
