"""Windows as a map-style dataset, for anybody's `torch.utils.data.DataLoader`."""

import operator
import os
import threading
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from pgti.batching.batch import Batch
from pgti.batching.batcher import Batcher
from pgti.batching.build import build_batcher
from pgti.batching.config import WindowConfig
from pgti.batching.source import WindowSource
from pgti.display import Display, count_of, shorten
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.nn import Supports
from pgti.options import parse_config
from pgti.signatures import accept_options
from pgti.store import Scaler, SeriesStore, open_store
from pgti.windows import ModelShape, SplitName

__all__ = ["CovariateSample", "HistorySample", "WindowDataset", "WindowSample"]


class WindowSample(NamedTuple):
    """One window, or many where `default_collate` has stacked them: a B comes first then.

    Attributes:
        x: inputs, standardised, as in `Batch`: float32 [L, N, C_in].
        x_mask: which input readings were observed, bool [L, N, C].
        y: targets in original units, a missing one as 0: float32 [H, N, C_out].
        y_mask: which targets were observed, bool [H, N, C_out].
        calendar: calendar features of inputs and horizon, float32 [L + H, F].
        start: first row of the window in the store; stacked, int64 [B].
    """

    x: Tensor
    x_mask: Tensor
    y: Tensor
    y_mask: Tensor
    calendar: Tensor
    start: int


class CovariateSample(NamedTuple):
    """One window of a series with channels known in advance, or with features of the sensors.

    Attributes:
        x: as in `WindowSample`, and so are those up to `start`.
        x_mask: likewise.
        y: likewise.
        y_mask: likewise.
        calendar: likewise.
        start: likewise.
        future: known values at the steps to forecast, as in `Batch`: float32 [H, N, F]; F is 0 if
            no channel is known in advance.
        future_mask: which of them are known, bool [H, N, F].
        static: features of the sensors, as in `Batch`: float32 [N, S], the same in every sample; S
            is 0 without.
        static_codes: categories of the sensors, int64 [N, Q].
    """

    x: Tensor
    x_mask: Tensor
    y: Tensor
    y_mask: Tensor
    calendar: Tensor
    start: int
    future: Tensor
    future_mask: Tensor
    static: Tensor
    static_codes: Tensor


class HistorySample(NamedTuple):
    """One window with history.

    Attributes:
        x: as in `CovariateSample`, and so are those up to `static_codes`.
        x_mask: likewise.
        y: likewise.
        y_mask: likewise.
        calendar: likewise.
        start: likewise.
        future: likewise.
        future_mask: likewise.
        static: likewise.
        static_codes: likewise.
        history: readings of earlier rows, as in `Batch`: float32 [R, N, C].
        history_mask: which of them were observed, bool [R, N, C].
    """

    x: Tensor
    x_mask: Tensor
    y: Tensor
    y_mask: Tensor
    calendar: Tensor
    start: int
    future: Tensor
    future_mask: Tensor
    static: Tensor
    static_codes: Tensor
    history: Tensor
    history_mask: Tensor


Sample: TypeAlias = WindowSample | CovariateSample | HistorySample


