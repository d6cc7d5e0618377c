"""Fixtures that several benchmarks' tests share."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from pgti.cli.main import run_command
from pgti.cli.output import print_results
from pgti_bench.app import COMMANDS


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 4 sensors and 120 steps: 81 training windows of 3 + 2 steps."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run_command(["simulate", "--sensors", "4", "--steps", "120", "--out", str(path)]) == 0
    return path


@pytest.fixture
def _both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command with --json print its tables before the object: measuring once serves both."""

    def print_both(content: Mapping[str, Any], *tables: Table, as_json: bool) -> None:
        assert as_json
        print_results(content, *tables, as_json=False)
        print_results(content, as_json=True)

    for target, _ in COMMANDS.values():
        monkeypatch.setattr(import_module(target.partition(":")[0]), "print_results", print_both)
