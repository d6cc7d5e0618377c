"""Text with many columns, which is parsed as one long column where it can be."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest

NUM_SENSORS = 600
TIMES = pd.date_range("2024-01-01", periods=40, freq="5min")


def readings() -> pd.DataFrame:
    """Readings with every kind of number, some of them missing."""
    values = (
        np.random.default_rng(3).normal(size=(40, NUM_SENSORS))
        * 10.0 ** np.arange(-10, 10, 1)[np.arange(NUM_SENSORS) % 20]
    )
    values[np.random.default_rng(4).random(values.shape) < 0.1] = np.nan
    columns = [f"s{sensor}" for sensor in range(NUM_SENSORS)]
    return pd.DataFrame(values, index=TIMES, columns=columns)


@pytest.mark.parametrize("budget_bytes", [1, 32 << 20])
@pytest.mark.parametrize("times", ["first", "last", "none"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_values_are_those_of_pandas(
    tmp_path: Path, times: str, ends: str, budget_bytes: int
) -> None:
    """Numbers are rounded exactly, whatever the way they are parsed."""
    frame = readings()
    if times == "first":
        frame.to_csv(tmp_path / "a.csv", lineterminator=ends)
    else:
        table = frame.assign(**({"date": TIMES} if times == "last" else {}))
        table.to_csv(tmp_path / "a.csv", index=False, lineterminator=ends)
    store = ingest(tmp_path / "a.csv", tmp_path / "s", IngestOptions(budget_bytes=budget_bytes))
    np.testing.assert_array_equal(store.read(0, 40)[..., 0], frame.to_numpy().astype(np.float32))
    assert store.meta.start == (None if times == "none" else "2024-01-01T00:00:00")
    assert store.meta.node_ids == tuple(frame.columns)


def edited(path: Path, old: str, new: str) -> Path:
    """A file of readings, a part of its 31st line replaced."""
    lines = readings().round(2).to_csv().splitlines(keepends=True)
    cells = lines[30].split(",")
    cells[7] = cells[7] if old != "cell" else new
    lines[30] = ",".join(cells) if old == "cell" else lines[30].rstrip("\n") + new + "\n"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("cell", ['"5.5"', " 5.5 ", " 5.5", "+5.5"])
def test_cells_that_need_care(tmp_path: Path, cell: str) -> None:
    """Quotes, blanks and signs."""
    store = ingest(edited(tmp_path / "a.csv", "cell", cell), tmp_path / "s")
    assert store.read(29, 30)[0, 6, 0] == 5.5
    missing = ingest(edited(tmp_path / "b.csv", "cell", " NA"), tmp_path / "t")
    assert np.isnan(missing.read(29, 30)[0, 6, 0])


def test_bad_lines_are_named(tmp_path: Path) -> None:
    """A word, and a line that is too long."""
    with pytest.raises(DataError, match=r"line 31, column 8 \(s6\) of a.csv holds 'oops'"):
        ingest(edited(tmp_path / "a.csv", "cell", "oops"), tmp_path / "s")
    with pytest.raises(DataError, match=r"line 31 of a.csv has 602 cells and the first has 601"):
        ingest(edited(tmp_path / "a.csv", "end", ",1"), tmp_path / "s")
