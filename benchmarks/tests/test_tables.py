"""`pgti-bench tables`: every reader of every table is timed, and nothing stays."""

import json
from pathlib import Path

import pytest

from pgti_bench.app import run_command


@pytest.mark.slow  # four processes, each of which imports much
def test_readers_are_timed_beside_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--size-mb", "1", "--rounds", "1", "--tables", "CSV long by time"]
    assert run_command(["tables", *sizes, "--workdir", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    readers = [each["reader"] for each in result["speeds"]]
    assert readers == ["pgti", "pgti ingest", "pandas", "polars"]
    assert all(each["megabytes_per_second"]["minimum"] > 0 for each in result["speeds"])
    own = result["speeds"][0]["megabytes_per_second"]["median"]
    assert result["reaches_goals"] == (own >= 30)
    assert list(tmp_path.iterdir()) == []
