"""What stands for a missing reading: the sensor's last one in the window, else its typical one."""

import torch
from torch import Tensor

from pgti.batching.source import WindowSource

__all__ = ["Filling", "fill_missing"]


def fill_missing(x: Tensor, mask: Tensor, typical: Tensor, bins: Tensor) -> None:
    """Write into missing readings the last observed one before them, else the typical one.

    Every value is a copy, so that the bits are the same on any device. On a GPU the host waits for
    nothing.

    Args:
        x: standardised readings [B, L, N, C], changed in place.
        mask: which of them were observed, bool [B, L, N, C].
        typical: standardised typical readings [bins, N, C].
        bins: the entry of `typical` for each row, int64 [B, L].
    """
    on_host = x.device.type == "cpu"
    if on_host and bool(mask.all()):
        return
    known = torch.zeros_like(mask[:, 0])
    for step in range(x.shape[1]):
        observed, readings = mask[:, step], x[:, step]
        if on_host and bool(observed.all()):
            known = observed
            continue
        filled = typical[bins[:, step]]
        if step:
            filled = torch.where(known, x[:, step - 1], filled)
        readings.copy_(torch.where(observed, readings, filled))
        known = known | observed


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
