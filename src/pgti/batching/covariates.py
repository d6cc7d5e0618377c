"""What a batch has beside the past of the series: known values of the horizon, static features.

Values that are known in advance are standardised like the inputs, by the statistics of training
rows. A window inside the series has those of its own rows; past the end they are those that the
store has after its last row. The operations are those of the inputs, each rounded for itself, so
that every strategy and device gives the same bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batch import Batch
from pgti.batching.copies import to_device
from pgti.batching.filling import fill_missing
from pgti.batching.source import WindowSource, relative
from pgti.store.codec import Values

__all__ = ["Covariates", "standardised_horizon"]


class Covariates:
    """Adds known values of the horizon, and features of the sensors, to batches.

    Args:
        source: what the windows hold.
        device: where batches are made; the features of the sensors move there once.
    """

    def __init__(self, source: WindowSource, device: torch.device) -> None:
        self._source, self._device = source, device
        known, meta = list(source.known_indices), source.store.meta
        self._static = source.static_inputs(device)
        self._known = torch.tensor(known, dtype=torch.int64, device=device)
        self._has_missing = meta.missing_count > 0
        codec, offsets = source.store.codec, source.offsets
        self._missing_code = codec.missing_code
        self._dtype = torch.float64 if source.is_exact else torch.float32  # of readings
        self._divisors: Tensor | None = None
        if codec.divisors is not None:
            divisors = [codec.divisors[channel] for channel in known]
            self._divisors = torch.tensor(divisors, dtype=self._dtype, device=device)
        self._offsets = None if offsets is None else torch.from_numpy(offsets[:, known]).to(device)
        self._mean, self._std = (
            torch.tensor([each[channel] for channel in known], dtype=torch.float32, device=device)
            for each in (source.scaler.mean, source.scaler.std)
        )
        table = source.scaled_typical() if known and source.fill == "last" else None
        self._typical = None if table is None else torch.from_numpy(table[..., known]).to(device)

    @property
    def has_known(self) -> bool:
        """Whether channels are known in advance."""
        return len(self._source.known_indices) > 0

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Known values of stored rows, standardised and 0 where missing, and where they are known.

        Args:
            raw: stored readings [K, R, N, C], on the device.

        Returns:
            float32 and bool, [K, R, N, F] each.
        """
        codes = raw.index_select(-1, self._known)
        if not self._has_missing:
            mask = torch.ones((), dtype=torch.bool, device=self._device).expand(codes.shape)
        elif self._missing_code is None:
            mask = codes.isnan().logical_not_()
        else:
            mask = codes.ne(self._missing_code)
        readings = codes.to(self._dtype, copy=True)
        if self._divisors is not None:
            readings.div_(self._divisors)
        if self._offsets is not None:
            readings.sub_(self._offsets)
        values = readings.to(torch.float32).sub_(self._mean).div_(self._std)
        return (values.masked_fill_(~mask, 0.0) if self._has_missing else values), mask

    def add_static(self, batch: Batch) -> None:
        """Give a batch the features of the sensors."""
        if self._static is not None:
            batch.static, batch.static_codes = self._static.values, self._static.codes

    def add_to(
        self, batch: Batch, horizon: tuple[Tensor, Tensor] | None, bins: Tensor | None
    ) -> None:
        """Complete a batch, in place; a missing value is filled as a missing input is.

        Args:
            batch: whose inputs are there.
            horizon: known values of its windows' horizons, and where they are known, as `decode`
                returns them [B, H, N, F]; None where a horizon may lie past the end.
            bins: of the table of typical readings, int64 [B, L + H]; None with `horizon`, and where
                nothing is filled.
        """
        self.add_static(batch)
        if not self.has_known:
            return
        is_past = horizon is None
        if horizon is None:
            values, known = standardised_horizon(self._source, batch.starts)
            horizon = to_device(values, self._device), to_device(known, self._device)
            if self._typical is not None and self._source.typical is not None:
                rows = batch.starts[:, None] + np.arange(self._source.spec.span)
                axis = self._source.store.time_axis
                bins = to_device(self._source.typical.bins(axis, rows), self._device)
        batch.future, batch.future_mask = horizon
        if self._typical is not None and bins is not None and (self._has_missing or is_past):
            past = (each.index_select(-1, self._known) for each in (batch.x, batch.x_mask))
            filled, mask = (torch.cat(each, dim=1) for each in zip(past, horizon, strict=True))
            fill_missing(filled, mask, self._typical, bins)
            batch.future = filled[:, batch.x.shape[1] :]


def standardised_horizon(
    source: WindowSource, starts: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Known values of the horizons of windows, wherever these lie, and where they are known.

    Args:
        source: what the windows hold.
        starts: first row of each window, int64 [B].

    Returns:
        float32, 0 where missing, and bool, [B, H, N, F] each.
    """
    known = list(source.known_indices)
    rows, places = np.unique(
        starts[:, None] + np.arange(source.spec.input_steps, source.spec.span), return_inverse=True
    )
    values = _known_readings(source, rows)
    observed = ~np.isnan(values)
    offsets, scaler = source.offsets, source.scaler
    mean, std = (
        np.asarray([each[channel] for channel in known], dtype=np.float32)
        for each in (scaler.mean, scaler.std)
    )
    scaled = relative(values, None if offsets is None else offsets[:, known]) - mean
    scaled /= std
    scaled[~observed] = 0
    places = places.reshape(len(starts), source.spec.horizon)
    return scaled[places], observed[places]


def _known_readings(source: WindowSource, rows: NDArray[np.int64]) -> Values:
    """Known readings of rising rows, some past the end, in original units [rows, n, F]."""
    store, known = source.store, list(source.known_indices)
    dtype = np.dtype(np.float64 if source.is_exact else np.float32)
    values = np.full((len(rows), source.num_nodes, len(known)), np.nan, dtype=dtype)
    inside = rows[rows < store.meta.num_steps]
    raw = store.raw[inside] if source.sensors is None else store.raw[inside][:, source.sensors]
    values[: len(inside)] = store.codec.decode(raw, dtype)[..., known]
    later = rows[len(inside) :] - store.meta.num_steps
    later = later[later < len(store.future)]
    for place, channel in enumerate(known):
        name = store.meta.channels[channel]
        if name in store.meta.known_future:
            column = store.future[later, :, store.meta.known_future.index(name)]
            chosen = column if source.sensors is None else column[:, source.sensors]
            values[len(inside) : len(inside) + len(later), :, place] = chosen
    return values
