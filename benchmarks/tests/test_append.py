"""`pgti-bench append`: two lengths, three ways, and whether the goal is reached."""

import json
from pathlib import Path

import pytest

from pgti.errors import ConfigError
from pgti_bench.app import run_command
from pgti_bench.append import measure_append


@pytest.mark.slow
def test_appends_are_timed_at_every_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every contender has as many runs as rounds, and nothing stays."""
    sizes = ["--sensors", "8", "--rows", "40,3000", "--rounds", "2", "--commands", "1"]
    assert run_command(["append", *sizes, "--workdir", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["milliseconds"]) == ["40", "3000"]
    runs = [
        [spread["runs"] for spread in each.values()] for each in result["milliseconds"].values()
    ]
    assert runs == [[2, 2, 1], [2, 2, 1]]
    medians = [next(iter(each.values()))["median"] for each in result["milliseconds"].values()]
    assert result["reaches_goal"] == (max(medians) < 50)
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_sensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sensors is 0"):
        measure_append(tmp_path, sensors=0, rows=(10,), rounds=1, commands=1)
