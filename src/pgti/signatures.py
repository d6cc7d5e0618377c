"""Functions that take the options of a configuration class as keywords, and list them."""

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any, TypeVar

__all__ = ["accept_options", "field_texts"]

Function = TypeVar("Function", bound=Callable[..., Any])

_ENTRY = re.compile(r"^    (\w+): (.+(?:\n     +.+)*)", re.MULTILINE)


def field_texts(config: type) -> dict[str, str]:
    """What the docstrings of a configuration class and of its bases say about each field."""
    texts: dict[str, str] = {}
    for each in reversed(config.__mro__):
        texts |= dict(_ENTRY.findall(inspect.cleandoc(each.__doc__ or "")))
    return {name: " ".join(text.split()) for name, text in texts.items()}


def accept_options(config: type) -> Callable[[Function], Function]:
    """Let a function that takes the options of `config` as keywords list them.

    Its signature, which completion reads, and the `**` entry of its docstring get each option that
    is no argument of its own already.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = dict(signature.parameters)
        keywords = next(each for each in own.values() if each.kind is each.VAR_KEYWORD)
        options = {each.name: each for each in _fields(config) if each.name not in own}
        parameters = [each for each in own.values() if each is not keywords]
        parameters += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
            )
            for name, each in options.items()
        ]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # as functools does
        texts = field_texts(config)
        entry = re.search(
            rf"^( +)\*\*{keywords.name}: .*(?:\n\1 +.*)*", function.__doc__ or "", re.MULTILINE
        )
        if entry is not None:  # docstrings may be stripped
            lines = [
                textwrap.fill(
                    f"{name}: {texts[name]}",
                    width=100,
                    initial_indent=entry[1],
                    subsequent_indent=f"{entry[1]}    ",
                )
                for name in options
            ]
            before, after = entry.string[: entry.end()], entry.string[entry.end() :]
            function.__doc__ = "\n".join([before, *lines]) + after
        return function

    return decorate


def _fields(config: Any) -> tuple[Field[Any], ...]:
    return fields(config)
