"""`pgti-bench forecast`: our own time and the network's, apart."""

import json
from pathlib import Path

import pytest

from pgti.errors import ConfigError
from pgti_bench.app import run_command
from pgti_bench.forecast import measure_forecast


def test_forecasts_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both parts have as many runs as rounds, and nothing stays."""
    sizes = ["--sensors", "8", "--rounds", "2", "--workdir", str(tmp_path), "--json"]
    assert run_command(["forecast", *sizes]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [result[f"{part}_milliseconds"]["runs"] for part in ("own", "network")] == [2, 2]
    assert result["reaches_goal"] == (result["own_milliseconds"]["median"] < 50)
    assert list(tmp_path.iterdir()) == []


def test_no_rounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rounds is 0"):
        measure_forecast(tmp_path, model="stid", sensors=8, rounds=0)
