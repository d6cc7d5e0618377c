"""`pgti-bench ranks`: one rank and two, interleaved."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pgti_bench import ranks
from pgti_bench.app import run_command
from pgti_bench.ranks import measure_rank_memory, measure_ranks

OPTIONS = ("--windows.input-steps", "3", "--windows.horizon", "2", "--model", "linear")


def test_two_ranks_are_compared_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The speed-up is the ratio of neighbouring epochs."""
    asked: list[tuple[int, Sequence[str]]] = []

    def seconds(store: Path, count: int, options: Sequence[str]) -> float:
        assert store == Path("store")
        asked.append((count, options))
        return 3.0 / count

    monkeypatch.setattr(ranks, "_epoch_seconds", seconds)
    options = ("--max-steps", "5")
    assert run_command(["ranks", "store", "--rounds", "2", *options, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert asked == [(1, options), (2, options), (2, options), (1, options)]
    assert result["speedup"]["median"] == 2
    assert result["seconds"]["1"]["runs"] == 2
    assert "two ranks are 2.000 times as fast as one" in captured.err


@pytest.mark.slow
def test_real_ranks_are_measured(store: Path) -> None:
    result = measure_ranks(store, (*OPTIONS, "--max-steps", "2"), rounds=1)
    assert result.speedup.minimum > 0
    memory = measure_rank_memory(store, 2, (*OPTIONS, "--max-steps", "2"))
    assert len(memory.private_bytes) == 2
    assert memory.cached_fraction >= 0
