"""PyTorch Geometric Temporal (PGT): its loaders on index-batching, and its signals as stores.

A script that trains on PGT's index-batching changes one import:

    from pgti.interop.pgt import METRLADatasetLoader

Neither PGT nor PyTorch Geometric need be installed; `snapshots`, which makes PyTorch Geometric's
`Data`, imports it when the first snapshot is made. `docs/pgt.md` says how to move.
"""

from pgti.interop.pgt.index_dataset import IndexDataset as IndexDataset
from pgti.interop.pgt.index_dataset import collate_windows as collate_windows
from pgti.interop.pgt.index_loaders import get_index_dataset as get_index_dataset
from pgti.interop.pgt.loader_classes import ChickenpoxDatasetLoader as ChickenpoxDatasetLoader
from pgti.interop.pgt.loader_classes import METRLADatasetLoader as METRLADatasetLoader
from pgti.interop.pgt.loader_classes import PemsAllLADatasetLoader as PemsAllLADatasetLoader
from pgti.interop.pgt.loader_classes import PemsBayDatasetLoader as PemsBayDatasetLoader
from pgti.interop.pgt.loader_classes import PemsDatasetLoader as PemsDatasetLoader
from pgti.interop.pgt.loader_classes import (
    WindmillOutputLargeDatasetLoader as WindmillOutputLargeDatasetLoader,
)
from pgti.interop.pgt.sampler import WindowSampler as WindowSampler
from pgti.interop.pgt.signals import from_loader as from_loader
from pgti.interop.pgt.signals import to_store as to_store
from pgti.interop.pgt.snapshots import Snapshots as Snapshots
from pgti.interop.pgt.snapshots import snapshots as snapshots
