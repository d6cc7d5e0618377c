"""What a model is given."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.display import Display, count_of

__all__ = ["Batch"]


@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Batch(Display):
    """B windows on the compute device.

    The tensors of a batch that a loader or batcher of pgti makes are views of buffers that later
    batches reuse: it is valid until the next one is taken. `clone` what must live longer.

    Its `repr`, also in a notebook, shows shapes, types and, on a CPU, the share observed.

    Attributes:
        x: inputs, float32 [B, L, N, C_in]: the store's C channels standardised, a missing
            reading as the sensor's last one in the window, fading into its typical one (with
            `fill="mean"` as 0, the channel's mean); then, where asked for, which of them were
            observed, 1 or 0; then, where asked for, the typical reading of each target at this row
            and H rows later; then the F calendar features.
        x_mask: which input readings were observed, bool [B, L, N, C].
        y: targets in original units, float32 (of an exact store float64) [B, H, N, C_out], a
            missing one as 0; None where the horizon lies past the end of the series.
        y_mask: which targets were observed, bool [B, H, N, C_out]; None with `y`.
        calendar: calendar features of inputs and horizon, float32 [B, L + H, F].
        starts: first row of each window, int64 [B], on the host.
        future: values of the F channels that are known in advance, at the steps to forecast,
            float32 [B, H, N, F]: standardised, and filled where missing, as in `x`; None where the
            series has no such channel.
        future_mask: which of them are known, bool [B, H, N, F]; None with `future`.
        static: features of the sensors, float32 [N, S], the same for all batches: numbers
            standardised by the scaler, 0 where missing, then a number for each category, 1 or
            0; None where the series has none.
        static_codes: the category of each categorical feature, int64 [N, Q], counted from 1; 0
            where it is missing; None with `static`.
        history: readings of earlier rows that were asked for, float32 [B, R, N, C], the store's C
            channels standardised as in `x`, a missing one as its sensor's typical reading at that
            time (with `fill="mean"` as 0); None where none was asked for.
        history_mask: which of them were observed, bool [B, R, N, C]: none before the first row of
            the series; None with `history`.
    """

    x: Tensor
    x_mask: Tensor
    y: Tensor | None
    y_mask: Tensor | None
    calendar: Tensor
    starts: NDArray[np.int64]
    future: Tensor | None = None
    future_mask: Tensor | None = None
    static: Tensor | None = None
    static_codes: Tensor | None = None
    history: Tensor | None = None
    history_mask: Tensor | None = None

    @property
    def num_windows(self) -> int:
        """B."""
        return len(self.starts)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that it has, in the order of the attributes."""
        return list(self._named().values())

    def _named(self) -> dict[str, Tensor]:
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: each for name, each in tensors.items() if isinstance(each, Tensor)}

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
        changed: dict[str, Any] = {name: function(each) for name, each in self._named().items()}
        return replace(self, **changed)

    def describe(self) -> tuple[str, dict[str, str]]:
        """A title, and type and shape of each tensor, with the share observed of a mask."""
        targets = "" if self.y is not None else " without targets"
        starts = f", starts {self.starts[0]} to {self.starts[-1]}" if self.num_windows else ""
        facts = {name: _fact(tensor) for name, tensor in self._named().items()}
        return (
            f"Batch of {count_of(self.num_windows, 'window')}{targets} on {self.x.device}{starts}",
            facts,
        )


def _fact(tensor: Tensor) -> str:
    """Type and shape; of a mask the share that is True, where no host waits for a GPU to know."""
    fact = f"{str(tensor.dtype).removeprefix('torch.')} {[*tensor.shape]}"
    if tensor.dtype != torch.bool or tensor.device.type != "cpu" or not tensor.numel():
        return fact
    return f"{fact}, {int(tensor.count_nonzero()) / tensor.numel():.1%} observed"
