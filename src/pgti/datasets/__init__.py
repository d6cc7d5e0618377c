"""Published data sets by name: their descriptions, their files, and stores made from those."""

from pgti.datasets.catalogue import DATASETS as DATASETS
from pgti.datasets.catalogue import find_dataset as find_dataset
from pgti.datasets.dataset import Dataset as Dataset
from pgti.datasets.dataset import Download as Download
from pgti.datasets.dataset import FileSet as FileSet
from pgti.datasets.dataset import Zeros as Zeros
from pgti.datasets.fetch import FetchOptions as FetchOptions
from pgti.datasets.fetch import fetch as fetch
from pgti.datasets.fetch import fetch_dataset as fetch_dataset
from pgti.datasets.files import FetchCallbacks as FetchCallbacks
