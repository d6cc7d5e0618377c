"""Mutable training state and how it is checkpointed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from pgti.distributed import Communicator
from pgti.errors import RunError
from pgti.training.checkpoint import Checkpoint
from pgti.training.checkpoint_writer import CheckpointWriter
from pgti.training.compatibility import check_settings, plain_settings
from pgti.training.optim import plain_optimizer_state
from pgti.training.progress import Progress
from pgti.training.run_directory import RunDirectory
from pgti.training.running_loss import RunningLoss
from pgti.training.step import TrainStep

__all__ = ["RunFingerprint", "TrainingState"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFingerprint:
    """What has to be the same before a run may be resumed.

    Attributes:
        store: the store's fingerprint.
        settings: every option that determines the run, as nested plain values.
    """

    store: str
    settings: Mapping[str, Any]


class TrainingState:
    """Parameters, optimizer, progress and the loss of the epoch so far.

    `read_loss` waits for the device and sums over all ranks; every rank calls the methods that
    read it.

    Args:
        train_step: holds the network and the optimizer.
        run: where checkpoints go; rank 0 alone reads and writes them.
        fingerprint: stored with every checkpoint.
        communicator: the ranks, which all hold the same parameters.
        steps_per_epoch: optimizer steps of an epoch.
    """

    def __init__(
        self,
        train_step: TrainStep,
        run: RunDirectory,
        fingerprint: RunFingerprint,
        communicator: Communicator,
        steps_per_epoch: int,
    ) -> None:
        self._communicator = communicator
        self._step = train_step
        self._network = train_step.forecaster.network
        self._run = run
        self._fingerprint = fingerprint
        self._steps_per_epoch = steps_per_epoch
        self._writer = CheckpointWriter()
        self.progress = Progress()
        self.loss = RunningLoss(train_step.device)

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.progress = self.progress.next_epoch()
        self.loss.reset()

    def read_loss(self) -> float | None:
        """Mean loss of the epoch so far, None where no target was observed yet.

        Raises:
            RunError: if it is not finite.
        """
        loss_sum, count = self.loss.read(self._communicator)
        self.progress = replace(self.progress, loss_sum=loss_sum, loss_count=count)
        if not math.isfinite(loss_sum):
            raise self._diverged(f"the loss is {loss_sum}")
        return loss_sum / count if count else None

    def save(self, *, best: bool = False, wait: bool = False) -> None:
        """Copy the state; a thread of rank 0 writes it.

        Args:
            best: write `best.pt`; otherwise `last.pt`.
            wait: return once it is written.

        Raises:
            RunError: if the loss or a parameter is not finite or the ranks' parameters differ, the
                last good checkpoint being kept; if the checkpoint before, or with `wait` this one,
                cannot be written.
        """
        self.read_loss()
        finite = torch.stack([parameter.isfinite().all() for parameter in self._step.parameters])
        if not bool(finite.all()):
            raise self._diverged("a parameter is not finite")
        self._check_ranks_agree()
        checkpoint = self.to_checkpoint()
        with self._communicator.raise_together():
            if self._communicator.is_main:
                path = self._run.best_checkpoint if best else self._run.last_checkpoint
                self._writer.write(checkpoint, path)
                if wait:
                    self._writer.wait()

    def wait_until_saved(self) -> None:
        """Return once every checkpoint is complete; every rank calls it.

        Raises:
            RunError: if the last one cannot be written.
        """
        with self._communicator.raise_together():
            self._writer.wait()

    def close(self) -> None:
        """End the thread that writes checkpoints."""
        self._writer.join()

    def to_checkpoint(self) -> Checkpoint:
        """What `save` writes."""
        network, trained = self._step.average.state_dicts()
        return Checkpoint(
            network=network,
            trained=trained,
            optimizer=plain_optimizer_state(self._step.optimizer, self._step.learning_rate),
            position=self.progress.to_plain(),
            scaler=self._scaler(),
            fingerprint=self._fingerprint.store,
            settings=plain_settings(self._fingerprint.settings),
        )

    def _check_ranks_agree(self) -> None:
        """Refuse ranks whose parameters differ, as far as their sums show."""
        sums = [
            each.detach().contiguous().reshape(-1).view(torch.int16).sum(dtype=torch.int64)
            for each in self._step.parameters
        ]
        mine = int(torch.stack(sums).sum())
        most, least = self._communicator.all_reduce_max([mine, -mine])
        if most != -least:
            raise RunError(
                f"the ranks hold different parameters after step {self.progress.step}: the network "
                "changes them by other means than its gradients, or a rank computes wrongly"
            )

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Load a checkpoint, if there is one, and discard metrics that were written after it.

        Raises:
            RunError: if the checkpoint belongs to another scaler, model, optimizer or plan, or
                `metrics.jsonl` is shorter than it was.
        """
        with self._communicator.raise_together():
            if checkpoint is not None:
                self._load(checkpoint)
            if self._communicator.is_main:
                self._run.clean()
                self._run.truncate_metrics(self.progress.metrics_bytes)

    def _load(self, checkpoint: Checkpoint) -> None:
        check_settings({"scaler": checkpoint.scaler}, {"scaler": self._scaler()})
        progress = checkpoint.progress
        self._check_plan(progress)
        has_average = checkpoint.trained is not None
        if has_average != self._step.average.is_wanted and (has_average or progress.step):
            raise RunError(
                "the checkpoint and the run differ in whether the weights are averaged: it is "
                "damaged; restore it from a copy, or train again"
            )
        checkpoint.load_trained(self._network)
        self._step.average.load(checkpoint.network)
        self._step.load_optimizer(checkpoint.optimizer, steps=progress.step)
        self.progress = progress
        if self._communicator.is_main:  # the losses of the epoch so far are counted once
            self.loss.reset(self.progress.loss_sum, self.progress.loss_count)

    def _check_plan(self, progress: Progress) -> None:
        """Refuse a position that is not one of this training's."""
        in_epoch, per_epoch = progress.step_in_epoch, self._steps_per_epoch
        if in_epoch > per_epoch or progress.step != progress.epoch * per_epoch + in_epoch:
            raise RunError(
                f"the checkpoint is at step {progress.step}, which is step {in_epoch} after "
                f"{progress.epoch} epochs, and an epoch has {per_epoch}: it is damaged or of other "
                "windows; restore it from a copy, or train again"
            )

    def _scaler(self) -> dict[str, list[float]]:
        return self._step.forecaster.scaler.to_plain()

    def _diverged(self, what: str) -> RunError:
        return RunError(
            f"training diverged: {what} at step {self.progress.step} with learning rate "
            f"{self._step.learning_rate:g}; lower learning_rate, raise warmup_steps or lower "
            "clip_norm"
        )
