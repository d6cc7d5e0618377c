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


def test_several_files_are_one_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, also with commas, and patterns in quotes; `--files` says what each holds."""
    times = pd.date_range("2025-01-01", periods=30, freq="5min")
    values = np.arange(60.0).reshape(30, 2)
    frame = pd.DataFrame(values, index=times, columns=["a", "b"])
    for number, first in enumerate(range(0, 30, 10)):
        frame.iloc[first : first + 10].to_csv(tmp_path / f"day,{2 - number}.csv")
    store = tmp_path / "store"
    days = [tmp_path / f"day,{number}.csv" for number in (0, 1, 2)]
    assert run("ingest", *days, "--out", store) == 0
    np.testing.assert_array_equal(SeriesStore.open(store).read(0, 30)[..., 0], values)
    assert "3 files are joined by their times, from day,2.csv to day,0.csv" in (
        capsys.readouterr().err
    )
    grown = tmp_path / "grown"
    assert run("ingest", days[2], "--out", grown) == 0
    capsys.readouterr()
    assert run("append", grown, days[0], days[1], "--json") == 0
    assert json.loads(capsys.readouterr().out)["appended"] == 20
    assert run("ingest", tmp_path / "day*.csv", "--out", grown, "--overwrite") == 0
    assert SeriesStore.open(grown).fingerprint == SeriesStore.open(store).fingerprint
    capsys.readouterr()
    frame.to_csv(tmp_path / "x.csv")
    frame.to_csv(tmp_path / "y.csv")
    files = tmp_path / "x.csv", tmp_path / "y.csv", "--out", grown, "--overwrite"
    assert run("ingest", *files) == 2
    assert "pass --files sensors if each file is a sensor" in capsys.readouterr().err
    assert run("ingest", *files, "--files", "channels", "--json") == 0
    assert json.loads(capsys.readouterr().out)["channels"] == ["x", "y"]
    assert run("ingest", "--out", grown) == 2
    assert "readings" in capsys.readouterr().err.lower()


def test_nothing_new_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without rows, and one whose rows fill no bin, leave the store as it is."""
    frame = pd.DataFrame(
        {"a": np.arange(30.0)}, index=pd.date_range("2025-01-01", periods=30, freq="1min")
    )
    frame.to_csv(tmp_path / "old.csv")
    store, grid = tmp_path / "store", ("--resample", "5min", "--aggregate", "mean")
    assert run("ingest", tmp_path / "old.csv", "--out", store, *grid) == 0
    before = SeriesStore.open(store).fingerprint
    later = frame.set_index(frame.index + pd.Timedelta("30min"))
    for name, rows, said in (
        ("none", later[:0], "none.csv has a header and no rows: nothing was appended"),
        ("few", later[:3], "few.csv has no whole 5min: nothing was appended"),
    ):
        rows.to_csv(tmp_path / f"{name}.csv")
        capsys.readouterr()
        assert run("append", store, tmp_path / f"{name}.csv", "--json") == 0
        captured = capsys.readouterr()
        assert said in captured.err
        assert json.loads(captured.out)["appended"] == 0
        assert run("append", store, tmp_path / f"{name}.csv", "--json", "--quiet") == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        assert said in json.loads(captured.out)["notes"]
    assert run("append", store, tmp_path / "nowhere.csv", "--quiet") == 2
    assert "nowhere.csv does not exist" in capsys.readouterr().err
    assert SeriesStore.open(store).fingerprint == before
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        ["few.csv", "none.csv", "old.csv", "store"]
    )
