"""The options of a run as flags, made from the configuration classes, and with `--config` a file.

Options of the training loop are top-level flags (`--epochs`, `--schedule.kind`), the others have
the name of their table (`--windows.horizon`, `--model.hidden`). `--schedule cosine` and
`--model stid` are short for `--schedule.kind cosine` and `--model.name stid`.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
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

from pgti.errors import ConfigError
from pgti.models import MODELS
from pgti.options import parse_value, variants
from pgti.run.config import RunConfig, WindowConfig, read_toml, upgrade_options
from pgti.training import TrainingConfig

__all__ = ["RunFlags", "run_config"]

_ENTRY = re.compile(r"^    (\w+): (.+(?:\n     +.+)*)", re.MULTILINE)


def run_config(store: Path, flags: "RunFlags") -> RunConfig:
    """The configuration of the flags and of the file that `--config` names; flags come first.

    A flag that names another model or another kind than the file's replaces the file's table.

    Raises:
        ConfigError: if an option is unknown or has a wrong value.
    """
    given = _nested(flags)
    path = given.pop("config", None)
    content: dict[str, Any] = {}
    if path is not None:
        content = read_toml(path)
        try:
            content = upgrade_options({**content, "store": store})
            RunConfig.from_options(content)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    try:
        return RunConfig.from_options({**_merged(content, given), "store": store.absolute()})
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("training.")) from None


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the flags that were given, nested as in a configuration file."""
    nested: dict[str, Any] = {}
    for name, value in flags.items():
        if name == "model":
            options = {key.replace("-", "_"): parse_value(text) for key, text in value.items()}
            nested["model"] = {**options, **nested.get("model", {})}
            continue
        *tables, last = name.split(".")
        table = nested
        for each in tables:
            table = table.setdefault(each, {})
        table[last] = value
    return nested


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one, in which `above` comes first."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if isinstance(value, Mapping):
            table = old if isinstance(old, Mapping) else {} if old is None else {"kind": old}
            tags = {"kind", "name"} & table.keys() & value.keys()
            is_other = any(table[tag] != value[tag] for tag in tags)
            merged[name] = dict(value) if is_other else _merged(table, value)
        else:
            merged[name] = value
    return merged


# -- flags ----------------------------------------------------------------------------------------


def _flags() -> Iterator[tuple[str, Any]]:
    """Dotted name and annotated type of every flag of a run."""
    help_config = "TOML file with options; flags override it. The config.toml of a run is one."
    yield "config", Annotated[Path, Parameter(name="--config", help=help_config)]
    names = Parameter(name=("--model.name", "--model"), help=_model_help(), show_default="dcrnn")
    yield "model.name", Annotated[str, names]
    yield (
        "model",
        Annotated[dict[str, str], Parameter(name="--model", help="Options of the model.")],
    )
    yield from _flags_of(RunConfig, "", "", leave_out=("store", "model", "windows", "training"))
    yield from _flags_of(WindowConfig, "windows.", "windows.")
    yield from _flags_of(TrainingConfig, "training.", "")


def _flags_of(
    config: type, prefix: str, shown: str, *, leave_out: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """The flags of a configuration class.

    Args:
        config: the class.
        prefix: before the names of its options, as in a configuration file.
        shown: before the names of its flags.
        leave_out: options without a flag.
    """
    texts, hints = _field_texts(config), get_type_hints(config)
    for each in fields(config):
        if each.name in leave_out:
            continue
        name, text, kinds = (
            f"{shown}{each.name}",
            texts.get(each.name, ""),
            variants(hints[each.name]),
        )
        if not kinds:
            yield _flag(f"{prefix}{each.name}", (name,), hints[each.name], text, each.default)
            continue
        kind = Literal[tuple(kinds)]  # type: ignore[valid-type] # kinds at run time
        default = getattr(each.default, "kind", None)
        yield _flag(f"{prefix}{each.name}.kind", (f"{name}.kind", name), kind, text, default)
        yield from _variant_flags(f"{prefix}{each.name}.", f"{name}.", kinds)


def _variant_flags(prefix: str, shown: str, kinds: Mapping[str, type]) -> Iterator[tuple[str, Any]]:
    """One flag for each option of a table's variants, whose text names the kinds that take it."""
    texts: dict[str, dict[str, str]] = {}
    options: dict[str, tuple[Any, Any]] = {}
    for kind, config in kinds.items():
        for each in fields(config):
            if each.name != "kind":
                text = _field_texts(config)[each.name]
                texts.setdefault(each.name, {})
                texts[each.name][text] = ", ".join(filter(None, (texts[each.name].get(text), kind)))
                options[each.name] = get_type_hints(config)[each.name], each.default
    for name, (hint, default) in options.items():
        text = " ".join(f"{kind}: {text}" for text, kind in texts[name].items())
        yield _flag(f"{prefix}{name}", (f"{shown}{name}",), hint, text, default)


def _flag(
    option: str, names: tuple[str, ...], hint: Any, text: str, default: Any
) -> tuple[str, Any]:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (member for member in get_args(hint) if member is not NoneType)
    if option == "memory_budget":
        hint = str  # 2GiB
    if get_origin(hint) is tuple:
        hint = tuple[get_args(hint)[0], ...]  # type: ignore[misc] # known at run time only
    is_shown = default not in (None, (), MISSING)
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    flags = tuple(f"--{name.replace('_', '-')}" for name in names)
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    parameter = Parameter(name=flags, help=text, show_default=shown if is_shown else False)
    return option, Annotated[hint, parameter]


def _field_texts(config: type) -> dict[str, str]:
    """What the class's docstring says about each field."""
    found = _ENTRY.findall(inspect.getdoc(config) or "")
    return {name: " ".join(text.split()) for name, text in found}


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
    return f"Model, and its options as --model.OPTION VALUE. {models}{rest}."


if TYPE_CHECKING:
    RunFlags = dict[str, Any]
else:
    RunFlags = TypedDict("RunFlags", dict(_flags()), total=False)  # noqa: UP013 - dotted names
