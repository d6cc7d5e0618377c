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
    from pgti.datasets.recipe import Published as Published
    from pgti.datasets.recipe import Recipe as Recipe
    from pgti.datasets.recipe import find_recipe as find_recipe
    from pgti.datasets.recipe import recipe_names as recipe_names
    from pgti.datasets.recipe import recipes_of as recipes_of
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
