"""The strategies by name, and the choice between them."""

import torch

from pgti.batching.base import Batcher, WindowSource
from pgti.batching.device import DeviceBatcher, resident_bytes
from pgti.batching.index import IndexBatcher
from pgti.batching.standard import StandardBatcher
from pgti.errors import ConfigError
from pgti.memory.available import available_bytes

__all__ = ["BATCHERS", "choose_batching", "make_batcher"]

BATCHERS: dict[str, type[IndexBatcher] | type[DeviceBatcher] | type[StandardBatcher]] = {
    "index": IndexBatcher,
    "device": DeviceBatcher,
    "standard": StandardBatcher,
}
_DEVICE_SHARE = 0.5  # of a GPU's free memory: the rest is for the model and its activations


def make_batcher(
    name: str, source: WindowSource, device: torch.device, prefetch_depth: int = 1
) -> Batcher:
    """The strategy called `name`; `choose_batching` names one that fits.

    Raises:
        ConfigError: if there is none of that name, or its windows do not fit in memory.
    """
    if name not in BATCHERS:
        raise ConfigError(f"there is no batching {name!r}: it is one of {', '.join(BATCHERS)}")
    return BATCHERS[name](source, device, prefetch_depth)


def choose_batching(
    source: WindowSource, device: torch.device, budget_bytes: int | None = None
) -> tuple[str, str]:
    """The fastest strategy that fits, and why it was chosen, in one line.

    On a GPU the series moves there if it takes at most half of what is free. On a CPU the memory
    map is as fast as a copy: the page cache holds the series where it fits, and the disk serves
    it where it does not.

    Args:
        source: what the windows hold.
        device: where batches are made.
        budget_bytes: memory of the device that may be used, if that is less than what is free.
    """
    needed, free = resident_bytes(source), available_bytes(device)
    if budget_bytes is not None:
        free = min(free, budget_bytes)
    sizes = f"the series takes {needed / 2**30:.2f} GiB of {free / 2**30:.2f} GiB free"
    if device.type == "cuda":
        if needed <= _DEVICE_SHARE * free:
            return "device", f"batching device: {sizes} on {device}"
        return "index", f"batching index: {sizes} on {device}, too much beside a model"
    if needed <= free:
        return "index", f"batching index, in memory: {sizes} on this machine"
    return "index", f"batching index, from disk: {sizes} on this machine"