class WindowDataset(Display, Dataset[Sample]):
    """Windows of a store, gathered on demand.

    `torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True,
    collate_fn=WindowDataset.collate)` gives the `Batch` of `build_loader`, bit for bit; without
    `collate_fn` it gives a `WindowSample` of stacked tensors, a `CovariateSample` if the store
    has channels that are known in advance or features of its sensors, or a `HistorySample` if its
    windows have history. `__getitems__` gathers a whole batch at once. A worker process is sent
    the store's path, never its data.

    Args:
        source: what the windows hold.
        starts: window starts: a range or int64 [S].

    Attributes:
        source: what the windows hold.
        starts: window starts, int64 [S].

    Raises:
        ConfigError: if a window reaches outside the series.
    """

    def __init__(self, source: WindowSource, starts: range | NDArray[np.int64]) -> None:
        self.source = source
        self.starts = np.asarray(starts, dtype=np.int64)
        source.check_starts(self.starts, with_targets=True)
        self._own = _Own()

    @classmethod
    @accept_options(WindowConfig)
    def from_store(
        cls, store: SeriesStore | str | Path, split: SplitName = "train", **windows: Any
    ) -> Self:
        """The windows of a split of a store, as `pgti.train` cuts and standardises them.

        Scaler and typical readings come from the training rows, whatever the split, so that the
        three splits of a store share them.

        Args:
            store: an open store, or its path.
            split: train, val or test.
            **windows: options of `WindowConfig`; the calendar is by default the time of day, if the
                series has several rows a day:

        Raises:
            ConfigError: if there is no such split or option, an option breaks its rule, or the
                split has no window.
            DataError: if a target channel is not in the store, or a channel was never observed.
            StoreError: if the store cannot be opened.
        """
        config = parse_config(WindowConfig, windows, owner="windows")
        opened = open_store(store)
        starts = config.splits(opened).starts(split)
        if not len(starts):
            raise ConfigError(
                f"the split {split} of {opened.path} has no window: give it a larger fraction, or "
                "shorten input_steps or horizon"
            )
        return cls(WindowSource.from_config(opened, config), starts)

    # -- what a network needs ---------------------------------------------------------------------

    @property
    def store(self) -> SeriesStore:
        """The store: sensor ids, channels, units, times."""
        return self.source.store

    @property
    def shape(self) -> ModelShape:
        """The sizes of a network for these windows."""
        return self.source.shape

    @property
    def scaler(self) -> Scaler:
        """Standardisation of the store's channels, fitted on training rows."""
        return self.source.scaler

    @property
    def graph(self) -> SensorGraph:
        """The sensor graph."""
        return self.source.store.graph

    def supports(self, kind: str = "dual_random_walk") -> Supports:
        """The graph's operators; a module, so that it moves to a device with the network.

        Args:
            kind: of the operators, as in `Supports.from_graph`.

        Raises:
            ConfigError: if there is no such kind.
        """
        return Supports.from_graph(self.graph, kind)

    def unscale(self, scaled: Tensor) -> Tensor:
        """Standardised targets [..., N, C_out] in original units, at least in float32."""
        mean, std = (
            torch.tensor([of_channels[index] for index in self.source.target_indices])
            for of_channels in (self.scaler.mean, self.scaler.std)
        )
        values = scaled * std.to(scaled.device) + mean.to(scaled.device)
        offsets = self.source.offsets
        if offsets is None:
            return values
        of_targets = torch.from_numpy(offsets[:, list(self.source.target_indices)])
        return values.double() + of_targets.to(scaled.device)

    # -- samples ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Sample:
        """The sample at position `index` of the starts."""
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"window {position} of a dataset of {count_of(len(self), 'window')}")
        (sample,) = self.__getitems__([position])
        return sample

    def __getitems__(self, indices: list[int]) -> Sequence[Sample]:
        """The samples at several positions, with one gather for all of them."""
        batch = (
            self._own.batcher_of(self.source)
            .gather(self.starts[np.asarray(indices, dtype=np.int64)])
            .clone()
        )
        assert batch.y is not None  # it was asked for
        assert batch.y_mask is not None
        x, x_mask, channels = batch.x, batch.x_mask, self.source.network_channels
        if channels is not None:
            x, x_mask = x[..., list(channels)], x_mask[..., list(self.source.input_indices)]
        tensors = (x, x_mask, batch.y, batch.y_mask, batch.calendar)
        starts, num_nodes = batch.starts.tolist(), self.source.num_nodes
        if batch.future is None and batch.static is None and batch.history is None:
            return list(map(WindowSample, *tensors, starts))
        future, known, static, codes = (
            torch.empty((*shape, num_nodes, 0), dtype=dtype) if each is None else each
            for each, shape, dtype in (
                (batch.future, (len(starts), self.source.spec.horizon), torch.float32),
                (batch.future_mask, (len(starts), self.source.spec.horizon), torch.bool),
                (batch.static, (), torch.float32),
                (batch.static_codes, (), torch.int64),
            )
        )
        columns = (*tensors, starts, future, known, repeat(static), repeat(codes))
        if batch.history is None or batch.history_mask is None:
            return list(map(CovariateSample, *columns))
        earlier = [batch.history, batch.history_mask]
        if channels is not None:
            earlier = [each[..., list(self.source.input_indices)] for each in earlier]
        return list(map(HistorySample, *columns, *earlier))

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Stack samples to a batch: `DataLoader(dataset, collate_fn=WindowDataset.collate)`."""
        if not len(samples):
            raise ConfigError("there is no sample to collate: a batch has at least one window")
        first = samples[0]
        stacked = default_collate([WindowSample(*each[:6]) for each in samples])
        batch = Batch(
            x=stacked.x,
            x_mask=stacked.x_mask,
            y=stacked.y,
            y_mask=stacked.y_mask,
            calendar=stacked.calendar,
            starts=stacked.start.numpy(),
        )
        if not isinstance(first, WindowSample):
            if first.future.shape[-1]:
                batch.future, batch.future_mask = default_collate([each[6:8] for each in samples])
            if first.static.shape[-1]:
                batch.static, batch.static_codes = first.static, first.static_codes
        if isinstance(first, HistorySample):
            batch.history, batch.history_mask = default_collate([each[10:12] for each in samples])
        return batch

    def describe(self) -> tuple[str, dict[str, str]]:
        """A title, and facts by name; each is one line."""
        shape, meta = self.shape, self.store.meta
        targets = [meta.channels[index] for index in self.source.target_indices]
        facts = {
            "window": f"{shape.input_steps} + {count_of(shape.horizon, 'step')}"
            + (f", history of {count_of(shape.history_steps, 'step')}" if shape.history else ""),
            "inputs": f"{count_of(shape.input_channels, 'channel')} of "
            f"{count_of(shape.num_nodes, 'sensor')}",
            "targets": shorten(targets),
            "store": str(self.store.path),
        }
        return f"WindowDataset of {count_of(len(self), 'window')}", facts

    # -- other processes --------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, object]:
        """Everything but the buffers: another process makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _own=_Own())


class _Own(threading.local):
    """The batcher of one thread of one process: its buffers are written at each call."""

    batcher: Batcher[Any] | None = None
    process: int | None = None

    def batcher_of(self, source: WindowSource) -> Batcher[Any]:
        """This thread's batcher, made at the first call."""
        if self.batcher is None or self.process != os.getpid():  # a forked worker inherits one
            # There may be many workers: they cache no decoded rows.
            budget_bytes = 0 if get_worker_info() is not None else None
            self.process = os.getpid()
            self.batcher = build_batcher(
                "index", source, torch.device("cpu"), budget_bytes=budget_bytes
            )
        return self.batcher
