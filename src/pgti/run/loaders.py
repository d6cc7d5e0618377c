"""The loaders of a run, and where they get their rows from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching import Batcher, BatchLoader, build_batcher, build_loader, choose_batching
from pgti.display import size_text
from pgti.errors import ConfigError, option
from pgti.run.run import Run

__all__ = ["AUTO", "RunLoaders"]

AUTO = "auto"
"""The batching that `choose_batching` resolves."""


class RunLoaders:
    """Training and validation batches of a run, and a batcher for single windows.

    Args:
        run: the run, with its options.
        validated: starts of the validation windows.

    Attributes:
        trial: makes batches of any window.
        training: this rank's training batches.
        validation: this rank's validation batches.
        batching: strategy of the training batches.
        choices: what was chosen here, in one line each.

    Raises:
        ConfigError: if the strategy does not suit the placement, or does not fit in memory.
    """

    def __init__(self, run: Run, validated: range | NDArray[np.int64]) -> None:
        self._run = run
        self.batching, self.choices = self._choose()
        is_replicated = run.config.placement == "replicated"
        # Where ranks hold parts, or a window is tried, nobody needs the decoded series.
        self.trial = build_batcher("index", run.source, run.device, budget_bytes=0)
        batcher = self.trial
        if is_replicated:
            batcher = build_batcher(self.batching, run.source, run.device)
            # The series need not move to the device for a trial; else it tries what training does.
            self.trial = self.trial if self.batching == "device" else batcher
        self.training = self._build_training(batcher)
        self.validation = build_loader(
            run.source,
            validated,
            run.config.training.evaluated_at_once(run.communicator.data_size),
            communicator=run.communicator,
            batcher=batcher,
        )

    @property
    def device_bytes(self) -> int:
        """Bytes of rows that the run will hold on its compute device."""
        on_device = self.batching == "device" or self._run.device.type == "cpu"
        return self.training.batcher.rows.owned_bytes if on_device else 0

    @property
    def may_leave_device(self) -> bool:
        """Whether rows that were to be on a GPU may be read on the host: nobody asked for it."""
        is_chosen = self._run.config.batching == AUTO and self.batching == "device"
        return is_chosen and self._run.device.type == "cuda"

    @property
    def num_evaluated(self) -> int:
        """The most windows of a validation batch that this rank takes."""
        size = min(self.validation.batch_size, self.validation.num_windows)
        return self.validation.sharding.max_size(size)

    def leave_device(self) -> str:
        """Read the rows on the host; every rank calls it, before the first batch.

        Returns:
            A line that says so.
        """
        rows = size_text(self.device_bytes)
        self.batching = "index"
        self.training.batcher = self._build_training(self.trial).batcher
        self.validation.batcher = self.trial
        return (
            f"batching index after all: beside the rows, {rows}, a step does not fit on "
            f"{self._run.device}; they are read on the host"
        )

    def _choose(self) -> tuple[str, list[str]]:
        """The strategy that makes batches, and a line that says so where it was chosen here."""
        run, config = self._run, self._run.config
        is_partitioned = config.placement == "partitioned"
        if is_partitioned and config.batching == "standard":
            raise ConfigError(
                "batching is standard and placement is partitioned: each rank gathers from the "
                f"rows that it holds; leave {option('batching')} out, or use "
                f"{option('batching', 'index')} (rows in host memory) or "
                f"{option('batching', 'device')} (on each rank's device)"
            )
        if config.batching != AUTO:
            return config.batching, []
        if not is_partitioned:
            batching, reason = choose_batching(run.source, run.device, config.memory_budget)
            return batching, [reason]
        if run.device.type == "cpu":
            return "index", []
        return "device", [f"batching device: each rank holds its rows on its GPU ({run.device})"]

    def _build_training(self, batcher: Batcher[Any]) -> BatchLoader:
        run, training = self._run, self._run.config.training
        return build_loader(
            run.source,
            run.splits.train,
            training.batch_size,
            training.build_order(),
            device=run.device,
            batching=self.batching,
            placement=run.config.placement,
            communicator=run.communicator,
            batcher=batcher,
        )
