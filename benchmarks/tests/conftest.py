"""Fixtures that several benchmarks' tests share."""

from pathlib import Path

import pytest

from pgti.cli.main import run_command


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 4 sensors and 120 steps: 81 training windows of 3 + 2 steps."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run_command(["simulate", "--sensors", "4", "--steps", "120", "--out", str(path)]) == 0
    return path
