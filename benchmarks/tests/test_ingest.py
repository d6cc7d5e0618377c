"""`pgti-bench ingest`: two sources and a copy, and whether the goal is reached."""

import json
from pathlib import Path

import pytest

from pgti.errors import ConfigError
from pgti_bench.app import run_command
from pgti_bench.ingest import measure_ingest


def test_ingest_is_timed_beside_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every contender has as many runs as rounds, and nothing stays."""
    sizes = ["--sensors", "5", "--rows", "60", "--rounds", "2", "--workdir", str(tmp_path)]
    assert run_command(["ingest", *sizes, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    speeds = result["megabytes_per_second"]
    assert list(speeds) == ["ingest, grid of 0.1", "ingest, no grid", "copy of the file"]
    assert all(speed["runs"] == 2 and speed["minimum"] > 0 for speed in speeds.values())
    slowest = min(speeds[name]["median"] for name in list(speeds)[:2])
    assert result["reaches_goal"] == (slowest >= 150)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows is 0"):
        measure_ingest(tmp_path, sensors=5, rows=0, rounds=1)
