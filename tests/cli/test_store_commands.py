"""What `pgti ingest` and `pgti simulate` tell, and what they take from a graph."""

from pathlib import Path

import pytest

from pgti.cli.main import run_command
from pgti.store import SeriesStore


def test_ingest_tells_how_many_rows_it_inserted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that fill gaps are counted out loud."""
    (tmp_path / "a.csv").write_text("time,a\n2024-01-01,1\n2024-01-02,2\n2024-01-05,3\n")
    command = ["ingest", str(tmp_path / "a.csv"), "--out", str(tmp_path / "s"), "--gaps", "fill"]
    assert run_command(command) == 0
    assert "2 rows of missing readings were inserted into gaps" in capsys.readouterr().err


def test_an_exact_store_shows_its_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ingesting without the option says what is lost and names it; info shows every digit."""
    rows = (f"2024-01-{day:02},{33554432 + day}" for day in range(1, 10))
    (tmp_path / "a.csv").write_text("time,a\n" + "\n".join(rows) + "\n")
    command = ["ingest", str(tmp_path / "a.csv"), "--out"]
    assert run_command([*command, str(tmp_path / "s")]) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "7 readings have more digits than float32 and changed by up to 2 (the first in" in said
    assert "33554433 became 33554432): --exact makes a store that has them all" in said
    assert run_command([*command, str(tmp_path / "t"), "--exact"]) == 0
    assert "digits" not in capsys.readouterr().err
    assert run_command(["info", str(tmp_path / "t")]) == 0
    shown = capsys.readouterr().out
    assert "33,554,433" in shown
    assert "33,554,441" in shown


def test_simulate_takes_its_size_from_the_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --sensors the graph tells how many there are, with named columns too."""
    (tmp_path / "e.csv").write_text("lanes,a,b\n3,x,y\n2,y,z\n")
    graph = ["--graph", str(tmp_path / "e.csv"), "--edges", "a,b"]
    assert run_command(["simulate", "--out", str(tmp_path / "s"), "--steps", "24", *graph]) == 0
    store = SeriesStore.open(tmp_path / "s")
    assert store.meta.node_ids == ("x", "y", "z")
    assert store.meta.num_edges == 2
    assert run_command(["simulate", "--out", str(tmp_path / "t"), "--edges", "a,b"]) == 2
    assert "--graph" in capsys.readouterr().err
