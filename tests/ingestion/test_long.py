"""Long tables: a row for each time and sensor, in any order and format."""

import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather

import pgti
from pgti.errors import ConfigError, DataError, name_flags
from pgti.ingestion import IngestOptions, open_readings
from pgti.ingestion.newer.newer import open_newer_series
from pgti.ingestion.readings import Readings
from pgti.ingestion.tables import long, long_columns

HOURS = pd.date_range("2024-05-01", periods=6, freq="h")
LONG = ("time", "sensor", "value")


def text(path: Path, content: str) -> Path:
    """A file of text."""
    path.write_text(content)
    return path


def read(readings: Readings, budget_bytes: int = 1 << 20) -> np.ndarray:
    """All readings, [T, N, C]."""
    return np.concatenate([chunk.values for chunk in readings.chunks(budget_bytes)])


def notes_of(readings: Readings) -> str:
    """All notes of readings, once they were read."""
    read(readings)
    return "; ".join((*readings.notes, *readings.late_notes()))


def as_csv(table: pd.DataFrame, path: Path) -> Path:
    """Text with times in ISO 8601."""
    table.to_csv(path / "a.csv", index=False, date_format="%Y-%m-%dT%H:%M:%S")
    return path / "a.csv"


def as_parquet(table: pd.DataFrame, path: Path) -> Path:
    """Parquet with several groups of rows."""
    table.to_parquet(path / "a.parquet", index=False, row_group_size=7)
    return path / "a.parquet"


def as_feather(table: pd.DataFrame, path: Path) -> Path:
    """Feather with several batches."""
    feather.write_feather(pa.Table.from_pandas(table), str(path / "a.feather"), chunksize=7)
    return path / "a.feather"


def as_stream(table: pd.DataFrame, path: Path) -> Path:
    """A stream of Arrow's record batches."""
    columns = pa.Table.from_pandas(table, preserve_index=False)
    with (
        pa.OSFile(str(path / "a.arrows"), "wb") as sink,
        pa.ipc.new_stream(sink, columns.schema) as out,
    ):
        out.write_table(columns, max_chunksize=7)
    return path / "a.arrows"


