"""The strategies by name."""

import torch

from pgti.batching.base import Batcher, WindowSource
from pgti.batching.index import IndexBatcher
from pgti.batching.standard import StandardBatcher
from pgti.errors import ConfigError

__all__ = ["BATCHERS", "make_batcher"]

BATCHERS: dict[str, type[IndexBatcher] | type[StandardBatcher]] = {
    "index": IndexBatcher,
    "standard": StandardBatcher,
}


def make_batcher(
    name: str, source: WindowSource, device: torch.device, num_slots: int = 1
) -> Batcher:
    """The strategy called `name`.

    Raises:
        ConfigError: if there is none of that name, or its windows do not fit in memory.
    """
    if name not in BATCHERS:
        raise ConfigError(f"there is no batching {name!r}: it is one of {', '.join(BATCHERS)}")
    return BATCHERS[name](source, device, num_slots)
