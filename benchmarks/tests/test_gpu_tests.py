"""The part of `pgti-bench gpu-check` that runs the tests of a GPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pgti_bench.gpu_check import gpu_tests
from pgti_bench.gpu_check.setting import Setting


def checked(scratch: Path) -> dict[str, Any]:
    """What a rehearsal of the part records."""
    results = scratch / "results.jsonl"
    cpu = torch.device("cpu")
    gpu_tests.check(Setting(part="tests", device=cpu, results=results, scratch=scratch))
    recorded: dict[str, Any] = json.loads(results.read_text())
    return recorded


def test_tests_are_found_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And left out elsewhere."""
    monkeypatch.setattr(gpu_tests.pgti_bench, "__file__", str(tmp_path / "a/b/c.py"))
    assert "is not in a checkout" in checked(tmp_path)["message"]


def test_tests_that_take_too_long_say_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "tests").mkdir(parents=True)
    (root / "tests/test_slow.py").write_text(
        "import time\n\nimport pytest\n\n\n@pytest.mark.gpu\n"
        '@pytest.mark.parametrize("number", range(3))\n'
        "def test_waits(number):\n    time.sleep(0.5)\n    assert number > 0\n"
    )
    (root / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: a\n    slow: b\n")
    monkeypatch.setattr(gpu_tests.pgti_bench, "__file__", str(root / "a/b/c.py"))
    monkeypatch.setattr(gpu_tests, "_LIMIT_SECONDS", 0.2)
    check = checked(tmp_path)
    assert check["passed"] is False
    assert "session-timeout" in check["message"]
    assert "FAILED tests/test_slow.py::test_waits[0]" in check["message"]