WAYS: Mapping[str, Callable[[pd.DataFrame, Path], Any]] = {
    "csv": as_csv,
    "parquet": as_parquet,
    "feather": as_feather,
    "stream": as_stream,
    "pandas": lambda table, _: table,
    "pandas index": lambda table, _: table.set_index(["time", "sensor"]),
    "pandas periods": lambda table, _: table.assign(time=table.time.dt.to_period("h")),
    "pandas period index": lambda table, _: table.assign(
        time=table.time.dt.to_period("h")
    ).set_index(["sensor", "time"]),
    "polars enum": lambda table, _: pl.from_pandas(table).with_columns(
        pl.col("sensor").cast(pl.Enum(sorted(set(table.sensor))))
    ),
    "polars": lambda table, _: pl.from_pandas(table),
    "polars lazy": lambda table, _: pl.from_pandas(table).lazy(),
    "pyarrow": lambda table, _: pa.Table.from_pandas(table),
}


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Long tables of two channels, with cells that are missing, in any order of rows."""
    num_sensors, num_hours = draw(st.integers(1, 5)), draw(st.integers(2, 9))
    seed = draw(st.integers(0, 999))
    generator = np.random.default_rng(seed)
    hours, sensors = np.divmod(np.arange(num_hours * num_sensors), num_sensors)
    table = pd.DataFrame(
        {
            "time": pd.Timestamp("2024-05-01") + pd.to_timedelta(hours, unit="h"),
            "sensor": np.array([f"s{each}" for each in range(num_sensors)])[sensors],
            "speed": generator.normal(60, 8, len(hours)).round(2),
            "flow": generator.integers(0, 500, len(hours)).astype(float),
        }
    )
    table.loc[generator.random(len(table)) < 0.1, "speed"] = np.nan
    # The first and last row stay, so that hour by hour nothing lacks.
    kept = table[generator.random(len(table)) < 0.8]
    table = pd.concat([table[table.sensor == "s0"], kept[kept.sensor != "s0"]])
    return (
        table.sample(frac=1, random_state=seed)
        if draw(st.booleans())
        else table.sort_values("time")
    )


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(sorted(WAYS)), st.sampled_from([400, 1 << 20]))
def test_values_ids_and_times_equal_a_pivot(table: pd.DataFrame, way: str, budget: int) -> None:
    pivot = table.pivot(index="time", columns="sensor", values=["speed", "flow"])
    sensors = sorted(set(table.sensor))
    expected = np.stack([pivot[name][sensors].to_numpy() for name in ("speed", "flow")], axis=-1)
    with tempfile.TemporaryDirectory() as directory:
        source = WAYS[way](table, Path(directory))
        readings = open_readings(source, IngestOptions(budget_bytes=budget))
        chunks = list(readings.chunks(budget))
    np.testing.assert_array_equal(np.concatenate([each.values for each in chunks]), expected)
    seconds = np.concatenate([each.seconds for each in chunks if each.seconds is not None])
    np.testing.assert_array_equal(seconds, pivot.index.as_unit("s").asi8)
    assert (readings.node_ids, readings.channels) == (tuple(sensors), ("speed", "flow"))
    assert readings.num_rows == len(pivot)


def test_a_store_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = [
        f"2024-05-01 0{hour}:00,{sensor},{hour}{sensor}"
        for hour in range(4)
        for sensor in (7, 10, 2)
    ]
    stores = []
    for place, order in enumerate([rows, rows[::-1], sorted(rows, key=lambda row: row[-3:])]):
        source = text(tmp_path / f"{place}.csv", "\n".join(["time,sensor,flow", *order, ""]))
        stores.append(pgti.ingest(source, tmp_path / str(place)))
    assert len({store.fingerprint for store in stores}) == 1
    assert stores[0].meta.node_ids == ("2", "7", "10")  # whole numbers by value
    assert (
        "3 sensors in column 2 (sensor), in the order of their ids (2, 7, 10)" in stores[0].notes[0]
    )


@pytest.mark.parametrize(
    ("ids", "order"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["007", "7", "8"], ("007", "7", "8")),
        (["s10", "s9", "S9"], ("S9", "s10", "s9")),
        (["10", "9", "north"], ("10", "9", "north")),
    ],
)
def test_order_of_sensors(ids: list[str], order: tuple[str, ...]) -> None:
    table = pd.DataFrame(
        {"time": HOURS.repeat(3), "sensor": ids * len(HOURS), "value": np.arange(3.0 * len(HOURS))}
    )
    readings = open_readings(table, IngestOptions())
    assert readings.node_ids == order
    assert [read(readings)[0, order.index(each), 0] for each in ids] == [0, 1, 2]


def test_rows_in_the_order_of_time_need_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"{time},{s},{s}" for time in pd.date_range("2024", periods=500, freq="h") for s in range(9)
    ]
    source = text(tmp_path / "a.csv", "\n".join(["time,sensor,value", *lines]))

    def no_disk(**_: object) -> str:
        raise AssertionError("it wrote to the disk")

    monkeypatch.setattr(tempfile, "mkdtemp", no_disk)
    values = read(open_readings(source, IngestOptions()), 1 << 16)
    assert (values == np.arange(9)[:, None]).all()
    shuffled = text(tmp_path / "b.csv", "\n".join(["time,sensor,value", *lines[::-1]]))
    with pytest.raises(AssertionError, match="wrote to the disk"):
        read(open_readings(shuffled, IngestOptions()), 1 << 16)


TWICE = """time,sensor,speed,flow
2024-05-01 00:00,a,1,10
2024-05-01 00:00,b,2,20
2024-05-01 01:00,a,3,30
2024-05-01 01:00,b,4,
2024-05-01 01:00,b,6,40
"""


def test_two_readings_of_a_sensor_at_one_time_are_refused_with_both(tmp_path: Path) -> None:
    source = text(tmp_path / "a.csv", TWICE)
    with pytest.raises(
        DataError,
        match=r"sensor 'b' of a.csv has 4 and 6 in column 3 \(speed\) at the time "
        r"2024-05-01T01:00:00 \(line 5 and line 6\): remove one, or choose with "
        r"duplicates='first', last or mean",
    ):
        pgti.ingest(source, tmp_path / "s")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.csv"]


@pytest.mark.parametrize(("rule", "speed"), [("first", 4), ("last", 6), ("mean", 5)])
def test_rules_for_duplicates(tmp_path: Path, rule: Any, speed: float) -> None:
    store = pgti.ingest(text(tmp_path / "a.csv", TWICE), tmp_path / "s", duplicates=rule)
    np.testing.assert_array_equal(store.read(1, 2)[0], [[3, 30], [speed, 40]])
    (note,) = (each for each in store.notes if "repeats" in each)
    assert note.startswith("1 reading of a.csv repeats a time and sensor")


def test_a_code_of_missing_readings_is_no_duplicate(tmp_path: Path) -> None:
    for rule in ("error", "first", "last", "mean"):
        source = text(tmp_path / "a.csv", TWICE)
        store = pgti.ingest(source, tmp_path / rule, duplicates=rule, missing=(6,))
        assert store.read(1, 2)[0, 1, 0] == 4


def test_equal_duplicates_are_counted(tmp_path: Path) -> None:
    source = text(tmp_path / "a.csv", TWICE.replace(",6,40", ",4,40") + "2024-05-01 01:00,a,3,30\n")
    store = pgti.ingest(source, tmp_path / "s")
    np.testing.assert_array_equal(store.read(1, 2)[0], [[3, 30], [4, 40]])
    assert "3 readings of a.csv repeat a time and sensor: they are equal" in store.notes


def test_the_hour_that_clocks_show_twice_is_refused(tmp_path: Path) -> None:
    """Nothing says which of the two rows came first; offsets do."""
    lines = [f"2024-10-27 0{hour}:00,{s},{n}" for n, hour in enumerate([1, 2, 2, 3]) for s in "ab"]
    wall = text(tmp_path / "wall.csv", "\n".join(["time,sensor,value", *lines, ""]))
    with pytest.raises(DataError, match=r"clocks of Europe/Berlin show this time twice.*offset"):
        pgti.ingest(wall, tmp_path / "s", time_zone="Europe/Berlin")
    lines = [
        f"2024-10-27 0{hour}:00{offset},{s},{n}"
        for n, (hour, offset) in enumerate(
            [(1, "+02:00"), (2, "+02:00"), (2, "+01:00"), (3, "+01:00")]
        )
        for s in "ab"
    ]
    aware = text(tmp_path / "aware.csv", "\n".join(["time,sensor,value", *lines, ""]))
    store = pgti.ingest(aware, tmp_path / "s", time_zone="Europe/Berlin")
    np.testing.assert_array_equal(store.read(0, 4)[:, 0, 0], [0, 1, 2, 3])
    assert (store.meta.start, store.meta.interval_seconds) == ("2024-10-26T23:00:00", 3600)


def test_steps_without_times(tmp_path: Path) -> None:
    rows = [f"{sensor},{step},{step}.5" for sensor in (1, 2) for step in (10, 12, 16)]
    source = text(tmp_path / "a.csv", "\n".join(["sensor,step,value", *rows, ""]))
    options = {"long": ("step", "sensor", "value")}
    store = pgti.ingest(source, tmp_path / "s", start="2024-05-01", interval="1h", **options)
    np.testing.assert_array_equal(store.read(0, 4)[:, 1, 0], [10.5, 12.5, np.nan, 16.5])
    assert "1 row of missing readings stands for steps" in " ".join(store.notes)
    assert "first after 12" in " ".join(store.notes)
    assert "numbers steps" in " ".join(store.notes)
    assert store.meta.interval_seconds == 3600


def station_file(*, observed: Mapping[int, int] | None = None) -> str:
    """Rows of a PeMS station file."""
    return "".join(
        f"05/01/2024 {hour:02}:00:00,{station},7,5,S,ML,.310,10,{(observed or {}).get(hour, 100)},"
        f"{hour + station},.05{hour},60.{hour},5,7,.1,61,1\n"
        for hour in range(4)
        for station in (715900, 715898)
    )


def test_pems_station_files(tmp_path: Path) -> None:
    source = text(tmp_path / "d07_text_station_5min.txt", station_file(observed={2: 0}))
    store = pgti.ingest(source, tmp_path / "s")
    assert store.meta.node_ids == ("715898", "715900")
    assert store.meta.channels == ("flow", "occupancy", "speed")
    np.testing.assert_array_equal(
        store.read(1, 2)[0], np.float32([[715899, 0.051, 60.1], [715901, 0.051, 60.1]])
    )
    notes = " ".join(store.notes)
    assert "PeMS measured nothing in 2 of 8 rows" in notes
    assert "imputed" in notes
    with name_flags():
        (note,) = (
            each for each in open_readings(source, IngestOptions()).notes if "--long" in each
        )
    names = tuple(note.split("--long ")[1].split(","))
    chosen = pgti.ingest(source, tmp_path / "t", long=names)
    assert chosen.meta.channels == ("observed", "flow", "occupancy", "speed")
    lanes = pgti.ingest(source, tmp_path / "u", long=("timestamp", "station", "speed", "16"))
    np.testing.assert_array_equal(lanes.read(0, 1)[0, 0], np.float32([60.0, 61]))


def table_of(**columns: Any) -> pd.DataFrame:
    """A table with a time, in which columns of two cells alternate."""
    rows = 2 * len(HOURS)
    return pd.DataFrame(
        {
            name.replace("__", " "): np.resize(np.array(cells), rows)
            if len(cells) < rows
            else cells
            for name, cells in columns.items()
        }
    )


EACH = HOURS.repeat(2)
COUNT = np.arange(2.0 * len(HOURS))


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (table_of(ds=EACH, unique_id=[1, 2], y=COUNT), ("y",)),
        (table_of(item_id=["a", "b"], timestamp=EACH, target=COUNT), ("target",)),
        (
            table_of(DateTime=EACH, LCLid=["MAC1", "MAC2"], **{"KWH/hh (per half hour)": COUNT}),
            ("KWH/hh (per half hour)",),
        ),
        (table_of(Measured=EACH, Town=["a", "b"], ozone=COUNT, dust=COUNT), ("ozone", "dust")),
        (table_of(index=range(12), Date=EACH, Station__ID=[4, 9], Flow=COUNT), ("Flow",)),
        (table_of(time=EACH, variable=["a", "b"], value=COUNT), ("value",)),
        (
            table_of(dyna_id=range(12), type=["state"], time=EACH, entity_id=[1, 2], flow=COUNT),
            ("flow",),
        ),
    ],
)
def test_tables_that_are_recognized(
    tmp_path: Path, table: pd.DataFrame, found: tuple[str, ...]
) -> None:
    for source in (table, as_csv(table, tmp_path), as_parquet(table, tmp_path)):
        readings = open_readings(source, IngestOptions())
        assert (readings.num_rows, readings.num_nodes, readings.channels) == (6, 2, found)
        np.testing.assert_array_equal(read(readings)[..., 0], COUNT.reshape(6, 2))
        assert "is read as a long table" in notes_of(readings)


@pytest.mark.parametrize(
    ("table", "typed"),
    [
        (table_of(sensor=[1, 2], step=np.repeat(range(6), 2), value=COUNT), "step,sensor,value"),
        (table_of(ds=np.repeat(range(6), 2), unique_id=[1, 2], y=COUNT), "ds,unique_id,y"),
        (table_of(time=EACH, town=["a", "b"], kind=["u", "v"], value=COUNT), "time,town,value"),
        (table_of(time=EACH, key=[8, 9], lanes=[3, 4], value=COUNT), "time,key,value"),
        (table_of(time=EACH, station=["a", "b"], lat=[3.5, 4], value=COUNT), "time,station,value"),
        (
            table_of(time=EACH, station=["a", "b"], site=["c", "d"], value=COUNT),
            "time,station,value",
        ),
        (table_of(when=EACH, a=[1, 2], b=COUNT), "when,a,b"),
        (
            table_of(id=range(12), date=pd.date_range("2024", periods=12), flow=COUNT),
            "date,id,flow",
        ),
    ],
)
def test_tables_that_could_be_long_are_refused(
    tmp_path: Path, table: pd.DataFrame, typed: str
) -> None:
    for source in (table, as_csv(table, tmp_path), as_parquet(table, tmp_path)):
        with (
            name_flags(),
            pytest.raises(
                DataError, match=f"could be a long table.*--long {typed}($|; that leaves out)"
            ),
        ):
            pgti.ingest(source, tmp_path / "s")


def test_wide_tables_stay_wide(tmp_path: Path) -> None:
    wide = pd.DataFrame(np.arange(36.0).reshape(12, 3), columns=["a", "b", "c"])
    dated = wide.set_index(pd.date_range("2024", periods=12, name="time"))
    for place, source in enumerate((wide, dated, dated.reset_index(), pl.from_pandas(wide))):
        store = pgti.ingest(source, tmp_path / str(place))
        assert store.meta.node_ids == ("a", "b", "c")
        np.testing.assert_array_equal(store.read(0, 12)[..., 0], wide.to_numpy())


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (["a,,1"], {}, ("line 2", "no time")),
        (["a,2024-05-01 00:00,1", ",2024-05-01 01:00,2"], {}, ("line 3", "no sensor")),
        (["a,2024-05-01 00:00,1", "a,soon,2"], {}, ("line 3", "'soon'", "ISO 8601")),
        (["a,2024-05-01 00:00,1", "a,2024-05-01 01:00,red"], {}, ("column 3 (value)", "'red'")),
        (["a,2024-05-01 00:00,red"], {"long": LONG}, ("column 3 (value)", "'red'", "--long")),
        (["a,2024-05-01 00:00,1"], {"long": ("time", "where", "value")}, ("'where'", "sensor")),
        (["a,2024-05-01 00:00,1"], {"long": ("time", "time", "value")}, ("'time'", "twice")),
        (["a,20240501,1", "a,20240502,1"], {"long": LONG}, ("20240501", "--time-format %Y%m%d")),
        (["a,202405010600,1"], {}, ("202405010600", "--time-format %Y%m%d%H%M")),
        (["a,1,1", "a,2,1", "a,1000000,1"], {"long": LONG}, ("neither times nor steps", "999,997")),
        (["a,1,1", "a,1.5,1"], {"long": LONG}, ("line 3", "1.5", "whole number")),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, rows: list[str], options: dict[str, Any], words: tuple[str, ...]
) -> None:
    source = text(tmp_path / "a.csv", "\n".join(["sensor,time,value", *rows, ""]))
    with name_flags(), pytest.raises(DataError) as caught:
        pgti.ingest(source, tmp_path / "s", **options)
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (tmp_path / "s").exists()


def test_options_that_cannot_be() -> None:
    with pytest.raises(
        ConfigError, match=r"long names 2 columns \(time, sensor\): the rule is time"
    ):
        IngestOptions(long=("time", "sensor"))
    with pytest.raises(ConfigError, match="long and transpose exclude each other"):
        IngestOptions(long=LONG, transpose=True)


def test_too_many_sensors_and_times_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(time=EACH, sensor=["a", "b"], value=COUNT)
    monkeypatch.setattr(long_columns, "_MAX_SENSORS", 1)
    with pytest.raises(DataError, match=r"column 2 \(sensor\).*more than 1 sensors, such as 'b'"):
        open_readings(table, IngestOptions())
    monkeypatch.undo()
    monkeypatch.setattr(long, "_MAX_TIMES", 5)
    with pytest.raises(DataError, match="has 6 times of 2 sensors in 12 rows"):
        open_readings(table, IngestOptions())


def test_times_of_each_sensor_alone_are_refused_before_a_huge_store() -> None:
    """Sensors that report whenever they like would fill one cell of a thousand."""
    rows = 60_000
    table = pd.DataFrame(
        {
            "time": pd.Timestamp("2024") + pd.to_timedelta(np.arange(rows), unit="s"),
            "sensor": np.arange(rows) % 2300,
            "value": 1.0,
        }
    )
    with pytest.raises(DataError, match="60,000 times of 2,300 sensors in 60,000 rows"):
        open_readings(table, IngestOptions(long=LONG))


def test_times_that_are_parsed_again_give_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Few texts of times are remembered."""
    times = pd.date_range("2024", periods=3000, freq="min")
    table = pd.DataFrame(
        {"time": np.tile(times, 3), "sensor": np.repeat(range(3), 3000), "value": 0.0}
    )
    table["value"] = np.arange(len(table))
    source = as_csv(table.sample(frac=1, random_state=1), tmp_path)
    monkeypatch.setattr(long_columns, "_MAX_KNOWN_TIMES", 10)
    values = read(open_readings(source, IngestOptions(budget_bytes=1 << 16)), 1 << 16)
    np.testing.assert_array_equal(values[..., 0], np.arange(9000).reshape(3, 3000).T)


