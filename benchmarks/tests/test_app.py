"""The list of commands."""

from importlib import import_module

import pytest

from pgti_bench.app import COMMANDS, run_command


def test_the_list_of_commands_has_the_first_sentence_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is shown without importing them, so it is written twice."""
    assert run_command(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, (target, text) in COMMANDS.items():
        module, _, function = target.partition(":")
        documentation = getattr(import_module(module), function).__doc__
        assert " ".join(documentation.split("\n\n")[0].split()) == text
        assert f"{name} {text}" in shown
