"""The windows of a store for Lightning's `Trainer`."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from pgti.batching import WindowConfig, WindowDataset, WindowSampler, WindowSource
from pgti.errors import MissingExtraError, require_whole_number
from pgti.options import parse_config
from pgti.store import SeriesStore, open_store
from pgti.windows import GlobalShuffle, Order, Sequential, SplitName

try:
    from lightning.pytorch import LightningDataModule
except ImportError:
    raise MissingExtraError("lightning", "lightning") from None

__all__ = ["DataModule"]


class DataModule(LightningDataModule):
    """Windows for `Trainer.fit`, `validate`, `test` and `predict`: `pgti.Batch` after `pgti.Batch`.

    `predict` gets the windows of the test split. Nothing is opened before a dataset is used.

    Ranks: Lightning leaves the samplers as they are, whatever `Trainer(use_distributed_sampler)`
    says. The training batches of all ranks at a step are one batch of pgti's order, and each rank
    has equally many windows: up to W - 1 of them come twice in an epoch of W ranks. Validation,
    test and prediction take each window once.

    Args:
        store: an open store, or its path.
        batch_size: windows of a batch of one rank.
        num_workers: processes that gather batches; 0 gathers in this one.
        order: of the training windows; by default `GlobalShuffle(0)`, a new shuffle each epoch.
        **windows: the fields of `pgti.WindowConfig`: `input_steps`, `horizon`, `targets` and so on.

    Attributes:
        store: the store, or its path.
        batch_size: windows of a batch of one rank.
        num_workers: processes that gather batches.
        order: of the training windows.
        windows: shape and split of the windows.

    Raises:
        ConfigError: if an option breaks its rule.
    """

    def __init__(
        self,
        store: SeriesStore | str | Path,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        order: Order | None = None,
        **windows: Any,
    ) -> None:
        super().__init__()
        require_whole_number("batch_size", batch_size, 1)
        require_whole_number("num_workers", num_workers, 0)
        self.store = store
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.order = GlobalShuffle(0) if order is None else order
        self.windows = parse_config(WindowConfig, windows, owner="windows")

    @cached_property
    def train(self) -> WindowDataset:
        """The training windows, with what a network needs: `shape`, `supports()`, `unscale`."""
        return self._dataset("train")

    @cached_property
    def val(self) -> WindowDataset:
        """The validation windows."""
        return self._dataset("val")

    @cached_property
    def test(self) -> WindowDataset:
        """The test windows."""
        return self._dataset("test")

    def train_dataloader(self) -> DataLoader[Any]:
        """This rank's training windows."""
        return self._loader(self.train, self.order, even=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """This rank's validation windows."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """This rank's test windows."""
        return self._loader(self.test)

    def predict_dataloader(self) -> DataLoader[Any]:
        """This rank's test windows."""
        return self._loader(self.test)

    @cached_property
    def _source(self) -> WindowSource:
        return WindowSource.from_config(open_store(self.store), self.windows)

    def _dataset(self, split: SplitName) -> WindowDataset:
        return WindowDataset(self._source, self.windows.splits(self._source.store).starts(split))

    def _loader(
        self, dataset: WindowDataset, order: Order | None = None, *, even: bool = False
    ) -> DataLoader[Any]:
        ranks = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        ranks = {"num_replicas": 1, "rank": 0} if ranks is None else ranks
        sampler = WindowSampler(
            dataset,
            Sequential() if order is None else order,
            rank=ranks["rank"],
            world_size=ranks["num_replicas"],
            even=even,
        )
        return DataLoader(
            dataset,
            batch_size=self.batch_size,  # by name: Lightning builds the loader again to predict
            sampler=sampler,
            collate_fn=WindowDataset.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
