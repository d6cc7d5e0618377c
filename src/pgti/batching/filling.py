"""What stands for a missing reading: the sensor's last one, fading into its typical one."""

import torch
from torch import Tensor

from pgti.batching.source import WindowSource

__all__ = ["Filling", "fill_missing"]

_FADING = 0.9  # a step; measured best of 0.5 to 1 (docs/accuracy.md)


def fill_missing(x: Tensor, mask: Tensor, typical: Tensor, bins: Tensor) -> None:
    """Write into missing readings the last one before them, fading into what is typical.

    A missing reading is the typical one of its time, plus 0.9^k of the distance that the sensor's
    last reading, k steps before, had from its own; without such a reading it is the typical one.
    Each operation is rounded for itself, so that the bits are the same on any device. On a GPU
    the host waits for nothing.

    Args:
        x: standardised readings [B, L, N, C], changed in place.
        mask: which of them were observed, bool [B, L, N, C].
        typical: standardised typical readings [bins, N, C].
        bins: the entry of `typical` for each row, int64 [B, L].
    """
    num_steps = x.shape[1]
    is_complete = [False] * num_steps
    if x.device.type == "cpu":  # where looking costs little
        if bool(mask.all()):
            return
        is_complete = [bool(mask[:, step].all()) for step in range(num_steps)]
    distance = torch.zeros_like(x[:, 0])
    for step in range(num_steps):
        if all(is_complete[step : step + 2]):
            continue  # nobody asks for its distance
        readings, observed, usual = x[:, step], mask[:, step], typical[bins[:, step]]
        distance = torch.where(observed, readings - usual, distance * _FADING)
        readings.copy_(torch.where(observed, readings, usual + distance))


class Filling:
    """Fills the inputs of batches, where the windows ask for it and the series lacks readings.

    Args:
        source: what the windows hold.
        device: where batches are made.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._typical: Tensor | None = None
        table = source.scaled_typical() if source.fills else None
        if table is not None:
            self._typical = torch.from_numpy(table).to(device)

    def __call__(self, x: Tensor, mask: Tensor, bins: Tensor) -> None:
        """Fill the inputs in place.

        Args:
            x: inputs [B, L, N, C_in], the C readings first.
            mask: which readings were observed, bool [B, L, N, C].
            bins: of the table of typical readings [B, L, >= 1], that of the row first.
        """
        if self._typical is not None:
            fill_missing(x[..., : mask.shape[-1]], mask, self._typical, bins[..., 0])
