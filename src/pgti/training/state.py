"""Everything that changes while a run trains, and its journey through checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from pgti.distributed import Communicator
from pgti.errors import RunError
from pgti.training.checkpoint import Checkpoint, read_checkpoint
from pgti.training.compatibility import (
    check_fingerprint,
    check_settings,
    free_options,
    plain_settings,
)
from pgti.training.config import TrainingConfig
from pgti.training.progress import Position
from pgti.training.run_directory import RunDirectory
from pgti.training.step import RunningLoss, TrainStep

__all__ = ["RunFingerprint", "TrainingState"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFingerprint:
    """What a checkpoint must agree with before a run goes on from it.

    Args:
        fingerprint: the store's.
        settings: options outside `TrainingConfig` that determine the run (model, windows, splits,
            targets, ...), as nested plain values.
    """

    fingerprint: str
    settings: Mapping[str, Any]


class TrainingState:
    """Parameters, optimizer, position and the loss of the epoch so far.

    `read_loss` waits for the device and sums over all ranks; every rank calls the methods that
    read it.

    Args:
        train_step: holds the network and the optimizer.
        config: how to train.
        run: where checkpoints go; rank 0 alone reads and writes them.
        identity: what a checkpoint must agree with.
        communicator: the ranks, which all hold the same parameters.
    """

    def __init__(
        self,
        train_step: TrainStep,
        config: TrainingConfig,
        run: RunDirectory,
        identity: RunFingerprint,
        communicator: Communicator,
    ) -> None:
        self._communicator = communicator
        self._step = train_step
        self._network = train_step.forecaster.network
        self._config = config
        self._run = run
        self._identity = identity
        self.position = Position()
        self.loss = RunningLoss(train_step.device)

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.position = self.position.next_epoch()
        self.loss.reset()

    def read_loss(self) -> float | None:
        """Mean loss of the epoch so far, None where no target was observed yet.

        Raises:
            RunError: if it is not finite.
        """
        loss_sum, count = self.loss.read(self._communicator)
        self.position = replace(self.position, loss_sum=loss_sum, loss_count=count)
        if not math.isfinite(loss_sum):
            raise self._diverged(f"the loss is {loss_sum}")
        return loss_sum / count if count else None

    def save(self, *, best: bool = False) -> None:
        """Write `last.pt` or `best.pt`.

        Raises:
            RunError: if the loss or a parameter is not finite or the ranks' parameters differ, the
                last good checkpoint being kept, or if it cannot be written.
        """
        self.read_loss()
        finite = torch.stack([parameter.isfinite().all() for parameter in self._step.parameters])
        if not bool(finite.all()):
            raise self._diverged("a parameter is not finite")
        self._check_ranks_agree()
        checkpoint = Checkpoint(
            network=self._network.state_dict(),
            optimizer=self._step.optimizer.state_dict(),
            position=self.position.to_plain(),
            scaler=self._scaler(),
            fingerprint=self._identity.fingerprint,
            settings=self._settings(),
        )
        with self._communicator.raise_together():
            if self._communicator.is_main:
                checkpoint.save(self._run.best_checkpoint if best else self._run.last_checkpoint)

    def _check_ranks_agree(self) -> None:
        """Refuse to go on if the ranks do not hold the same parameters, as far as sums tell."""
        sums = [
            each.detach().reshape(-1).view(torch.int16).sum(dtype=torch.int64)
            for each in self._step.parameters
        ]
        mine = int(torch.stack(sums).sum())
        most, least = self._communicator.all_reduce_max([mine, -mine])
        if most != -least:
            raise RunError(
                f"the ranks hold different parameters after step {self.position.step}: the network "
                "changes them by other means than its gradients, or a rank computes wrongly"
            )

    def restore(self) -> None:
        """Take up the last checkpoint, if there is one, and forget metrics written after it.

        Raises:
            RunError: if the checkpoint is damaged, or of a run with another store, model or
                option.
        """
        path = self._run.last_checkpoint
        archive = b""
        with self._communicator.raise_together():
            if self._communicator.is_main and path.exists():
                archive = read_checkpoint(path)
        archive = self._communicator.broadcast_bytes(archive)
        with self._communicator.raise_together():
            if archive:
                self._load(Checkpoint.parse(path, archive))
            if self._communicator.is_main:
                self._run.clean()
                self._run.truncate_metrics(self.position.metrics_bytes)

    def _load(self, checkpoint: Checkpoint) -> None:
        check_fingerprint(checkpoint.fingerprint, self._identity.fingerprint)
        check_settings(checkpoint.settings, self._settings(), free=free_options(self._config))
        check_settings({"scaler": checkpoint.scaler}, {"scaler": self._scaler()})
        checkpoint.check_fits(self._network.state_dict())
        self._network.load_state_dict(checkpoint.network)
        self._step.optimizer.load_state_dict(checkpoint.optimizer)
        self.position = Position.from_plain(checkpoint.position)
        if self._communicator.is_main:  # what the epoch's steps so far came to is counted once
            self.loss.reset(self.position.loss_sum, self.position.loss_count)

    def _settings(self) -> dict[str, Any]:
        return plain_settings({**self._identity.settings, "training": asdict(self._config)})

    def _scaler(self) -> dict[str, list[float]]:
        scaler = self._step.forecaster.scaler
        return {"mean": list(scaler.mean), "std": list(scaler.std)}

    def _diverged(self, what: str) -> RunError:
        return RunError(
            f"training diverged: {what} at step {self.position.step} with learning rate "
            f"{self._step.learning_rate:g}; lower learning_rate, raise warmup_steps or lower "
            "clip_norm"
        )
