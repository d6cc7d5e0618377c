"""What users add to a training: callbacks that follow it and may stop it, a loss, metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pgti.forecasting import Metrics
from pgti.nn import MaskedLoss
from pgti.training.run_directory import RunDirectory
from pgti.training.state import TrainingState
from pgti.training.step import TrainStep

__all__ = ["Callback", "Extensions", "TrainingStatus"]


class TrainingStatus:
    """Where a training stands, for callbacks.

    Args:
        state: of the training.
        train_step: takes its steps.
        run: where its files are.
    """

    def __init__(self, state: TrainingState, train_step: TrainStep, run: RunDirectory) -> None:
        self._state = state
        self._train_step = train_step
        self._run = run
        self._stop_requested = False

    @property
    def network(self) -> nn.Module:
        """The network, on its device; in `on_validation` with the average of weights, if any."""
        return self._train_step.forecaster.network

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self._run.path

    @property
    def epoch(self) -> int:
        """The current epoch, from 1."""
        return self._state.progress.epoch + 1

    @property
    def step(self) -> int:
        """Optimizer steps done since the run began."""
        return self._state.progress.step

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return self._train_step.learning_rate

    @property
    def best_val_mae(self) -> float:
        """Lowest validation MAE so far, in original units; infinite before the first validation."""
        return self._state.progress.best_val_mae

    @property
    def best_epoch(self) -> int:
        """The epoch that reached it, from 1; 0 before that, or for the weights of another run."""
        return self._state.progress.best_epoch

    def read_loss(self) -> float | None:
        """Mean training loss of the epoch so far; None without an observed target.

        This waits for the device, and sums over all ranks: each rank must call it.
        """
        return self._state.read_loss()

    def stop(self) -> None:
        """End the training after this step: it is validated, saved, and finished for good.

        Of several ranks, one is enough to stop all of them after the same step: the next one that
        they take, or the one behind it on GPUs.
        """
        self._stop_requested = True

    @property
    def stop_requested(self) -> bool:
        """Whether a callback of this rank has called `stop`."""
        return self._stop_requested


class Callback:
    """Follows a training; override what you need. Every rank calls its own callbacks.

    An error that a method raises ends the training; a later run can resume it from its last
    checkpoint.
    """

    def on_begin(self, status: TrainingStatus) -> None:
        """Training begins or resumes."""

    def on_step(self, status: TrainingStatus) -> None:
        """An optimizer step is done."""

    def on_validation(self, status: TrainingStatus, errors: Mapping[str, float | None]) -> None:
        """A validation is done, at the end of an epoch or of the training.

        A run that starts from another is validated before its first step, too.

        Args:
            status: where the training stands.
            errors: "mae", "rmse", "mape" and the metrics of a user's own, over all steps and
                targets in original units; None without observations.
        """

    def on_end(self, status: TrainingStatus) -> None:
        """Training has ended by itself, not by a signal or an error."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Extensions:
    """What a user adds to a training.

    Attributes:
        callbacks: follow the training, and may stop it.
        loss: in place of the configuration's: (prediction, target, mask) -> (sum, count).
        metrics: computed at each validation, beside MAE, RMSE and MAPE.
    """

    callbacks: Sequence[Callback] = ()
    loss: MaskedLoss | None = None
    metrics: Metrics | None = None
