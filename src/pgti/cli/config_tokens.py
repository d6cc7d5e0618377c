"""`--config run.toml` and lists with commas, both turned into plain command-line tokens.

A configuration file is read as if its options had been typed, except those that are typed as
well: the command line wins. So a file and a flag pass through the same parser and the same checks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pgti.errors import ConfigError

__all__ = ["expand_tokens"]

_FLAT_TABLE = "training"  # its options are top-level flags: --epochs, not --training.epochs


def _list_flags() -> dict[str, bool]:
    """Flags that take a list, and whether their values follow one flag (fixed length)."""
    from pgti.datasets import FetchOptions  # noqa: PLC0415 - most command lines have no list
    from pgti.ingest import IngestOptions  # noqa: PLC0415
    from pgti.run import WindowConfig  # noqa: PLC0415
    from pgti.training import TrainingConfig  # noqa: PLC0415

    found: dict[str, bool] = {}
    unprefixed = (("", config) for config in (TrainingConfig, IngestOptions, FetchOptions))
    for prefix, config in (("windows.", WindowConfig), *unprefixed):
        hints = get_type_hints(config)
        for each in fields(config):
            for hint in (hints[each.name], *get_args(hints[each.name])):
                if str(hint).startswith("tuple["):
                    flag = f"--{prefix}{each.name.replace('_', '-')}"
                    found[flag] = Ellipsis not in get_args(hint)
    return found


def expand_tokens(tokens: Sequence[str]) -> list[str]:
    """The tokens with `--config` replaced by what the file holds and comma lists taken apart.

    Raises:
        ConfigError: if the file cannot be read, or holds what no option can take.
    """
    typed = list(_split_assignments(tokens))
    path = _taken(typed, "--config")
    if path is not None:
        given = {token for token in typed if token.startswith("--")}
        typed += _file_tokens(Path(path), given)
    lists = _list_flags() if any("," in token for token in typed) else {}
    expanded: list[str] = []
    position = 0
    while position < len(typed):
        token = "--model.name" if typed[position] == "--model" else typed[position]
        position += 1
        if token in lists and position < len(typed) and "," in typed[position]:
            expanded += _list_tokens(token, typed[position].split(","), fixed=lists[token])
            position += 1
        else:
            expanded.append(token)
    return expanded


def _split_assignments(tokens: Sequence[str]) -> Iterator[str]:
    """`--flag=value` as two tokens, and flags spelled with hyphens."""
    for token in tokens:
        if token.startswith("--"):
            flag, *value = token.split("=", 1)
            yield from (flag.replace("_", "-"), *value)
        else:
            yield token


def _taken(tokens: list[str], flag: str) -> str | None:
    """Remove `flag` and its value from the tokens, if they are there, and give the value."""
    if flag not in tokens:
        return None
    position = tokens.index(flag)
    if position + 1 == len(tokens):
        raise ConfigError(f"{flag} needs a value: the path of a TOML file")
    _, value = tokens.pop(position), tokens.pop(position)
    if flag in tokens:
        raise ConfigError(f"{flag} is given twice: give one file")
    return value


def _file_tokens(path: Path, given: set[str]) -> list[str]:
    """What the file would look like if it had been typed, without what is in `given`."""
    from pgti.run import check_option_names, read_toml  # noqa: PLC0415 - most have no file

    content = read_toml(path)
    check_option_names(path, content)
    tokens: list[str] = []
    for name, value in content.items():
        if name == "store":
            continue  # what to learn from is said on the command line
        if isinstance(value, Mapping):
            for key, inner in value.items():
                prefix = "" if name == _FLAT_TABLE else f"{name}."
                tokens += _option_tokens(path, f"{prefix}{key}", inner, given)
        else:
            tokens += _option_tokens(path, name, value, given)
    return tokens


def _option_tokens(path: Path, name: str, value: Any, given: set[str]) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    same = {flag, _marked(flag, "no"), _marked(flag, "empty")}
    if same & given or (flag == "--model.name" and "--model" in given):
        return []
    if isinstance(value, Mapping):
        raise ConfigError(f"{path}: {name} is a table: the options are one level deep")
    if isinstance(value, list):
        return _list_tokens(flag, [str(item) for item in value], fixed=_list_flags().get(flag))
    if isinstance(value, bool) and not flag.startswith("--model."):
        return [flag if value else _marked(flag, "no")]
    return [flag, str(value).lower() if isinstance(value, bool) else str(value)]


def _list_tokens(flag: str, values: Sequence[str], *, fixed: bool | None) -> list[str]:
    if not values:  # an empty list is not the same as leaving the option at its default
        return [_marked(flag, "empty")]
    if fixed:
        return [flag, *values]
    return [token for value in values for token in (flag, value)]


def _marked(flag: str, mark: str) -> str:
    """`--windows.profile` marked with `no` is `--windows.no-profile`: how the parser spells it."""
    prefix, dot, name = flag.removeprefix("--").rpartition(".")
    return f"--{prefix}{dot}{mark}-{name}"
