"""Whether a run may go on with the options, the store and the scaler that it is given now."""

import json
from collections.abc import Mapping, Set
from dataclasses import asdict
from typing import Any

from pgti.errors import RunError
from pgti.training.config import TrainingConfig

__all__ = ["check_fingerprint", "check_settings", "free_options", "plain_settings"]

_FREE_OPTIONS = frozenset(
    f"training.{name}"
    for name in (
        "epochs",
        "max_steps",
        "patience",
        "checkpoint_every_steps",
        "log_every_steps",
        "compile",
        "activation_checkpointing",
    )
)
"""Options that say when a run stops, what it writes and how it is computed: the last two change the
last bits of gradients, and nothing else."""


def free_options(config: TrainingConfig) -> frozenset[str]:
    """Dotted names of the options that may change when a run goes on."""
    # A cosine runs over all epochs: their number is part of what it computes.
    return _FREE_OPTIONS - ({"training.epochs"} if config.schedule == "cosine" else set())


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they look after a journey through a file: lists for tuples, and so on."""
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
    old, new = _flat(plain_settings(before)), _flat(plain_settings(after))
    if "training" in before:  # options that the run's version did not have yet
        old = {**_flat(plain_settings({"training": asdict(TrainingConfig())})), **old}
    for name in (*old, *new):
        if name in free or old.get(name, "absent") == new.get(name, "absent"):
            continue
        raise RunError(
            f"the run was started with {name} = {old.get(name, 'absent')!r} and cannot be resumed "
            f"with {new.get(name, 'absent')!r}: use the option of the run, or start a new one"
        )


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


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
