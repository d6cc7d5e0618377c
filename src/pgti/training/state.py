"""Everything that changes while a run trains, and its journey through checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pgti.distributed import Communicator
from pgti.errors import RunError
from pgti.forecasting.forecaster import NetworkForecaster
from pgti.training.checkpoint import Checkpoint, read_checkpoint
from pgti.training.compatibility import (
    check_fingerprint,
    check_settings,
    free_options,
    plain_settings,
)
from pgti.training.config import TrainingConfig
from pgti.training.optim import build_optimizer
from pgti.training.progress import Position
from pgti.training.run_directory import RunDirectory

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
    """Parameters, optimiser, position and the loss of the epoch so far.

    The loss of this rank's windows is summed on the device; `read_loss` waits for it, and adds up
    those of all ranks. Methods that read it are called by all ranks together.

    Args:
        forecaster: holds the network, on its device.
        config: how to train.
        run: where checkpoints go; rank 0 alone reads and writes them.
        identity: what a checkpoint must agree with.
        communicator: the ranks, which all hold the same parameters.

    Raises:
        ConfigError: if no parameter learns.
    """

    def __init__(
        self,
        forecaster: NetworkForecaster,
        config: TrainingConfig,
        run: RunDirectory,
        identity: RunFingerprint,
        communicator: Communicator,
    ) -> None:
        self._communicator = communicator
        self._forecaster = forecaster
        self._config = config
        self._run = run
        self._identity = identity
        self.optimizer = build_optimizer(forecaster.network.parameters(), config)
        self.parameters = [p for p in forecaster.network.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.position = Position()
        self.loss_sum: Tensor
        self.loss_count: Tensor
        self._set_loss(0.0, 0)

    @property
    def rate(self) -> float:
        """Learning rate of the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.position = self.position.next_epoch()
        self._set_loss(0.0, 0)

    def read_loss(self) -> float | None:
        """Mean loss of the epoch so far, None where no target was observed yet.

        Raises:
            RunError: if it is not finite.
        """
        total, number = self.loss_sum.clone(), self.loss_count.clone()
        self._communicator.all_reduce_(total, "metrics")
        self._communicator.all_reduce_(number, "metrics")
        loss_sum, count = float(total), int(number)
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
        finite = torch.stack([parameter.isfinite().all() for parameter in self.parameters])
        if not bool(finite.all()):
            raise self._diverged("a parameter is not finite")
        self._check_ranks_agree()
        checkpoint = Checkpoint(
            network=self._forecaster.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
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
            for each in self.parameters
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
        network = self._forecaster.network
        checkpoint.check_fits(network.state_dict())
        network.load_state_dict(checkpoint.network)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.position = Position.from_plain(checkpoint.position)
        if self._communicator.is_main:  # what the epoch's steps so far came to is counted once
            self._set_loss(self.position.loss_sum, self.position.loss_count)

    def _settings(self) -> dict[str, Any]:
        return plain_settings({**self._identity.settings, "training": asdict(self._config)})

    def _scaler(self) -> dict[str, list[float]]:
        scaler = self._forecaster.scaler
        return {"mean": list(scaler.mean), "std": list(scaler.std)}

    def _set_loss(self, loss_sum: float, loss_count: int) -> None:
        self.loss_sum = torch.tensor(loss_sum, dtype=torch.float64, device=self.device)
        self.loss_count = torch.tensor(loss_count, dtype=torch.int64, device=self.device)

    def _diverged(self, what: str) -> RunError:
        return RunError(
            f"training diverged: {what} at step {self.position.step} with learning rate "
            f"{self.rate:g}; lower learning_rate, raise warmup_steps or lower clip_norm"
        )
