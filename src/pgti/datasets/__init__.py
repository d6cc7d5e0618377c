"""Published data sets by name: their descriptions, their files, and stores made from those."""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.datasets.catalogue import DATASETS as DATASETS
    from pgti.datasets.catalogue import find_dataset as find_dataset
    from pgti.datasets.dataset import Dataset as Dataset
    from pgti.datasets.dataset import Download as Download
    from pgti.datasets.dataset import FileSet as FileSet
    from pgti.datasets.fetch import fetch_dataset as fetch_dataset
    from pgti.datasets.files import FetchCallbacks as FetchCallbacks
    from pgti.datasets.options import FetchOptions as FetchOptions
    from pgti.datasets.options import Zeros as Zeros
    from pgti.datasets.protocol import Protocol as Protocol
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
