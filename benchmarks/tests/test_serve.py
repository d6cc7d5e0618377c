"""`pgti-bench serve`: a real server under load."""

import json
from pathlib import Path

import pytest

from pgti_bench.app import run_command


@pytest.mark.slow
def test_a_server_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every form of requests is answered, and the server has ended."""
    sizes = ["--sensors", "8", "--requests", "40", "--connections", "2"]
    assert run_command(["serve", *sizes, "--workdir", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["requests"] == 40
    assert all(
        0 < form["median_milliseconds"] <= form["slow_milliseconds"] for form in result["forms"]
    )
    assert result["pss_after_bytes"] > 0
    assert list(tmp_path.iterdir()) == []
