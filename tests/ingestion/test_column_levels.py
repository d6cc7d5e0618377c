"""Columns of two levels are read by the names of the levels, wherever they stand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.errors import DataError, name_flags
from pgti.ingestion import IngestOptions, open_readings

TIMES = pd.date_range("2024-01-01", periods=6, freq="h", name="time")
VALUES = np.random.default_rng(0).normal(50, 9, (6, 3, 2))
IDS, CHANNELS = ("north", "south", "west"), ("speed", "flow")


def frame(names: tuple[str | None, str | None], first: str = "sensor") -> pd.DataFrame:
    """Columns with the sensors first, or the channels."""
    levels, values = [IDS, CHANNELS], VALUES
    if first == "channel":
        levels, values = levels[::-1], VALUES.transpose(0, 2, 1)
    columns = pd.MultiIndex.from_product(levels, names=names)
    return pd.DataFrame(values.reshape(6, -1), index=TIMES, columns=columns)


FORMATS = {
    "frame": lambda table, _: table,
    "parquet": lambda table, path: table.to_parquet(path / "a.parquet") or path / "a.parquet",
    "fixed": lambda table, path: table.to_hdf(path / "a.h5", key="d") or path / "a.h5",
    "table": lambda table, path: (
        table.to_hdf(path / "a.h5", key="d", format="table") or path / "a.h5"
    ),
    "csv": lambda table, path: table.to_csv(path / "a.csv") or path / "a.csv",
}
EVERYWHERE = pytest.mark.parametrize("form", FORMATS)


@EVERYWHERE
@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("sensor", "channel"), "sensor"),
        (("Price", "Ticker"), "channel"),
        (("variable", None), "channel"),
        ((None, "feature"), "sensor"),
        (("nodes", "channels"), "sensor"),
    ],
)
def test_names_tell_the_order(
    tmp_path: Path, form: str, names: tuple[str | None, str | None], first: str
) -> None:
    """One known name is enough."""
    source = FORMATS[form](frame(names, first), tmp_path)
    store = pgti.ingest(source, tmp_path / "s", IngestOptions(budget_bytes=300))
    assert (store.meta.node_ids, store.meta.channels) == (IDS, CHANNELS)
    np.testing.assert_array_equal(store.read(0, 6), VALUES.astype(np.float32))
    assert store.meta.start == "2024-01-01T00:00:00"


@EVERYWHERE
@pytest.mark.parametrize("names", [(None, None), ("sensor", "station"), ("a", "b")])
def test_an_order_that_nothing_tells(
    tmp_path: Path, form: str, names: tuple[str | None, str | None]
) -> None:
    """It is refused with the option, which reads both orders."""
    source = FORMATS[form](frame(names, "channel"), tmp_path)
    with pytest.raises(DataError) as caught, name_flags():
        pgti.ingest(source, tmp_path / "s")
    message = str(caught.value)
    assert "\n" not in message
    assert "--axes time,sensor,channel or --axes time,channel,sensor" in message
    for axes, ids in (
        (("time", "channel", "sensor"), IDS),
        (("time", "sensor", "channel"), CHANNELS),
    ):
        readings = open_readings(source, IngestOptions(axes=axes))
        assert readings.node_ids == ids


def test_axes_of_a_table_of_one_level(tmp_path: Path) -> None:
    """Rows of tables are times, or sensors if they are transposed."""
    table = pd.DataFrame(VALUES[..., 0], index=TIMES, columns=list(IDS))
    assert open_readings(table, IngestOptions(axes=("time", "sensor"))).node_ids == IDS
    table.to_csv(tmp_path / "a.csv")
    for source in (table, tmp_path / "a.csv"):
        with pytest.raises(DataError, match=r"is for arrays: leave it out, the rows of"):
            open_readings(source, IngestOptions(axes=("sensor", "time")))


def test_a_newer_table_follows_the_first(tmp_path: Path) -> None:
    """The order that was said is remembered."""
    whole = frame((None, None), "channel")
    said = {"axes": ("time", "channel", "sensor")}
    store = pgti.ingest(whole.iloc[:4], tmp_path / "s", **said)
    grown = store.append(whole.iloc[4:])
    np.testing.assert_array_equal(grown.read(0, 6), VALUES.astype(np.float32))
