"""What a model is given."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Batch:
    """B windows on the compute device.

    The tensors of a batch that a loader or batcher of pgti makes are views of buffers that later
    batches reuse: it is valid until the next one is taken. `clone` what must live longer.

    Its `repr`, also in a notebook, shows shapes, types and, on a CPU, the share observed.

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

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Self:
        """The same windows on a device; this batch if it is there already.

        Args:
            device: such as "cuda:0".
            non_blocking: do not wait for copies from pinned memory.
        """
        if self.x.device == torch.device(device):
            return self
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def clone(self) -> Self:
        """The same windows in memory of their own."""
        return self._map(torch.clone)

    def pin_memory(self) -> Self:
        """The same windows in pinned memory, as `DataLoader(pin_memory=True)` asks."""
        return self._map(lambda tensor: tensor.pin_memory() if tensor.numel() else tensor)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            x=function(self.x),
            x_mask=function(self.x_mask),
            y=None if self.y is None else function(self.y),
            y_mask=None if self.y_mask is None else function(self.y_mask),
            calendar=function(self.calendar),
        )

    # -- display ----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(len(shape) for _, _, shape, _ in rows)
        lines = [f"  {name:9}{kind:8}  {shape:{width}}  {note}" for name, kind, shape, note in rows]
        return "\n".join([self._title(), *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        return f"<p>{escape(self._title())}</p><table>{rows}</table>"

    def _title(self) -> str:
        count = f"{self.num_windows} window" + ("" if self.num_windows == 1 else "s")
        targets = "" if self.y is not None else " without targets"
        starts = f", starts {self.starts[0]} to {self.starts[-1]}" if self.num_windows else ""
        return f"Batch of {count}{targets} on {self.x.device}{starts}"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Name, type, shape and share observed of each tensor."""
        named = {name: getattr(self, name) for name in ("x", "x_mask", "y", "y_mask", "calendar")}
        return [
            (name, str(tensor.dtype).removeprefix("torch."), str([*tensor.shape]), _share(tensor))
            for name, tensor in named.items()
            if tensor is not None
        ]


def _share(mask: Tensor) -> str:
    """What share of a mask is True, where nobody has to wait for a GPU to know it."""
    if mask.dtype != torch.bool or mask.device.type != "cpu" or not mask.numel():
        return ""
    return f"{100 * int(mask.count_nonzero()) / mask.numel():.1f} % observed"
