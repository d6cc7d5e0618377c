"""The study of a search: Optuna's storage of its trials, and what it was started with."""

import json
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pgti.errors import ConfigError, MissingExtraError, RunError, option
from pgti.run.search_result import TrialResult
from pgti.training.compatibility import flat_settings, plain_settings

__all__ = [
    "Pruner",
    "causes",
    "importance_of",
    "open_study",
    "optuna",
    "read_rows",
    "read_trial",
    "require_pruner",
    "reraise_storage_errors",
]

Pruner: TypeAlias = Literal["median", "hyperband", "none"]

_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def optuna() -> Any:
    """The module `optuna`, which prints warnings alone.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import optuna as module  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError("optuna", "tune") from None
    module.logging.set_verbosity(module.logging.WARNING)
    return module


@contextmanager
def reraise_storage_errors(path: Path) -> Iterator[None]:
    """Turn an error of the database at `path` in the block into one line.

    Raises:
        RunError: with SQLite's reason.
    """
    try:
        yield
    except Exception as error:
        reason = next((each for each in causes(error) if isinstance(each, sqlite3.Error)), None)
        if reason is None:
            raise
        raise RunError(f"{path} cannot be read and written: {reason}") from error


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def open_study(
    path: Path, pruner: Pruner, epochs: int, identity: Mapping[str, Any], base: Mapping[str, Any]
) -> Any:
    """Create the study of a search, or open it.

    Args:
        path: of the database.
        pruner: what ends trials early.
        epochs: of a trial.
        identity: what determines the search, nested: the same at every start.
        base: parameters of its first trial; empty for none.

    Raises:
        RunError: if it was started with something else.
    """
    module = optuna()
    from sqlalchemy import URL  # noqa: PLC0415 - optuna brings it

    url = URL.create("sqlite", database=str(path)).render_as_string()
    storage = module.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    pruners = {
        "median": lambda: module.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
        "hyperband": lambda: module.pruners.HyperbandPruner(min_resource=1, max_resource=epochs),
        "none": module.pruners.NopPruner,
    }
    study = module.create_study(
        study_name="pgti", storage=storage, pruner=pruners[pruner](), load_if_exists=True
    )
    now, before = plain_settings(identity), study.user_attrs.get("identity")
    if before is None:
        if base:
            study.enqueue_trial(dict(base), skip_if_exists=True)
        study.set_user_attr("identity", now)
        return study
    old, new = flat_settings(before), flat_settings(now)
    for name in (*old, *new):
        if old.get(name) != new.get(name):
            raise RunError(
                f"{path.parent}: the search was started with {name} = {old.get(name)!r}, and not "
                f"{new.get(name)!r}: use its own, or choose another {option('out')}"
            )
    return study


def read_trial(trial: Any) -> TrialResult:
    """A trial of the study as pgti shows it."""
    state, attributes = trial.state.name, trial.user_attrs
    curve = dict(trial.intermediate_values)
    return TrialResult(
        number=trial.number,
        state=_STATES.get(state, "running"),
        val_mae=attributes.get("best_val_mae", min(curve.values(), default=None)),
        params=dict(trial.params),
        curve=curve,
        seconds=attributes.get("seconds"),
        error=attributes.get("error"),
    )


def importance_of(study: Any) -> dict[str, float]:
    """Share of each option in the spread of the errors; empty where there are too few trials."""
    module = optuna()
    with suppress(ValueError, RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = module.importance.PedAnovaImportanceEvaluator()
        found = module.importance.get_param_importances(study, evaluator=evaluator)
        return {name: float(value) for name, value in found.items()}
    return {}


def read_rows(path: Path) -> int | None:
    """Rows of the store when a search began; None if there is none."""
    if not (path / "study.db").exists():
        return None
    with suppress(sqlite3.Error), sqlite3.connect(path / "study.db") as connection:
        row = connection.execute(
            "SELECT value_json FROM study_user_attributes WHERE key = 'identity'"
        ).fetchone()
        return None if row is None else int(json.loads(row[0])["rows"])
    return None


def require_pruner(pruner: object) -> None:
    """Refuse another pruner.

    Raises:
        ConfigError: naming those that there are.
    """
    if pruner not in ("median", "hyperband", "none"):
        raise ConfigError(f"pruner is {pruner!r}: it must be one of median, hyperband, none")
