"""The options of a run as flags, made from the configuration classes, and with `--config` a file.

Options of the training loop are top-level flags (`--epochs`), the others have the name of their
table (`--windows.horizon`, `--model.hidden`). `--schedule cosine` is short for
`--schedule.kind cosine`, and `--model stid` for `--model.name stid`.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, get_type_hints

from pgti.batching import WindowConfig
from pgti.cli.flags import flag, flags_of, short_texts
from pgti.errors import ConfigError
from pgti.options import parse_text
from pgti.run.config import ModelConfig, RunConfig, read_toml, upgrade_options
from pgti.training import TrainingConfig

__all__ = ["RunFlags", "allow_own_module", "run_config"]


def run_config(
    store: Path,
    flags: "RunFlags",
    resumed: Path | None = None,
    base: RunConfig | None = None,
) -> RunConfig:
    """The configuration of the flags and of the file that `--config` names; flags come first.

    A flag that names another model or another kind than the file's replaces the file's table.

    Args:
        store: the store to train on.
        flags: those that were given.
        resumed: directory of a run whose own options stand in for a file.
        base: options where neither flags nor a file say anything, of a run with the same model; by
            default those of a new run.

    Raises:
        ConfigError: if an option is unknown or has a wrong value.
    """
    given = _nest(flags)
    path = given.pop("config", None)
    is_users = path is not None
    if path is None and resumed is not None:
        path = _config_of(resumed)
    store = store.absolute()
    table = {} if path is None else read_toml(path).get("model", {})
    name = table.get("name") if isinstance(table, Mapping) else None
    default = ModelConfig().name if base is None else base.model.name
    name = given.get("model", {}).get("name", name or default)
    if is_users or "name" in given.get("model", {}):
        allow_own_module(name)
    if "model" in given:
        given["model"] = _parse_model(given["model"], name)
    if base is not None:
        below = base if path is None else base.override(_options_of(path))
        return _relocate(below, given).override(given)
    if path is None:
        return RunConfig(store=store).override(given)
    try:
        below = (RunConfig.from_toml if is_users else RunConfig.of_run)(path, store)
    except ConfigError:
        with suppress(ConfigError):  # flags may complete what the file leaves open
            return RunConfig.from_toml(path, store, given)
        raise
    return (below if is_users else _relocate(below, given)).override(given)


def _relocate(config: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run, whose own network may have moved to the module that is given."""
    if "name" not in given.get("model", {}):
        return config
    from pgti.run.build import relocate_model

    return replace(config, model=relocate_model(config.model, given["model"]["name"]))


def _options_of(path: Path) -> dict[str, Any]:
    """The options of a file, without its store."""
    content = {name: table for name, table in read_toml(path).items() if name != "store"}
    return upgrade_options(content)


def _config_of(run: Path) -> Path | None:
    """The file with the options of a run; None if there is no run yet."""
    from pgti.training import RunDirectory

    return RunDirectory(run).config_file if RunDirectory.exists(run) else None


def _nest(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the flags that were given, nested as in a configuration file."""
    nested: dict[str, Any] = {}
    for name, value in flags.items():
        if name == "model":
            options = {key.replace("-", "_"): text for key, text in value.items()}
            nested["model"] = {**options, **nested.get("model", {})}
            continue
        *tables, last = name.split(".")
        table = nested
        for each in tables:
            table = table.setdefault(each, {})
        table[last] = value
    return nested


def _parse_model(given: Mapping[str, str], name: str) -> dict[str, Any]:
    """The options of the model `name`, given as text, each of the type that the model asks for."""
    from pgti.models import model_entry

    hints = get_type_hints(model_entry(name).config) | {"name": str}
    return {key: parse_text(text, hints.get(key, Any)) for key, text in given.items()}


def allow_own_module(model: str | None) -> None:
    """Let Python find modules of the current directory if the user names a network of their own.

    Not where a run's files name it: they may come from elsewhere, with a module beside them.
    """
    from pgti.models import is_own_model

    here = str(Path.cwd())
    if model is not None and is_own_model(model) and here not in sys.path:
        sys.path.insert(0, here)


# -- flags ----------------------------------------------------------------------------------------

_GROUPS_OF_TRAINING = {
    **dict.fromkeys(
        (
            "learning_rate",
            "warmup_steps",
            "schedule",
            "optimizer",
            "ema_decay",
            "loss",
            "bounds",
            "curriculum_steps",
            "curriculum_warmup_steps",
            "clip_norm",
        ),
        "Optimization",
    ),
    **dict.fromkeys(
        (
            "precision",
            "deterministic",
            "cuda_graphs",
            "activation_checkpointing",
            "compile",
            "compile_mode",
        ),
        "Machine",
    ),
    "freeze": "Start",
    **dict.fromkeys(
        ("checkpoint_every_minutes", "checkpoint_every_steps", "log_every_steps"), "Output"
    ),
}


def _flags() -> Iterator[tuple[str, Any]]:
    """Dotted name and annotated type of every flag of a run."""
    text = "TOML file with options, such as the config.toml of a run; flags override it."
    yield "config", flag(("config",), Path, text, None, "Options")
    text = "Name of the model (pgti models lists them), or MODULE:CLASS for a network of your own."
    names = ("model.name", "model")
    yield "model.name", flag(names, str, text, ModelConfig().name, "Model")
    text = "Options of the model, as --model.OPTION VALUE; pgti models NAME lists them."
    yield "model", flag(("model",), dict[str, str], text, None, "Model")
    texts, hints = short_texts(RunConfig), get_type_hints(RunConfig)
    for each in fields(RunConfig):
        if each.name in ("batching", "placement", "shard_sensors", "device", "memory_budget"):
            hint = str if each.name == "memory_budget" else hints[each.name]
            yield (
                each.name,
                flag((each.name,), hint, texts[each.name], each.default, "Machine"),
            )
    yield from flags_of(WindowConfig, "Windows", prefix="windows.", shown="windows.")
    yield from flags_of(TrainingConfig, "Training", prefix="training.", groups=_GROUPS_OF_TRAINING)


if TYPE_CHECKING:
    RunFlags = dict[str, Any]
else:
    RunFlags = TypedDict("RunFlags", dict(_flags()), total=False)  # noqa: UP013 - dotted names
