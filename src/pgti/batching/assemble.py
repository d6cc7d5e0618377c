"""From stored rows to a batch: decode, standardise, mask, append the calendar.

Each step is one exactly rounded operation, in the order in which the standard strategy takes them
over the whole series: so every strategy gives the same bits, on every device.
"""

import torch
from torch import Tensor

from pgti.batching.base import Fetched, WindowSource
from pgti.batching.batch import Batch
from pgti.series.codec import MISSING_CODE

__all__ = ["Assembler"]


class Assembler:
    """Turns stored rows into a batch on the compute device, its inputs in a reused buffer.

    Args:
        source: what the windows hold.
        device: where the rows are and the batch is made.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._source = source
        self._device = device
        targets = source.target_indices
        self._targets = torch.tensor(targets, device=device)
        self._all_targets = targets == tuple(range(source.store.meta.num_channels))
        divisors = source.store.codec.divisors
        self._divisors = None if divisors is None else self._per_channel(divisors)
        self._mean = self._per_channel(source.scaler.mean)
        self._std = self._per_channel(source.scaler.std)
        self._has_missing = source.store.meta.missing_count > 0
        self._true = torch.ones((), dtype=torch.bool, device=device)
        profile = source.scaled_profile()
        self._profile = None if profile is None else torch.from_numpy(profile).to(device)
        self._x: Tensor | None = None

    def __call__(self, raw: Tensor, calendar: Tensor, slots: Tensor, fetched: Fetched) -> Batch:
        """Make a batch.

        Args:
            raw: stored rows [B, L + H, N, C], or the first L of them.
            calendar: calendar features [B, L + H, F].
            slots: entries of the profile's table [B, L + H]; unused without a profile.
            fetched: what the windows are.
        """
        steps = self._source.spec.input_steps
        past = raw[:, :steps]
        x_mask = self._observed(past)
        y: Tensor | None = None
        y_mask: Tensor | None = None
        if fetched.with_targets:
            future = raw[:, steps:]
            if not self._all_targets:
                future = future.index_select(-1, self._targets)
            y_mask = self._observed(future)
            divisors = None if self._divisors is None else self._divisors[self._targets]
            y = self._filled(_decoded(future, divisors), y_mask)
        return Batch(
            x=self._inputs(past, x_mask, calendar[:, :steps], slots),
            x_mask=x_mask,
            y=y,
            y_mask=y_mask,
            calendar=calendar,
            starts=fetched.starts,
        )

    def _inputs(self, past: Tensor, mask: Tensor, calendar_BLF: Tensor, slots: Tensor) -> Tensor:
        x = self._x_buffer(past)
        steps, nodes, channels = past.shape[1:]
        values = x[..., :channels]
        values.copy_(past)
        if self._divisors is not None:
            values.div_(self._divisors)
        values.sub_(self._mean).div_(self._std)
        self._filled(values, mask)
        if self._profile is not None:
            horizon = self._source.spec.horizon
            for slots_BL in (slots[:, :steps], slots[:, horizon : horizon + steps]):
                width = self._profile.shape[-1]
                x[..., channels : channels + width].copy_(self._profile[slots_BL])
                channels += width
        if calendar_BLF.shape[-1]:
            x[..., channels:].copy_(calendar_BLF.unsqueeze(2).expand(-1, -1, nodes, -1))
        return x

    def _x_buffer(self, past: Tensor) -> Tensor:
        if self._x is None or len(self._x) < len(past):
            shape = (*past.shape[:3], self._source.num_input_channels)
            self._x = torch.empty(shape, dtype=torch.float32, device=self._device)
        return self._x[: len(past)]

    def _observed(self, raw: Tensor) -> Tensor:
        if not self._has_missing:
            return self._true.expand(raw.shape)
        return raw.isnan().logical_not_() if raw.is_floating_point() else raw.ne(MISSING_CODE)

    def _filled(self, values: Tensor, mask: Tensor) -> Tensor:
        return values.masked_fill_(~mask, 0.0) if self._has_missing else values

    def _per_channel(self, values: tuple[float, ...] | tuple[int, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)


def _decoded(raw: Tensor, divisors: Tensor | None) -> Tensor:
    """Readings in original units, a fresh float32 tensor."""
    values = raw.to(torch.float32, copy=True)
    return values if divisors is None else values.div_(divisors)