def test_newer_rows_are_matched_by_id(tmp_path: Path) -> None:
    """A store from a long table grows from a long table in another order, and from a wide one."""
    table = table_of(when=EACH, where=["b", "a"], v=COUNT)
    options = {"long": ("when", "where", "v")}
    store = pgti.ingest(as_csv(table, tmp_path), tmp_path / "s", **options)
    later = table.assign(when=table.when + pd.Timedelta(hours=6), v=table.v + 100)
    newer = as_csv(later.sample(frac=1, random_state=3), tmp_path)
    store = store.append(newer)
    assert store.meta.num_steps == 12
    np.testing.assert_array_equal(store.read(6, 12)[:, 1, 0], later.v.to_numpy()[::2])
    wide = pd.DataFrame({"a": [1.0, 2], "b": [3.0, 4]}, index=HOURS[:2] + pd.Timedelta(hours=12))
    store = store.append(wide)
    np.testing.assert_array_equal(store.read(12, 14)[..., 0], [[1, 3], [2, 4]])


def test_times_in_two_columns(tmp_path: Path) -> None:
    """A date and an hour are one time, recognized or said."""
    days = EACH.strftime("%Y-%m-%d")
    table = pd.DataFrame({"Date": days, "Hour": EACH.hour, "site": ["a", "b"] * 6})
    source = as_csv(table.assign(ozone=COUNT), tmp_path)
    said = {"long": ("Date", "site", "ozone"), "time_columns": ("Date", "Hour")}
    for options in (IngestOptions(), IngestOptions(**said)):
        readings = open_readings(source, options)
        assert (readings.num_rows, readings.num_nodes, readings.channels) == (6, 2, ("ozone",))
        np.testing.assert_array_equal(read(readings)[..., 0], COUNT.reshape(6, 2))


