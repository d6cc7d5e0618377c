"""`pgti-bench space`: one rank and two, whose bytes and parameters are compared."""

import json
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import ConfigError
from pgti_bench.app import run_command
from pgti_bench.space import measure_space, road_network


@pytest.mark.slow
def test_two_ranks_send_what_was_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over gloo; the parameters after two steps are those of one rank."""
    sizes = ["--sensors", "60", "--hidden", "4", "--input-steps", "3", "--horizon", "2"]
    sizes += ["--steps", "2", "--activation-checkpointing", "--workdir", str(tmp_path / "new")]
    assert run_command(["space", *sizes, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["agrees"]
    assert [each["sensors"] for each in result["ranks"]["2"]] == [30, 30]
    assert [each["halo_bytes"] for each in result["ranks"]["2"]] == result["predicted"]["2"][
        "step_bytes"
    ]
    assert result["ranks"]["2"][0]["halo_bytes"] > 0
    assert result["memory_ratio"]["1"] == 1
    assert list((tmp_path / "new").iterdir()) == []


def test_the_road_network_is_a_road_network() -> None:
    """Both directions of each road, and fewer than four of them at a crossing."""
    graph = road_network(1000)
    dense = graph.adjacency.toarray() > 0
    assert (dense == dense.T).all()
    assert 3.3 < graph.num_edges / 1000 < 3.7
    assert dense.sum(axis=1).max() == 4
    assert (np.diff(road_network(1000).edge_weight - graph.edge_weight) == 0).all()


def test_no_sensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sensors is 0"):
        measure_space(
            tmp_path,
            num_nodes=0,
            model={"name": "dcrnn"},
            input_steps=3,
            horizon=2,
            shards=(1,),
            steps=1,
            activation_checkpointing=False,
        )
