"""The data sets that are known by name, and to which packages add theirs.

Every statement has a source: the loaders and papers of those who published the files. What
nobody states is left open and said to be so.
"""

from difflib import get_close_matches

from pgti.datasets.dataset import Dataset
from pgti.datasets.flow import FLOW_DATASETS
from pgti.datasets.largest import LARGEST_DATASETS
from pgti.errors import ConfigError
from pgti.registry import Registry

__all__ = ["DATASETS", "find_dataset"]

DATASETS: Registry[Dataset] = Registry(
    "pgti.datasets", {each.name: each for each in (*FLOW_DATASETS, *LARGEST_DATASETS)}
)
"""Every data set that `fetch` knows, by name."""


def find_dataset(name: str) -> Dataset:
    """The data set of a name, whose capitals do not matter.

    Raises:
        ConfigError: naming those that are called alike.
    """
    known = {each.lower(): each for each in DATASETS}
    if name.lower() in known:
        return DATASETS[known[name.lower()]]
    close = get_close_matches(name.lower(), known, n=3)
    alike = f"called alike are {', '.join(known[each] for each in close)}" if close else ""
    raise ConfigError(
        f"there is no data set {name!r}: {alike or 'known are ' + ', '.join(DATASETS)}; "
        "`pgti datasets` describes them"
    )
