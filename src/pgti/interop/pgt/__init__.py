"""PyTorch Geometric Temporal (PGT): its loaders on index-batching, and its signals as stores.

A script that trains on PGT's index-batching changes one import:

    from pgti.interop.pgt import METRLADatasetLoader

Neither PGT nor PyTorch Geometric need be installed: both are imported when the first snapshot or
layer of theirs is built. `docs/pgt.md` describes how to move. Each name below is imported when it
is first used, so that listing models or data sets imports neither torch nor the other half.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgti.interop.pgt.data.index_dataset import IndexDataset as IndexDataset
    from pgti.interop.pgt.data.index_dataset import collate_windows as collate_windows
    from pgti.interop.pgt.data.index_loaders import get_index_dataset as get_index_dataset
    from pgti.interop.pgt.data.loader_classes import (
        ChickenpoxDatasetLoader as ChickenpoxDatasetLoader,
    )
    from pgti.interop.pgt.data.loader_classes import METRLADatasetLoader as METRLADatasetLoader
    from pgti.interop.pgt.data.loader_classes import (
        PemsAllLADatasetLoader as PemsAllLADatasetLoader,
    )
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
    from pgti.interop.pgt.layers.dcrnn import load_pgt_state_dict as load_pgt_state_dict
    from pgti.interop.pgt.layers.models import PGT_LAYERS as PGT_LAYERS
    from pgti.interop.pgt.layers.models import wrap_pgt_layer as wrap_pgt_layer

_NAMES_IN = {
    "data.index_dataset": ("IndexDataset", "collate_windows"),
    "data.index_loaders": ("get_index_dataset",),
    "data.loader_classes": (
        "ChickenpoxDatasetLoader",
        "METRLADatasetLoader",
        "PemsAllLADatasetLoader",
        "PemsBayDatasetLoader",
        "PemsDatasetLoader",
        "WindmillOutputLargeDatasetLoader",
    ),
    "data.sampler": ("WindowSampler",),
    "data.signals": ("from_loader", "to_store"),
    "data.snapshots": ("Snapshots", "snapshots"),
    "layers.dcrnn": ("load_pgt_state_dict",),
    "layers.models": ("PGT_LAYERS", "wrap_pgt_layer"),
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name whose module is not imported yet."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
