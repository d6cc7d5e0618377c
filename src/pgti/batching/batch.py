"""What a model is given."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Batch:
    """B windows on the compute device.

    The tensors are views of buffers that later batches reuse: a batch is valid until the next one
    is taken from the same loader or batcher. Clone what must live longer.

    Attributes:
        x: inputs, float32 [B, L, N, C_in]: the store's C channels standardised, a missing
            reading as 0 (the channel's mean); then, where asked for, the typical reading of each
            target at this row and H rows later; then the F calendar features.
        x_mask: which input readings were observed, bool [B, L, N, C].
        y: targets in original units, float32 [B, H, N, C_out], a missing one as 0; None where
            the horizon lies past the end of the series.
        y_mask: which targets were observed, bool [B, H, N, C_out]; None with `y`.
        calendar: calendar features of inputs and horizon, float32 [B, L + H, F].
        starts: first row of each window, int64 [B], on the host.
    """

    x: Tensor
    x_mask: Tensor
    y: Tensor | None
    y_mask: Tensor | None
    calendar: Tensor
    starts: NDArray[np.int64]

    @property
    def num_windows(self) -> int:
        """B."""
        return len(self.starts)

    def to(self, device: torch.device) -> Self:
        """The same windows on a device; this batch if it is there already."""
        if self.x.device == device:
            return self
        return type(self)(
            x=self.x.to(device),
            x_mask=self.x_mask.to(device),
            y=None if self.y is None else self.y.to(device),
            y_mask=None if self.y_mask is None else self.y_mask.to(device),
            calendar=self.calendar.to(device),
            starts=self.starts,
        )
