"""The training loop: epochs, validation, checkpoints, early stopping and interruption."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import torch

from pgti.batching import Batch, BatchLoader
from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError, DataError, Interrupted, option
from pgti.forecasting import NetworkForecaster, Observer, evaluate
from pgti.training.callbacks import Callback, Extensions, TrainingStatus
from pgti.training.checkpoint import Checkpoint
from pgti.training.compilation import compile_network, compiler_errors
from pgti.training.config import TrainingConfig
from pgti.training.optim import learning_rate
from pgti.training.progress import FitResult, Progress, rate_of
from pgti.training.run_directory import RunDirectory
from pgti.training.signals import StopVote
from pgti.training.state import RunFingerprint, TrainingState
from pgti.training.step import TrainStep

__all__ = ["Trainer"]


class Trainer:
    """Trains a network forecaster; after `fit` it holds the last parameters, `best.pt` the best.

    `TrainStep` takes the steps. Within an epoch the loss stays on the device; it is read every
    `log_every_steps`, at checkpoints and at the end.

    Args:
        forecaster: what to train, on its device.
        training: batches to train on.
        validation: batches that decide about the best parameters, early stopping and plateau.
        config: how to train.
        run: where checkpoints and metrics go.
        fingerprint: stored with every checkpoint.
        observers: shown the progress.
        communicator: the ranks that train together, each on its shard of every batch and all with
            the same parameters; only rank 0 writes to the run. One process by default.
        extensions: what a user adds.
        validates_start: validate before the first step, too: the network has trained weights.

    Attributes:
        train_step: takes the optimizer steps.
        state: parameters, optimizer and progress.

    Raises:
        ConfigError: if there is nothing to train, or no window to train or validate on.
    """

    def __init__(  # noqa: PLR0913 - each is a part of a training
        self,
        forecaster: NetworkForecaster,
        *,
        training: BatchLoader,
        validation: BatchLoader,
        config: TrainingConfig,
        run: RunDirectory,
        fingerprint: RunFingerprint,
        observers: Sequence[Observer] = (),
        communicator: Communicator | None = None,
        extensions: Extensions | None = None,
        validates_start: bool = False,
    ) -> None:
        for name, loader in (("train", training), ("val", validation)):
            if loader.num_windows == 0:
                raise ConfigError(
                    f"the {name} split has no window: give it a larger fraction, or shorten "
                    "input_steps or horizon"
                )
        self._forecaster = forecaster
        self._training = training
        self._validation = validation
        self._config = config
        self._run = run
        self._observers = observers
        self._communicator = SingleProcess() if communicator is None else communicator
        self._extensions = Extensions() if extensions is None else extensions
        self._validates_start = validates_start
        self.train_step = TrainStep.from_config(
            forecaster, config, self._communicator, self._extensions.loss
        )
        self._steps_per_epoch = -(-training.num_batches // config.accumulate)
        self.state = TrainingState(
            self.train_step, run, fingerprint, self._communicator, self._steps_per_epoch
        )
        self._status = TrainingStatus(self.state, self.train_step, run)
        self._device = self.train_step.device
        self._stop = StopVote(self._communicator, 60 * config.checkpoint_every_minutes)
        self._any_callbacks = False
        self._sent_before = self._communicator.traffic.sent_bytes
        self._sent_in_step = self._communicator.traffic.since(self._sent_before)

    @property
    def progress(self) -> Progress:
        """How far the training has come."""
        return self.state.progress

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint; None continues a run that has none yet.

        Raises:
            RunError: if the checkpoint belongs to another scaler or model, or `metrics.jsonl` is
                shorter than it was.
        """
        self.state.restore(checkpoint)

    def fit(self) -> FitResult:
        """Train to the end, from wherever the training stands.

        Raises:
            RunError: if the loss is not finite.
            DataError: if no validation target was observed.
            Interrupted: after SIGTERM or SIGINT, once the state is saved.
        """
        self.train_step.broadcast_network()
        self.train_step.average.begin()
        for each in self._forecaster.called if self._config.compile else ():
            compile_network(each, self._config.compile_mode)
        self._forecaster.train()
        self._any_callbacks = self._communicator.any(bool(self._extensions.callbacks))
        if self._extensions.callbacks:
            self.train_step.watch_for_changes()
        try:
            with compiler_errors(), self._stop.signals, closing(self.state):
                if not self.state.progress.is_finished(self._config):
                    self._train()
                self._agree_to_stop()
                self.state.wait_until_saved()
        finally:
            for observer in self._observers:
                observer.close()
        parameters = sum(each.numel() for each in self.train_step.parameters)
        return FitResult.of(self.state.progress, self._config, parameters)

    def _train(self) -> None:
        self._call(lambda callback: callback.on_begin(self._status))
        if self._validates_start and self.state.progress.validated_at_step < 0:
            self._validate(0)
            self.state.save()
        while not self.state.progress.is_finished(self._config):
            self._train_epoch()
            self._finish_epoch()
        self._call(lambda callback: callback.on_end(self._status))

    def _call(self, method: Callable[[Callback], None], *, after_step: bool = False) -> None:
        """Call a method of every callback, and obey those of any rank that ask to stop.

        After a step, the next one carries what they ask to the other ranks.
        """
        if not self._any_callbacks:
            return
        for callback in self._extensions.callbacks:
            method(callback)
        if self._status.stop_requested:
            self._stop.ask()
        if not after_step:
            self._stop.hold()
        if self._stop.has_callback_stopped:
            self.state.progress = replace(self.state.progress, is_stopped=True)

    # -- one epoch --------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        """Take the epoch's remaining steps, or those that `max_steps` leaves."""
        progress = self.state.progress
        self._sent_before = self._communicator.traffic.sent_bytes
        for observer in self._observers:
            label = f"epoch {progress.epoch + 1}/{self._config.epochs}"
            observer.begin(label, self._training.num_windows, progress.epoch_windows, progress.step)
        first_batch = progress.step_in_epoch * self._config.accumulate
        began = time.perf_counter()
        with closing(self._training.epoch(progress.epoch, first_batch)) as batches:
            self._agree_to_stop()
            while not self._is_epoch_over():
                self._stop_if_agreed()
                sent_before = self._communicator.traffic.sent_bytes
                num_windows = self._step(batches)
                self._sent_in_step = self._communicator.traffic.since(sent_before)
                ended = time.perf_counter()
                self._advance(num_windows, ended - began)
                began = self._wait_for_device(ended) if self._is_record_due else ended
                self._write_if_due()
            self._wait_for_device(began)

    def _wait_for_device(self, began: float) -> float:
        """Count as training what a GPU has still to do of the steps since then; the time now."""
        if self._device.type != "cuda":
            return began
        torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.state.progress = self.state.progress.after_waiting(now - began)
        return now

    def _step(self, batches: Iterator[Batch]) -> int:
        """Take one optimizer step; returns the number of windows trained on."""
        progress, accumulate = self.state.progress, self._config.accumulate
        first = progress.step_in_epoch * accumulate
        stop = min(first + accumulate, self._training.num_batches)
        stopping = self.train_step(
            islice(batches, accumulate),
            step=progress.step,
            num_batches=stop - first,
            learning_rate=learning_rate(
                self._config,
                step=progress.step,
                steps_per_epoch=self._steps_per_epoch,
                plateau=progress.plateau,
            ),
            running=self.state.loss,
            stop=self._stop.bits,
        )
        self._stop.receive(stopping)
        return sum(self._training.windows_in(batch) for batch in range(first, stop))

    def _finish_epoch(self) -> None:
        """Validate, write the epoch's line and the checkpoints."""
        progress = self.state.progress
        ends_epoch = progress.step_in_epoch == self._steps_per_epoch
        if ends_epoch and self._may_continue():
            self._training.prefetch_epoch(progress.epoch + 1)
        with self.train_step.average.in_network():
            self._validate(progress.epoch + 1)
        # best.pt first: a run killed between the two resumes before this validation, which then
        # writes the same best.pt again.
        if ends_epoch:
            self.state.next_epoch()
        self.state.save()

    def _validate(self, epoch: int) -> None:
        """Validate, write the line of an epoch and, if it is the best, its parameters.

        Args:
            epoch: counted from 1; 0 for the weights that training starts from.
        """
        began = time.perf_counter()
        self._agree_to_stop()
        self.train_step.broadcast_buffers()
        metrics = evaluate(
            {"model": self._forecaster},
            self._validation,
            own_metrics=self._extensions.metrics,
            observers=self._observers,
            before_batch=self._agree_at_batch,
            communicator=self._communicator,
        )["model"]
        summary = metrics.summary()
        errors = {name: table["mean"] for name, table in summary.items() if name != "count"}
        mae = errors["mae"]
        if mae is None:
            raise DataError(
                "no target of the validation windows was observed: choose another split"
            )
        train_loss = self.state.read_loss()
        progress = self.state.progress.validated(epoch, mae, train_loss, self._config)
        seconds = time.perf_counter() - began
        progress = replace(progress, validation_seconds=progress.validation_seconds + seconds)
        self.state.progress = progress
        self._record("epoch", epoch, val=errors)
        self._call(lambda callback: callback.on_validation(self._status, errors))
        if progress.bad_validations == 0:
            self.state.save(best=True)

    def _advance(self, num_windows: int, seconds: float) -> None:
        self.state.progress = self.state.progress.after_step(num_windows, seconds)
        for observer in self._observers:
            observer.advance(num_windows, self.state.loss.read_own)
        self._call(lambda callback: callback.on_step(self._status), after_step=True)

    @property
    def _is_record_due(self) -> bool:
        every = self._config.log_every_steps
        return bool(every) and self.state.progress.step % every == 0

    def _write_if_due(self) -> None:
        step, config = self.state.progress.step, self._config
        if self._is_record_due:
            self._record("step", self.state.progress.epoch + 1)
        every = config.checkpoint_every_steps
        if (every and step % every == 0) or self._stop.is_save_due:
            self.state.save()

    # -- progress ---------------------------------------------------------------------------------

    def _is_epoch_over(self) -> bool:
        progress, limit = self.state.progress, self._config.max_steps
        return (
            progress.step_in_epoch >= self._steps_per_epoch
            or progress.is_stopped
            or (limit is not None and progress.step >= limit)
        )

    def _may_continue(self) -> bool:
        """Whether another epoch will follow, unless the validation stops training early."""
        progress, limit = self.state.progress, self._config.max_steps
        return progress.epoch + 1 < self._config.epochs and (limit is None or progress.step < limit)

    # -- files ------------------------------------------------------------------------------------

    def _record(self, kind: str, epoch: int, **more: object) -> None:
        """Append a line to `metrics.jsonl` and show it to the observers."""
        loss = self.state.read_loss()
        progress = self.state.progress
        record = {
            "kind": kind,
            "epoch": epoch,
            "step": progress.step,
            "train_loss": loss,
            **more,
            "lr": self.train_step.learning_rate,
            "seconds": progress.epoch_seconds,
            "windows_per_second": rate_of(progress.epoch_windows, progress.epoch_seconds),
        }
        sent = self._communicator.traffic.since(self._sent_before)
        if any(sent.values()):
            # What rank 0 sent, in the epoch so far and in its last step.
            record["sent_bytes"], record["sent_bytes_step"] = sent, self._sent_in_step
        with self._communicator.raise_together():
            if self._communicator.is_main:
                num_bytes = self._run.append_metrics(record)
                self.state.progress = replace(self.state.progress, metrics_bytes=num_bytes)
        for observer in self._observers:
            observer.record(record)

    def _agree_to_stop(self) -> None:
        """Save and stop, if a signal has asked any rank for it."""
        self._stop.hold()
        self._stop_if_agreed()

    def _agree_at_batch(self) -> None:
        """The same before a batch of the validation, about once a second."""
        self._stop.hold_at_batch()
        self._stop_if_agreed()

    def _stop_if_agreed(self) -> None:
        """Save and stop, if the ranks have agreed to: all of them after the same step."""
        number = self._stop.signal_number
        if not number:
            return
        self.state.save(wait=True)
        name = signal.Signals(number).name
        raise Interrupted(
            f"stopped by {name} after step {self.state.progress.step}; the state is in "
            f"{self._run.last_checkpoint}: resume it with {option('resume', value=True)}",
            number,
        )
