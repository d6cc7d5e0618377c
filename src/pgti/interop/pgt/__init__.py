"""PyTorch Geometric Temporal (PGT): its loaders on index-batching, its signals, its layers.

A script that trains on PGT's index-batching changes one import:

    from pgti.interop.pgt import METRLADatasetLoader

Neither PGT nor PyTorch Geometric need be installed: both are imported when the first snapshot or
layer of theirs is built. `docs/pgt.md` describes how to move. The public names are those of `data`
and `layers`, which are imported on first use: listing data sets imports `published` and no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgti.interop.pgt.data import *  # noqa: F403
    from pgti.interop.pgt.layers import *  # noqa: F403


def __getattr__(name: str) -> Any:
    for part in ("data", "layers"):
        public = vars(import_module(f"{__name__}.{part}"))
        if name in public and not name.startswith("_"):
            value = globals()[name] = public[name]
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    parts = (vars(import_module(f"{__name__}.{part}")) for part in ("data", "layers"))
    return sorted({*globals()}.union(*parts))
