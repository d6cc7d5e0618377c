"""Configuration classes as flags: names, types, defaults, and a sentence about each.

The sentence is the first that the docstring of the class says about a field.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

from pgti.cli.output import format_default
from pgti.options import variants
from pgti.signatures import field_texts

__all__ = ["JsonFlag", "flag", "flags_of", "heading", "short_texts"]

_HEADINGS = ("Options", "Start", "Readings", "Times", "Graph", "Covariates", "Model", "Windows",
             "Training", "Optimization", "Machine", "Output")  # fmt: skip
_OF_PYTHON = "custom"  # the kind of what a user's function does
_SHORT_NAMES = {"loss.quantiles": "quantiles"}
_SENTENCE = re.compile(r'.+?\.(?= +["`A-Z0-9]|$)')


def heading(name: str) -> Group:
    """The heading of some options in the help; headings have a fixed order."""
    return Group(name, sort_key=_HEADINGS.index(name))


JsonFlag = Annotated[
    bool,
    Parameter(
        name="--json",
        group=heading("Output"),
        help="Print one JSON object on standard output, and no tables.",
    ),
]


def flags_of(
    config: type,
    group: str,
    *,
    prefix: str = "",
    shown: str = "",
    groups: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Dotted name and annotated type of the flag of each field of a configuration class.

    Args:
        config: the class.
        group: heading of its flags in the help.
        prefix: before the names of its options, as in a configuration file.
        shown: before the names of its flags.
        groups: other headings, by field.
    """
    texts, hints = short_texts(config), get_type_hints(config)
    for each in fields(config):
        name, shown_name, text = (
            f"{prefix}{each.name}",
            f"{shown}{each.name}",
            texts[each.name],
        )
        kinds = {k: v for k, v in variants(hints[each.name]).items() if k != _OF_PYTHON}
        of_group = (groups or {}).get(each.name, group)
        if not kinds:
            yield name, flag((shown_name,), hints[each.name], text, each.default, of_group)
            continue
        default, kind = getattr(each.default, "kind", None), Literal[tuple(kinds)]
        spellings = (f"{shown_name}.kind", shown_name)
        yield f"{name}.kind", flag(spellings, kind, text, default, of_group)
        for option, (hint, default, about) in _variant_options(kinds).items():
            full = f"{shown_name}.{option}"
            short = (_SHORT_NAMES[full],) if full in _SHORT_NAMES else ()
            yield f"{name}.{option}", flag((*short, full), hint, about, default, of_group)


def flag(names: tuple[str, ...], hint: Any, text: str, default: Any, group: str) -> Any:
    """The annotated type of a flag.

    Args:
        names: of the flag, without dashes.
        hint: type of the value; None among its types stands for a flag that was not given.
        text: what the help says.
        default: value if it is not given.
        group: heading in the help.
    """
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (member for member in get_args(hint) if member is not NoneType)
    can_be_empty = group == "Windows" and not default  # every channel, no calendar
    if get_origin(hint) is tuple:
        hint = tuple[get_args(hint)[0], ...]  # type: ignore[misc] # known at run time only
    parameter = Parameter(
        name=tuple(f"--{name.replace('_', '-')}" for name in names),
        help=text,
        group=heading(group),
        show_default=False if (shown := format_default(default)) is None else str(shown),
        negative_iterable="empty-" if can_be_empty else (),
        negative_bool="no-",
    )
    return Annotated[hint, parameter]


def short_texts(config: type) -> dict[str, str]:
    """The first sentence that the docstring of a class says about each field."""
    return {
        name: text if (found := _SENTENCE.match(text)) is None else found[0]
        for name, text in field_texts(config).items()
    }


def _variant_options(kinds: Mapping[str, type]) -> dict[str, tuple[Any, Any, str]]:
    """Type, default and text of each option of the variants; the text names their kinds."""
    takers: dict[str, dict[str, list[str]]] = {}
    found: dict[str, tuple[Any, Any]] = {}
    for kind, config in kinds.items():
        texts, hints = short_texts(config), get_type_hints(config)
        for each in fields(config):
            if each.name != "kind":
                takers.setdefault(each.name, {}).setdefault(texts[each.name], []).append(kind)
                found[each.name] = hints[each.name], each.default
    return {
        name: (*found[name], " ".join(f"{', '.join(by)}: {text}" for text, by in texts.items()))
        for name, texts in takers.items()
    }
