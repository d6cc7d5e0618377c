"""A search: trials of options on one store, each a run, which several processes may share.

study.db       Optuna's storage: parameters, validation errors and states of the trials
trials/0000    the run of a trial; only that of the best keeps its checkpoints once it has ended
best.toml      the configuration of the best trial
report.html    pictures of the search, if plotly is installed
lock           exists while a process chooses or ends a trial, trials/0000.lock while one trains it
"""

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pgti.display import count_of
from pgti.errors import Interrupted, PgtiError, RunError, option
from pgti.models import ModelFactory
from pgti.run.config import RunConfig
from pgti.run.execute import train_run
from pgti.run.search_result import TuneResult
from pgti.run.search_space import SearchSpace
from pgti.run.search_study import (
    Pruner,
    causes,
    importance_of,
    open_study,
    optuna,
    read_trial,
    reraise_storage_errors,
)
from pgti.run.tracking import Tracking
from pgti.storage import file_lock, reraise_os_errors, write_atomically
from pgti.store import SeriesStore
from pgti.training import Callback, Extensions, RunDirectory, TrainingStatus

__all__ = ["Search"]

_MOST_STARTS = 3


class _BusyError(Exception):
    """Another process holds a lock."""


class _Reporting(Callback):
    """Reports the validation error of each epoch, and stops a trial that is not worth going on."""

    def __init__(self, trial: Any, known: Mapping[int, float], epochs: int) -> None:
        self._trial = trial
        self._known = known
        self._epochs = epochs

    def on_validation(self, status: TrainingStatus, errors: Mapping[str, float | None]) -> None:
        """Once for each epoch, also of a trial that is resumed before it."""
        mae, epoch = errors["mae"], status.epoch
        if mae is None:
            return
        if epoch not in self._known:
            self._trial.report(mae, epoch)
        if epoch < self._epochs and self._trial.should_prune():
            self._trial.set_user_attr("pruned", True)
            status.stop()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Search:
    """Trials of a space, in a directory; see `pgti.tune`.

    Attributes:
        path: the directory, which other processes may share.
        config: where the search starts.
        space: what is tried.
        store: to train on.
        pruner: what ends trials early.
        model: the user's own class or function.
        extensions: what the user adds to the trainings.
        tracking: shows the runs; checked.
        progress: further observers of the trainings.
        log: receives one line for each thing that is done.
    """

    path: Path
    config: RunConfig
    space: SearchSpace
    store: SeriesStore
    pruner: Pruner
    model: ModelFactory | None
    extensions: Extensions
    tracking: Tracking
    progress: tuple[Any, ...]
    log: Callable[[str], None]

    def run(self, num_trials: int) -> TuneResult:
        """Try until that many trials have ended, or are running in other processes.

        Raises:
            PgtiError: if the space or the configuration cannot be used, or the directory holds
                something else; no trial was complete; or the disk fails.
            Interrupted: after a signal, once the trial's state is saved.
        """
        with reraise_storage_errors(self.path / "study.db"):
            return self._run(num_trials)

    def _run(self, num_trials: int) -> TuneResult:
        distributions = self.space.distributions(self.config, self.store, self.model)
        self._check_directory()
        with reraise_os_errors(f"{self.path} cannot be written"):
            (self.path / "trials").mkdir(parents=True, exist_ok=True)
        with self._locked():
            identity = {
                "store": self.store.fingerprint,
                "rows": self.store.meta.num_steps,
                "pruner": self.pruner,
                "space": self.space.to_plain(),
                **self.config.settings(),
            }
            base = self.space.params_of(self.config, self.model, distributions)
            epochs = self.config.training.epochs
            study = open_study(self.path / "study.db", self.pruner, epochs, identity, base)
        try:
            while True:
                with ExitStack() as held:
                    with self._locked():
                        trial = self._claim(study, distributions, num_trials, held)
                    if trial is None:
                        break
                    self._try(study, trial)
            with self._locked():
                self._keep_best(study)  # a start before may not have come to it
        except Interrupted as stop:
            raise Interrupted(
                f"the search {self.path} was stopped and goes on if it is started again",
                stop.signal_number,
            ) from None
        return self._result(study)

    def _check_directory(self) -> None:
        if not self.path.exists() or (self.path / "study.db").exists():
            return
        names = {each.name for each in self.path.iterdir()} if self.path.is_dir() else {"a file"}
        if names - {"trials", "lock"}:
            raise RunError(
                f"{self.path} exists and is not a search: choose another {option('out')} or remove "
                "what is there"
            )

    # -- a trial ----------------------------------------------------------------------------------

    def _claim(
        self, study: Any, distributions: Mapping[str, Any], num_trials: int, held: ExitStack
    ) -> Any:
        """A trial that no process trains: one whose process has died, or a new one, or None."""
        module = optuna()
        trials = study.get_trials(deepcopy=False)
        for each in trials:
            if each.state.name != "RUNNING":
                continue
            try:
                lock = file_lock(self._lock_of(each.number), on_busy=_raise_busy)
                held.enter_context(lock)
            except _BusyError:
                continue
            study.sampler = self._sampler(each.number)
            trial = module.trial.Trial(study, each._trial_id)
            for name, distribution in distributions.items():  # it may have none of them yet
                trial._suggest(name, distribution)
            starts = each.user_attrs.get("starts", 1) + 1
            if starts > _MOST_STARTS:
                error = f"its process was killed {_MOST_STARTS} times"
                self._fail(study, trial, RunError(error))
                held.close()
                continue
            trial.set_user_attr("starts", starts)
            self.log(f"trial {each.number} goes on where its process ended")
            return trial
        num_begun = sum(each.state.name != "WAITING" for each in trials)
        if num_begun >= num_trials:
            return None
        study.sampler = self._sampler(num_begun)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters that are enqueued
            trial = study.ask(dict(distributions))
        held.enter_context(file_lock(self._lock_of(trial.number), on_busy=_raise_busy))
        return trial

    def _sampler(self, number: int) -> Any:
        """One for each trial: what is drawn does not depend on who draws, and when."""
        seed = (1_000_003 * self.config.training.seed + number) % 2**32
        return optuna().samplers.TPESampler(seed=seed)

    def _try(self, study: Any, trial: Any) -> None:
        """Train a trial, and say how it ended; an error of its own ends no other."""
        number, directory = trial.number, self._run_of(trial.number)
        shown = ", ".join(f"{name} = {_short(value)}" for name, value in trial.params.items())
        self.log(f"trial {number}: {shown}")
        known = study.trials[number].intermediate_values
        try:
            config = self.space.configure(self.config, trial.params)
            reporting = _Reporting(trial, known, config.training.epochs)
            callbacks = (*self.extensions.callbacks, reporting)
            run, result = train_run(
                config,
                directory.path,
                store=self.store,
                model=self.model,
                resume=True,
                log=lambda _: None,
                observers=self.tracking.observers(self.progress),
                extensions=replace(self.extensions, callbacks=callbacks),
            )
        except (PgtiError, RuntimeError, MemoryError) as error:
            if any(isinstance(each, OSError) for each in causes(error)):
                raise  # of the disk, not of the trial: another start goes on with it
            self.tracking.end("failed")
            with self._locked():
                self._fail(study, trial, error)
            gc.collect()  # the traceback held the memory that the next trial needs
            return
        if run.device.type != "cpu":
            gc.collect()  # the next trial needs the memory
        self.tracking.end("finished")
        with self._locked():
            state = optuna().trial.TrialState
            trial.set_user_attr("seconds", result.seconds)
            trial.set_user_attr("best_val_mae", result.best_val_mae)
            if trial.user_attrs.get("pruned"):
                study.tell(trial, state=state.PRUNED)
                self.log(f"trial {number} was pruned after {count_of(result.epochs, 'epoch')}")
            else:
                study.tell(trial, result.best_val_mae)
                best = study.best_trial
                self.log(
                    f"trial {number}: validation MAE {result.best_val_mae:.4f} in epoch "
                    f"{result.best_epoch}; the best is {best.value:.4f} of trial {best.number}"
                )
            self._keep_best(study)

    def _fail(self, study: Any, trial: Any, error: BaseException) -> None:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        trial.set_user_attr("error", reason)
        study.tell(trial, state=optuna().trial.TrialState.FAIL)
        self.log(f"trial {trial.number} failed: {reason}")
        self._drop_checkpoints(trial.number)

    def _keep_best(self, study: Any) -> None:
        """Write `best.toml`, and keep the checkpoints of the best trial alone."""
        trials = study.get_trials(deepcopy=False)
        complete = [each for each in trials if each.state.name == "COMPLETE"]
        best = min(complete, key=lambda each: (each.value, each.number), default=None)
        if best is not None:
            text = self._run_of(best.number).read_config()
            write_atomically(self.path / "best.toml", text.encode())
        for each in trials:
            if each.state.is_finished() and (best is None or each.number != best.number):
                self._drop_checkpoints(each.number)

    def _drop_checkpoints(self, number: int) -> None:
        run = self._run_of(number)
        for path in (run.last_checkpoint, run.best_checkpoint):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _run_of(self, number: int) -> RunDirectory:
        return RunDirectory(self.path / "trials" / f"{number:04d}")

    def _lock_of(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}.lock"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from choosing and ending trials."""
        with file_lock(self.path / "lock", on_busy=lambda: None):
            yield

    # -- the result -------------------------------------------------------------------------------

    def _result(self, study: Any) -> TuneResult:
        trials = tuple(read_trial(each) for each in study.trials if each.state.name != "WAITING")
        complete = [each for each in trials if each.state == "complete"]
        if not complete:
            errors = [each.error for each in trials if each.error]
            raise RunError(
                f"no trial of {self.path} was complete, the last one because {errors[-1]}: choose "
                f"another space or other options, and another {option('out')}"
                if errors
                else f"no trial of {self.path} is complete yet: other processes run them"
            )
        return TuneResult(
            path=self.path,
            trials=trials,
            best=min(complete, key=lambda each: (each.val_mae, each.number)),
            importance=importance_of(study),
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _raise_busy() -> None:
    raise _BusyError
