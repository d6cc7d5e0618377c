"""`pgti append`: a file that continues a store."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.cli.main import run_command
from pgti.store import SeriesStore


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def test_a_store_grows_by_files_that_overlap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing codes are remembered, known rows skipped, and different ones need --correct."""
    frame = pd.DataFrame(
        np.random.default_rng(0).integers(1, 900, (30, 3)) / 10,
        index=pd.date_range("2025-01-01", periods=30, freq="5min"),
        columns=["a", "b", "c"],
    )
    frame.iloc[25, 1] = 0
    store = tmp_path / "store"
    for name, rows in (("old", slice(20)), ("new", slice(15, 30))):
        frame.iloc[rows].to_csv(tmp_path / f"{name}.csv")
    assert run("ingest", tmp_path / "old.csv", "--out", store, "--missing", "0") == 0
    capsys.readouterr()
    assert run("append", store, tmp_path / "new.csv", "--json") == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert (facts["steps"], facts["appended"], facts["end"]) == (30, 10, "2025-01-01T02:25:00")
    assert (facts["skipped"], facts["corrected"], facts["absent"], facts["extra"]) == (5, 0, [], [])
    assert "10 rows appended, 5 skipped, 0 corrected" in captured.err
    assert any("they were skipped" in note for note in facts["notes"])
    assert "new.csv is read as the store's source was: missing 0" in captured.err
    assert "5 rows that the store has already: they were skipped" in captured.err
    assert np.isnan(SeriesStore.open(store).read(25, 26)[0, 1, 0])

    frame.iloc[29, 0] += 1
    frame.iloc[28:].to_csv(tmp_path / "right.csv")
    assert run("append", store, tmp_path / "right.csv") == 2
    assert "pass --correct to correct rows" in capsys.readouterr().err
    frame.iloc[28:][["a"]].assign(z=1.0).to_csv(tmp_path / "right.csv")
    assert run("append", store, tmp_path / "right.csv", "--correct", "--json") == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert (facts["appended"], facts["skipped"], facts["corrected"]) == (0, 1, 1)
    assert (facts["absent"], facts["extra"]) == (["b", "c"], ["z"])
    assert "1 row of the store was corrected" in captured.err
    assert "0 rows appended, 1 skipped, 1 corrected" in captured.err
    assert (
        "right.csv lacks the sensors b, c: what the store has of them stays as it is, and they are "
        "missing in new rows"
    ) in captured.err
    assert SeriesStore.open(store).read(29, 30)[0, 0, 0] == np.float32(frame.iloc[29, 0])


def test_what_cannot_be_appended_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("append", tmp_path / "none", tmp_path / "new.csv") == 2
    assert "is not a store" in capsys.readouterr().err
