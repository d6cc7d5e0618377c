"""Command lines that occur again and again are parsed once.

A fuzzer of files runs the same few command lines on other files: three quarters of the time would
go into their options.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import pgti.cli.app

__all__ = ["parse_once"]


class _ParsedApp:
    """An application that knows what some command lines mean."""

    def __init__(self, commands: Iterable[Sequence[str]]) -> None:
        self._build = pgti.cli.app.build_app
        self._parsed = {}
        for command in commands:
            tokens = tuple(token for token in command if token != "--quiet")
            self._parsed[tokens] = self._build(command[0]).parse_args(tokens, exit_on_error=False)

    def __call__(self, tokens: Sequence[str], **options: Any) -> Any:
        if tuple(tokens) not in self._parsed:
            return self._build(tokens[0])(tokens, **options)
        command, bound, _ = self._parsed[tuple(tokens)]
        bound = copy.deepcopy(bound)
        return command(*bound.args, **bound.kwargs)


def parse_once(commands: Iterable[Sequence[str]]) -> None:
    """Let `run_command` of this process know what these command lines mean."""
    app = _ParsedApp(commands)
    pgti.cli.app.build_app = lambda _: app  # type: ignore[assignment, return-value]
