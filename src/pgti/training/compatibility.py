"""Whether a run may be resumed with the options, the store and the scaler that are given now."""

import json
from collections.abc import Mapping, Set
from dataclasses import asdict, fields
from typing import Any, get_type_hints

from pgti.errors import ConfigError, RunError
from pgti.options import variants
from pgti.training.config import TrainingConfig
from pgti.training.schedules import CosineSchedule

__all__ = [
    "check_fingerprint",
    "check_settings",
    "flat_settings",
    "free_options",
    "plain_settings",
    "upgrade_training_options",
]

_FREE_OPTIONS = frozenset(
    f"training.{name}"
    for name in (
        "epochs",
        "max_steps",
        "patience",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "eval_batch_size",
        "log_every_steps",
        "compile",
        "compile_mode",
        "cuda_graphs",
        "deterministic",
        "activation_checkpointing",
        "allow_no_edges",
    )
)
"""Options about when a run stops, what it writes and how it computes: the last bits alone
depend on compilation, recomputation and the batch of validation."""

_FLAT_OPTIONS = {
    "milestones": ("schedule", "milestones"),
    "schedule_factor": ("schedule", "factor"),
    "plateau_patience": ("schedule", "patience"),
    "min_learning_rate": ("schedule", "min_learning_rate"),
    "partitions": ("order", "partitions"),
    "rotation": ("order", "rotation"),
    "block_size": ("order", "block_size"),
    "huber_delta": ("loss", "delta"),
    "weight_decay": ("optimizer", "weight_decay"),
    "adam_epsilon": ("optimizer", "epsilon"),
}
"""Options of version 0.1: the table and the name that they have now."""

_REFUSED = {"milestones": [], "partitions": 16, "rotation": 0.125, "block_size": 8}
"""Options that 0.1 refused with other kinds, unless they had these values; others it ignored."""


def upgrade_training_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert training options of version 0.1 to their present form; others stay as they are.

    Options of 0.1 were flat, and its files hold those of every kind: those that do not belong to
    the chosen kind are left out.

    Raises:
        ConfigError: if a block size comes without an order.
    """
    upgraded = dict(options)
    if "recompute" in upgraded:
        upgraded["activation_checkpointing"] = upgraded.pop("recompute")
    if upgraded.get("order", "auto") == "auto":
        if not {"partitions", "rotation"}.isdisjoint(upgraded):
            upgraded["order"] = "partitions"
        elif "block_size" in upgraded:
            raise ConfigError("block_size needs an order: set order to blocks or partitions")
    hints, defaults = get_type_hints(TrainingConfig), TrainingConfig()
    for old, (name, new) in _FLAT_OPTIONS.items():
        if old not in upgraded or isinstance(options.get(name), Mapping):
            continue  # a table is in the present form
        table = upgraded.setdefault(name, getattr(defaults, name).kind)
        if isinstance(table, str):
            table = upgraded[name] = {"kind": table}
        if not isinstance(table, dict):
            continue  # no kind, which is refused later
        value = upgraded.pop(old)
        config = variants(hints[name]).get(table["kind"])
        has_option = config is None or new in get_type_hints(config)
        if has_option or value != _REFUSED.get(old, value):
            table[new] = value
    return upgraded


def free_options(config: TrainingConfig) -> frozenset[str]:
    """Dotted names of the options that may change when a run is resumed."""
    # A cosine runs over all epochs: their number is part of what it computes.
    is_cosine = isinstance(config.schedule, CosineSchedule)
    return _FREE_OPTIONS - ({"training.epochs"} if is_cosine else set())


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as a file returns them: with lists for tuples, for instance."""
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def check_settings(
    before: Mapping[str, Any], after: Mapping[str, Any], *, free: Set[str] = frozenset()
) -> None:
    """Refuse options other than those of the run.

    Args:
        before: settings in the checkpoint, nested.
        after: settings now.
        free: dotted names of options that do not bind a run.

    Raises:
        RunError: naming the first option that differs and both its values.
    """
    if "training" in before:
        before = {**before, "training": _complete(before["training"])}
    old, new = flat_settings(plain_settings(before)), flat_settings(plain_settings(after))
    for name in (*old, *new):
        if name in free or old.get(name, "absent") == new.get(name, "absent"):
            continue
        raise RunError(
            f"the run was started with {name} = {old.get(name, 'absent')!r} and cannot be resumed "
            f"with {new.get(name, 'absent')!r}: use the option of the run, or start a new one"
        )


def _complete(training: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an earlier version, with the defaults of those that it did not have yet."""
    options = upgrade_training_options(training)
    known = {each.name for each in fields(TrainingConfig)}
    config = TrainingConfig(**{name: options[name] for name in options if name in known})
    return {**options, **asdict(config)}


def check_fingerprint(before: str, after: str) -> None:
    """Refuse a store other than the run's.

    Raises:
        RunError: naming both fingerprints.
    """
    if before != after:
        raise RunError(
            f"the run was trained on the store with fingerprint {before[:16]} and this store has "
            f"{after[:16]}: give the store of the run, or start a new run"
        )


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names: `training.schedule.kind`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
