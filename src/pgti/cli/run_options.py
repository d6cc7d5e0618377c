"""The options of a run as flags, made from the configuration classes, and with `--config` a file.

Options of the training loop are top-level flags (`--epochs`, `--schedule.kind`), the others have
the name of their table (`--windows.horizon`, `--model.hidden`). `--schedule cosine` and
`--model stid` are short for `--schedule.kind cosine` and `--model.name stid`.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from cyclopts import Parameter

from pgti.batching import WindowConfig
from pgti.cli.output import format_default
from pgti.models import MODELS, is_own_model, model_entry
from pgti.options import field_texts, parse_text, variants
from pgti.run.config import ModelConfig, RunConfig
from pgti.training import TrainingConfig

__all__ = ["RunFlags", "allow_own_module", "run_config"]


def run_config(store: Path, flags: "RunFlags") -> RunConfig:
    """The configuration of the flags and of the file that `--config` names; flags come first.

    A flag that names another model or another kind than the file's replaces the file's table.

    Raises:
        ConfigError: if an option is unknown or has a wrong value.
    """
    given = _nest(flags)
    path = given.pop("config", None)
    store = store.absolute()
    below = RunConfig(store=store) if path is None else RunConfig.from_toml(path, store)
    name = given.get("model", {}).get("name", below.model.name)
    allow_own_module(name)
    if "model" in given:
        given["model"] = _parse_model(given["model"], name)
    return below.override(given)


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
    hints = get_type_hints(model_entry(name).config) | {"name": str}
    return {key: parse_text(text, hints.get(key, Any)) for key, text in given.items()}


def allow_own_module(model: str | None) -> None:
    """Let Python find modules of the current directory if the user names a network of their own.

    Not where a run's files name it: they may come from elsewhere, with a module beside them.
    """
    here = str(Path.cwd())
    if model is not None and is_own_model(model) and here not in sys.path:
        sys.path.insert(0, here)


# -- flags ----------------------------------------------------------------------------------------


def _flags() -> Iterator[tuple[str, Any]]:
    """Dotted name and annotated type of every flag of a run."""
    text = (
        "TOML file with options, in the tables [windows], [model] and [training]; command-line "
        "options override the file. The config.toml of a run is such a file."
    )
    yield "config", Annotated[Path, Parameter(name="--config", help=text)]
    text = (
        "Name of the model; pgti models lists them all. A network of your own is MODULE:CLASS; its "
        "module may be in the current directory."
    )
    yield _flag("model.name", ("model.name", "model"), str, text, ModelConfig().name, "Model")
    parameter = Parameter(name="--model", help=_model_help(), group="Model")
    yield "model", Annotated[dict[str, str], parameter]
    for each in fields(RunConfig):
        if each.name in ("batching", "placement", "device", "memory_budget"):
            hint = str if each.name == "memory_budget" else get_type_hints(RunConfig)[each.name]
            text = field_texts(RunConfig)[each.name]
            yield _flag(each.name, (each.name,), hint, text, each.default, "Parameters")
    yield from _flags_of(WindowConfig, "windows.", "windows.", "Windows")
    yield from _flags_of(TrainingConfig, "training.", "", "Training")


def _flags_of(config: type, prefix: str, shown: str, group: str) -> Iterator[tuple[str, Any]]:
    """The flags of a configuration class.

    Args:
        config: the class.
        prefix: before the names of its options, as in a configuration file.
        shown: before the names of its flags.
        group: heading in the help.
    """
    texts, hints = field_texts(config), get_type_hints(config)
    for each in fields(config):
        name, shown_name, text = f"{prefix}{each.name}", f"{shown}{each.name}", texts[each.name]
        kinds = variants(hints[each.name])
        if not kinds:
            yield _flag(name, (shown_name,), hints[each.name], text, each.default, group)
            continue
        names, kind = (f"{shown_name}.kind", shown_name), Literal[tuple(kinds)]
        yield _flag(f"{name}.kind", names, kind, text, getattr(each.default, "kind", None), group)
        for option, (hint, default, about) in _variant_options(kinds).items():
            yield _flag(
                f"{name}.{option}", (f"{shown_name}.{option}",), hint, about, default, group
            )


def _variant_options(kinds: Mapping[str, type]) -> dict[str, tuple[Any, Any, str]]:
    """Type, default and text of each option of the variants; the text names their kinds."""
    takers: dict[str, dict[str, list[str]]] = {}
    found: dict[str, tuple[Any, Any]] = {}
    for kind, config in kinds.items():
        texts, hints = field_texts(config), get_type_hints(config)
        for each in fields(config):
            if each.name != "kind":
                takers.setdefault(each.name, {}).setdefault(texts[each.name], []).append(kind)
                found[each.name] = hints[each.name], each.default
    return {
        name: (*found[name], " ".join(f"{', '.join(by)}: {text}" for text, by in texts.items()))
        for name, texts in takers.items()
    }


def _flag(
    option: str, names: tuple[str, ...], hint: Any, text: str, default: Any, group: str
) -> tuple[str, Any]:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (member for member in get_args(hint) if member is not NoneType)
    can_be_empty = group == "Windows" and not default  # every channel, no calendar
    if get_origin(hint) is tuple:
        hint = tuple[get_args(hint)[0], ...]  # type: ignore[misc] # known at run time only
    parameter = Parameter(
        name=tuple(f"--{name.replace('_', '-')}" for name in names),
        help=text,
        group=group,
        show_default=False if (shown := format_default(default)) is None else str(shown),
        negative_iterable="empty-" if can_be_empty else (),
    )
    return option, Annotated[hint, parameter]


def _model_help() -> str:
    """The models and their options, as they are in the code, then layers of other libraries."""
    models = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{each.name.replace('_', '-')} [{each.default}]" for each in fields(entry.config)
        )
        for name, entry in MODELS.items()
        if not entry.library
    )
    layers: dict[str, list[str]] = {}
    for name, entry in MODELS.items():
        if entry.library:
            prefix, _, layer = name.partition(":")
            layers.setdefault(f"{prefix}:LAYER for a layer of {entry.library}", []).append(layer)
    rest = "".join(f"; {what}: {', '.join(names)}" for what, names in layers.items())
    return f"Options of the model, as --model.OPTION VALUE. {models}{rest}."


if TYPE_CHECKING:
    RunFlags = dict[str, Any]
else:
    RunFlags = TypedDict("RunFlags", dict(_flags()), total=False)  # noqa: UP013 - dotted names