def test_kinds_of_columns(tmp_path: Path) -> None:
    """Categories, decimals, nullable and boolean columns, dates and dictionaries."""
    days = pd.date_range("2024-05-01", periods=3).repeat(2)
    table = pa.table(
        {
            "date": pa.array(days.date, pa.date32()),
            "sensor": pa.array(["a", "b"] * 3).dictionary_encode(),
            "rain": pa.array([None, 1, 2, 3, 4, 5], pa.int8()),
            "open": [True, False] * 3,
            "price": pa.array(
                [None, *map(Decimal, ["1.25", "2.5", "3", "4", "5"])], pa.decimal128(9, 2)
            ),
            "code": pa.array([7, 8] * 3).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    pandas = table.to_pandas(types_mapper=pd.ArrowDtype)
    expected = np.array(
        [
            [np.nan, 1, np.nan, 7],
            [1, 0, 1.25, 8],
            [2, 1, 2.5, 7],
            [3, 0, 3, 8],
            [4, 1, 4, 7],
            [5, 0, 5, 8],
        ]
    ).reshape(3, 2, 4)
    for source in (table, pandas, pandas.astype({"sensor": "category"}), tmp_path / "a.parquet"):
        readings = open_readings(
            source, IngestOptions(long=("date", "sensor", "rain", "open", "price", "code"))
        )
        assert readings.node_ids == ("a", "b")
        np.testing.assert_array_equal(read(readings), expected)
        (seconds,) = (each.seconds for each in readings.chunks(1 << 20))
        np.testing.assert_array_equal(seconds, days[::2].as_unit("s").asi8)


def test_whole_numbers_that_no_float_holds_are_refused() -> None:
    table = pa.table({"time": HOURS[:2], "sensor": ["a", "a"], "value": [2**53, 2**53 + 1]})
    with pytest.raises(DataError, match=r"column 'value' of the Table holds .* above 2\^53"):
        read(open_readings(table, IngestOptions()))


def test_damaged_files(tmp_path: Path) -> None:
    """A file that was cut short, of an old format, or of another kind is refused in one line."""
    table = table_of(time=EACH, sensor=["a", "b"], value=COUNT)
    whole = as_feather(table, tmp_path).read_bytes()
    for name, content in (
        ("cut.feather", whole[: len(whole) // 2]),
        ("other.arrows", b"time,sensor,value\n"),
        ("cut.parquet", as_parquet(table, tmp_path).read_bytes()[:-9]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            DataError, match=f"^{name} cannot be read as (Parquet|Arrow IPC): [^\n]*$"
        ):
            open_readings(tmp_path / name, IngestOptions())
    (tmp_path / "old.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(DataError, match="Feather's first version"):
        open_readings(tmp_path / "old.feather", IngestOptions())


def test_a_series_is_a_table_of_one_column(tmp_path: Path) -> None:
    table = table_of(time=EACH, sensor=["a", "b"], value=COUNT)
    store = pgti.ingest(table.set_index(["time", "sensor"])["value"], tmp_path / "s")
    np.testing.assert_array_equal(store.read(0, 6)[..., 0], COUNT.reshape(6, 2))
    single = pgti.ingest(pd.Series(COUNT[:6], index=HOURS, name="north"), tmp_path / "t")
    assert (single.meta.node_ids, single.meta.interval_seconds) == (("north",), 3600)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """The next ingest that needs room beside the same store removes it."""
    lines = [f"{time},{s},{s}" for time in HOURS for s in range(9)]
    source = text(tmp_path / "a.csv", "\n".join(["time,sensor,value", *lines[::-1]]))
    dead = tmp_path / f".s.scratch.tmp-{'0' * 32}"
    (dead / "stage-1").mkdir(parents=True)
    (tmp_path / f"{dead.name}.lock").touch()
    pgti.ingest(source, tmp_path / "s", budget_bytes=256)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.csv", "s"]


def test_newer_readings_of_a_run_are_matched_by_id(tmp_path: Path) -> None:
    """They may be a frame of another library, in another order of rows, or wide."""
    table = table_of(when=EACH, where=["b", "a"], v=COUNT)
    store = pgti.ingest(table, tmp_path / "s", long=("when", "where", "v"), duplicates="last")
    newer = table.assign(when=table.when + pd.Timedelta(hours=6)).sample(frac=1, random_state=2)
    again = pd.concat([newer.assign(v=-1.0), newer])  # the last of two
    wide = newer.pivot(index="when", columns="where", values="v")
    for source in (
        pl.from_pandas(again),
        pa.Table.from_pandas(again),
        as_csv(again, tmp_path),
        wide,
    ):
        with open_newer_series(source, store) as series:
            assert series.store.meta.node_ids == ("a", "b")
            np.testing.assert_array_equal(
                series.store.read(0, 6)[..., 0], COUNT.reshape(6, 2)[:, ::-1]
            )
            assert series.store.meta.start == "2024-05-01T06:00:00"


def test_station_files_of_several_days(tmp_path: Path) -> None:
    days = [
        text(tmp_path / f"d07_{day}.txt", station_file().replace("05/01/2024", f"05/0{day}/2024"))
        for day in (1, 2)
    ]
    with pytest.raises(DataError, match="lacks 20 rows"):
        pgti.ingest(days, tmp_path / "s")
    store = pgti.ingest(days, tmp_path / "s", gaps="fill")
    assert store.meta.channels == ("flow", "occupancy", "speed")
    flow = store.read(0, store.meta.num_steps)[[0, 3, 24, 27], :, 0]
    np.testing.assert_array_equal(flow - [715898, 715900], [[0, 0], [3, 3], [0, 0], [3, 3]])
