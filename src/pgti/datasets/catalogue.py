"""The registry of published data sets, to which packages add theirs.

Every statement of an entry comes from its publishers' loaders or papers; what they do not state is
marked as not stated.
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
    """The data set of a name, in upper or lower case.

    Raises:
        ConfigError: if there is none, naming similar ones.
    """
    known = {each.lower(): each for each in DATASETS}
    if name.lower() in known:
        return DATASETS[known[name.lower()]]
    close = get_close_matches(name.lower(), known, n=3)
    alike = f"similar names are {', '.join(known[each] for each in close)}" if close else ""
    raise ConfigError(
        f"data set {name!r} is unknown: {alike or 'known are ' + ', '.join(DATASETS)}; "
        "`pgti datasets` describes them"
    )
