"""What every batching strategy is given and must do."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching.batch import Batch
from pgti.batching.buffers import Buffers, RowRanges
from pgti.errors import ConfigError, require_whole_number
from pgti.store import Profile, Scaler, SeriesStore, calendar_features
from pgti.windows import WindowSpec

__all__ = ["Batcher", "Fetched", "RowSource", "StartsOf", "WindowSource"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class WindowSource:
    """Everything that determines what a window holds.

    Args:
        store: the series.
        spec: the window's shape.
        scaler: standardisation of the inputs.
        target_indices: positions, among the store's channels, of those to forecast.
        calendar: names of the calendar features that are appended to the inputs.
        profile: typical day of the target channels; appended to the inputs before the calendar,
            for the input's own row and for the row H steps later. None appends nothing.

    Raises:
        ConfigError: if there is no such calendar feature, or the series has no times.
    """

    store: SeriesStore
    spec: WindowSpec
    scaler: Scaler
    target_indices: tuple[int, ...]
    calendar: tuple[str, ...] = ()
    profile: Profile | None = None

    def __post_init__(self) -> None:
        self.calendar_of(np.zeros(1, dtype=np.int64))  # an unknown feature is refused at once

    @property
    def num_input_channels(self) -> int:
        """Channels of a batch's `x`: the store's, the profile's and the calendar's."""
        typical = 0 if self.profile is None else 2 * len(self.target_indices)
        return self.store.meta.num_channels + typical + len(self.calendar)

    def calendar_of(self, starts: NDArray[np.int64]) -> Tensor:
        """Calendar features of the windows, float32 [B, L + H, F]."""
        rows = starts[:, None] + np.arange(self.spec.span)
        return torch.from_numpy(calendar_features(self.store.time_axis, self.calendar, rows))

    def profile_slots_of(self, starts: NDArray[np.int64]) -> Tensor:
        """Entries of the profile's table for every row of the windows, int64 [B, L + H or 0]."""
        if self.profile is None:
            return torch.zeros(len(starts), 0, dtype=torch.int64)
        rows = starts[:, None] + np.arange(self.spec.span)
        return torch.from_numpy(self.profile.week_bins(self.store.time_axis, rows))

    def scaled_profile(self) -> NDArray[np.float32] | None:
        """The profile's table, standardised like the inputs: [slots, N, C_out]."""
        if self.profile is None:
            return None
        mean = np.asarray(self.scaler.mean, dtype=np.float32)[list(self.target_indices)]
        std = np.asarray(self.scaler.std, dtype=np.float32)[list(self.target_indices)]
        return (self.profile.table - mean) / std

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


class RowSource(Protocol):
    """Where rows of the series are copied from."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype."""
        ...

    @property
    def num_readings(self) -> int:
        """Readings of a row, N * C."""
        ...

    def take(self, runs: RowRanges, out: NDArray[Any]) -> None:
        """Copy runs of rows, all of them inside the series, to `out` [rows, N * C]."""
        ...


StartsOf: TypeAlias = Callable[[int], NDArray[np.int64]]
"""Window starts by rank."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Fetched:
    """Windows on the host, as a strategy keeps them; `Batcher.assemble` makes a batch of it."""

    tensors: tuple[Tensor, ...]
    starts: NDArray[np.int64]
    with_targets: bool


class Batcher(ABC):
    """A strategy that turns window starts into batches.

    The work has two halves, so that a thread can run ahead with the first: `fetch` reads rows on
    the host, into buffers that whoever calls it provides; `assemble` makes a `Batch` of them on
    the compute device, in buffers of its own. Several threads may fetch at the same time, each
    into other buffers; one at a time may assemble.

    Args:
        source: what the windows hold.
        device: where batches are made.
        prefetch_depth: batches that a loader has under way, the one in use included: 1 fetches when
            a batch is asked for, more run ahead.

    Raises:
        ConfigError: if `prefetch_depth` is not a positive whole number.
    """

    def __init__(self, source: WindowSource, device: torch.device, prefetch_depth: int = 1) -> None:
        require_whole_number("prefetch_depth", prefetch_depth, 1)
        self.source = source
        self.device = device
        self.prefetch_depth = prefetch_depth
        self._own_buffers = Buffers()

    @abstractmethod
    def fetch(
        self,
        starts: NDArray[np.int64],
        *,
        with_targets: bool = True,
        buffers: Buffers | None = None,
        rows: RowSource | None = None,
    ) -> Fetched:
        """Read the rows of the given windows, on the host.

        Args:
            starts: first row of each window, int64 [B], at least one.
            with_targets: False for windows whose horizon lies past the end of the series.
            buffers: memory for the rows: what is fetched is valid until they are used again. The
                batcher's own if not given.
            rows: what `announce` gave for these windows, if it gave anything.

        Raises:
            ConfigError: if a window reaches outside the series.
        """

    @abstractmethod
    def assemble(self, fetched: Fetched) -> Batch:
        """Make a batch of fetched windows, on the compute device."""

    @property
    def held_bytes(self) -> int:
        """Memory of its own that the rows of the series take, once batches are made of them."""
        return 0

    def prepare(self, epoch: int) -> None:  # noqa: B027 - a hook
        """Begin whatever an epoch's batches will need, while the caller goes on."""

    def enter(self, epoch: int) -> None:  # noqa: B027 - a hook
        """Have everything that an epoch's batches need."""

    def announce(self, starts_of: StartsOf) -> RowSource | None:
        """Be told of a batch before it is fetched, on all ranks and in the same order.

        Args:
            starts_of: gives the windows that a rank takes of the batch.

        Returns:
            Where `fetch` finds the batch's rows, if that is a place of its own.
        """
        return None

    def empty(self) -> Batch:
        """The batch of a rank that has no window of it: every tensor with B = 0."""
        meta, spec = self.source.store.meta, self.source.spec
        past, future = (0, spec.input_steps, meta.num_nodes), (0, spec.horizon, meta.num_nodes)
        targets = len(self.source.target_indices)

        def nothing(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self.device)

        return Batch(
            x=nothing(*past, self.source.num_input_channels),
            x_mask=nothing(*past, meta.num_channels, dtype=torch.bool),
            y=nothing(*future, targets),
            y_mask=nothing(*future, targets, dtype=torch.bool),
            calendar=nothing(0, spec.span, len(self.source.calendar)),
            starts=np.empty(0, dtype=np.int64),
        )

    def gather(self, starts: NDArray[np.int64], *, with_targets: bool = True) -> Batch:
        """Fetch and assemble in one call."""
        return self.assemble(self.fetch(starts, with_targets=with_targets))

    def _pinned(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors where a GPU copies them from while the host goes on."""
        if self.device.type != "cuda":
            return tensors
        # Torch keeps pinned memory, and gives it out again when the copies from it are done.
        return tuple(tensor.pin_memory() if tensor.numel() else tensor for tensor in tensors)
