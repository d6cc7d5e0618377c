"""What every batching strategy is given and must do."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batch import Batch
from pgti.errors import ConfigError
from pgti.series import Scaler, SeriesStore, calendar_features
from pgti.windows import WindowSpec

__all__ = ["Batcher", "Fetched", "WindowSource"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class WindowSource:
    """Everything that determines what a window holds.

    Args:
        store: the series.
        spec: the window's shape.
        scaler: standardisation of the inputs.
        target_indices: positions, among the store's channels, of those to forecast.
        calendar: names of the calendar features that are appended to the inputs.

    Raises:
        ConfigError: if there is no such calendar feature, or the series has no times.
    """

    store: SeriesStore
    spec: WindowSpec
    scaler: Scaler
    target_indices: tuple[int, ...]
    calendar: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.calendar_of(np.zeros(1, dtype=np.int64))  # an unknown feature is refused at once

    @property
    def num_input_channels(self) -> int:
        """Channels of a batch's `x`: the store's and the calendar's, C + F."""
        return self.store.meta.num_channels + len(self.calendar)

    def calendar_of(self, starts: NDArray[np.int64]) -> Tensor:
        """Calendar features of the windows, float32 [B, L + H, F]."""
        rows = starts[:, None] + np.arange(self.spec.span)
        return torch.from_numpy(calendar_features(self.store.time_axis, self.calendar, rows))

    def check_starts(self, starts: NDArray[np.int64], *, with_targets: bool) -> None:
        """Refuse windows that reach outside the series.

        Raises:
            ConfigError: naming the first such window.
        """
        rows = self.spec.span if with_targets else self.spec.input_steps
        last = self.store.meta.num_steps - rows
        outside = (starts < 0) | (starts > last)
        if outside.any():
            raise ConfigError(
                f"window start {int(starts[outside][0])} is outside the series: the rule is "
                f"0 <= start <= {last} ({self.store.meta.num_steps} steps, {rows} rows a window)"
            )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Fetched:
    """Windows on the host, as a strategy keeps them; `Batcher.assemble` makes a batch of it."""

    tensors: tuple[Tensor, ...]
    starts: NDArray[np.int64]
    with_targets: bool
    slot: int


class Batcher(ABC):
    """A strategy that turns window starts into batches.

    The work has two halves, so that a thread can run ahead with the first: `fetch` reads rows on
    the host, `assemble` makes a `Batch` of them on the compute device. Each works in one of
    `num_slots` sets of reused buffers.

    Args:
        source: what the windows hold.
        device: where batches are made.
        num_slots: sets of buffers; a prefetching loader needs more than one.
    """

    def __init__(self, source: WindowSource, device: torch.device, num_slots: int = 1) -> None:
        self.source = source
        self.device = device
        self.num_slots = num_slots

    @abstractmethod
    def fetch(
        self, starts: NDArray[np.int64], *, with_targets: bool = True, slot: int = 0
    ) -> Fetched:
        """Read the rows of the given windows, on the host.

        Args:
            starts: first row of each window, int64 [B].
            with_targets: False for windows whose horizon lies past the end of the series.
            slot: which set of buffers to use, < num_slots.

        Raises:
            ConfigError: if a window reaches outside the series.
        """

    @abstractmethod
    def assemble(self, fetched: Fetched) -> Batch:
        """Make a batch of fetched windows, on the compute device."""

    def gather(self, starts: NDArray[np.int64], *, with_targets: bool = True) -> Batch:
        """Fetch and assemble in one call."""
        return self.assemble(self.fetch(starts, with_targets=with_targets))
