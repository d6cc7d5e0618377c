"""What a user of Python gives about a run, as a configuration and what is added to it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from types import NoneType
from typing import Any, Self

from pgti.batching import WindowConfig
from pgti.distributed import Communicator, find_launch
from pgti.errors import ConfigError
from pgti.forecasting import Metrics, check_metrics
from pgti.models import MODELS, AbstractModel, ModelFactory, name_of_own_model
from pgti.options import check_options, require_type
from pgti.run.build import relocate_model
from pgti.run.config import RunConfig
from pgti.store import SeriesStore
from pgti.training import Callback, CustomLoss, Extensions, TrainingConfig

__all__ = ["RunArguments", "check_model", "require_communicator"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RunArguments:
    """What a user gives about a run, checked.

    Attributes:
        model: name of the model, or the user's own class or function; None if not given.
        options: of a `RunConfig`, nested; those that were given.
        extensions: what the user adds to the training.
    """

    model: str | ModelFactory | None
    options: Mapping[str, Any]
    extensions: Extensions

    @classmethod
    def of(  # noqa: PLR0913 - each names one part of a run
        cls,
        *,
        model: str | ModelFactory | None,
        model_options: Mapping[str, Any] | None,
        windows: WindowConfig | Mapping[str, Any] | None,
        training: TrainingConfig | Mapping[str, Any] | None,
        training_options: Mapping[str, Any],
        loss: Any,
        metrics: Metrics | None,
        callbacks: Sequence[Callback],
        others: Mapping[str, Any],
        of_run: RunConfig | None = None,
    ) -> Self:
        """The arguments of `pgti.train` by their names.

        Args:
            model: as `check_model` returns it.
            model_options: as there.
            windows: as there.
            training: as there.
            training_options: single options of the training loop.
            loss: as there.
            metrics: as there.
            callbacks: as there.
            others: further options of a `RunConfig`; None where not given.
            of_run: options of a run that stand in where none are given.

        Raises:
            ConfigError: if one of them cannot be used.
        """
        require_type("model_options", model_options, (Mapping, NoneType), "options by name")
        _refuse_misplaced(
            training_options, of_run.model.name if model is None and of_run else model
        )
        check_options(training_options, TrainingConfig)
        check_metrics({} if metrics is None else metrics)
        own_loss = loss if callable(loss) and not is_dataclass(loss) else None
        if own_loss is not None:
            loss = CustomLoss(name=getattr(loss, "__qualname__", type(loss).__name__))
        options = {
            "model": _model_table(model, model_options),
            "windows": asdict(windows) if isinstance(windows, WindowConfig) else windows,
            "training": _training_table(training, training_options, loss),
            **others,
        }
        return cls(
            model=model,
            options={name: each for name, each in options.items() if each is not None},
            extensions=Extensions(
                callbacks=_check_callbacks(callbacks), loss=own_loss, metrics=metrics
            ),
        )

    @property
    def factory(self) -> ModelFactory | None:
        """The user's own class or function."""
        return None if self.model is None or isinstance(self.model, str) else self.model

    def configure(self, store: SeriesStore, before: RunConfig | None = None) -> RunConfig:
        """Every option.

        Args:
            store: to train on.
            before: options of a run to resume or to start from, where none are given.

        Raises:
            ConfigError: if an option is unknown or has a wrong value.
        """
        config = RunConfig(store=store.path.absolute()) if before is None else before
        if before is not None and self.model is not None:
            config = replace(config, model=relocate_model(config.model, self.model))
        return config.override(self.options)


def require_communicator(communicator: object) -> None:
    """Refuse anything but a communicator, and none where several processes were launched.

    Raises:
        ConfigError: saying what to pass.
    """
    if communicator is None and find_launch(os.environ).world_size > 1:
        raise ConfigError(
            "this is one of several processes, which must train together: pass "
            "communicator= from `with pgti.init_communicator() as communicator`"
        )
    require_type("communicator", communicator, (Communicator, NoneType), "a Communicator")


def check_model(model: Any) -> str | ModelFactory | None:
    """The model as given; a class of pgti's own by its name."""
    if isinstance(model, type) and issubclass(model, AbstractModel):
        return next((name for name, each in MODELS.items() if each.model is model), model)
    if model is not None and not isinstance(model, str) and not callable(model):
        raise ConfigError(
            f"model is {model!r}: it must be the name of a model, or a class or function that "
            "builds one"
        )
    known: str | ModelFactory | None = model
    return known


def _check_callbacks(callbacks: Any) -> Sequence[Callback]:
    require_type("callbacks", callbacks, Sequence, "a list of pgti.Callback")
    for callback in callbacks:
        require_type("callbacks", callback, Callback, "a list of pgti.Callback")
    return tuple(callbacks)


def _refuse_misplaced(given: Mapping[str, Any], model: str | ModelFactory | None) -> None:
    """Say where options of the windows and of the model belong, but for own networks'."""
    for each in given:
        if each in WindowConfig.__slots__:
            raise ConfigError(f"{each} is an option of the windows: pass windows={{{each!r}: ...}}")
    name = "dcrnn" if model is None else model
    if isinstance(name, str) and name in MODELS:
        for each in {field.name for field in fields(MODELS[name].config)} & given.keys():
            raise ConfigError(
                f"{each} is an option of the model {name}: pass model_options={{{each!r}: ...}}"
            )


def _model_table(
    model: str | ModelFactory | None, options: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The model's name and options as a table; None if neither is given."""
    table: dict[str, Any] = {}
    if isinstance(model, str):
        table["name"] = model
    elif model is not None:
        table["name"] = name_of_own_model(model)
    return {**table, **(options or {})} or None


def _training_table(
    training: TrainingConfig | Mapping[str, Any] | None, options: Mapping[str, Any], loss: Any
) -> dict[str, Any]:
    """The options of the training loop as a table; single ones come first."""
    table = training or {}
    if isinstance(training, TrainingConfig):
        # Of a configuration with the batch of a rank, that of all ranks is a mere default.
        unset = "batch_size_per_rank" if training.batch_size_per_rank is None else "batch_size"
        table = {name: value for name, value in asdict(training).items() if name != unset}
    if not isinstance(table, Mapping):
        raise ConfigError(f"training is {training!r}: it must be a TrainingConfig or a mapping")
    return {**table, **options, **({} if loss is None else {"loss": loss})}
