"""Static features of the sensors: tables of stations."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

from pgti.errors import DataError
from pgti.ingestion import IngestOptions, ingest
from pgti.ingestion.covariates.static_tables import read_static
from pgti.store import SeriesStore
from pgti.store.static_features import StaticFeatures

IDS = ("400001", "400002", "400003")
CSV = """sensor_id,lanes,altitude,kind,latitude,longitude
400002,3,12.5,main,37.1,-122.1
400001,2,,ramp,37.2,-122.2
400009,8,1,main,37.3,-122.3
400003,5,-1.5,,37.4,-122.4
"""


def read(
    source: object, ids: tuple[str, ...] = IDS, **options: object
) -> tuple[StaticFeatures, tuple[str, ...]]:
    table = read_static(source, ids, IngestOptions(**options))  # type: ignore[arg-type]
    assert table.features is not None
    return table.features, table.notes


def write(tmp_path: Path, text: str, name: str = "stations.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_features_are_matched_by_id(tmp_path: Path) -> None:
    features, notes = read(write(tmp_path, CSV))
    frame = features.to_frame(IDS)
    pd.testing.assert_series_equal(
        frame["lanes"], pd.Series([2.0, 3, 5], index=frame.index, name="lanes")
    )
    np.testing.assert_array_equal(frame["altitude"], [np.nan, 12.5, -1.5])
    assert frame["kind"].astype(object).where(frame["kind"].notna(), None).tolist() == [
        "ramp",
        "main",
        None,
    ]
    assert features.categories == ((), (), ("main", "ramp"))
    assert notes[0] == ("static features of stations.csv: lanes, altitude, kind (2 categories)")
    assert "latitude and longitude of stations.csv are the coordinates of the sensors" in notes
    assert any("has 1 sensor that the series lacks (400009): left out" in note for note in notes)
    assert any("whole numbers are taken for quantities: lanes" in note for note in notes)


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    expected, _ = read(write(tmp_path, CSV))
    frame = pd.read_csv(tmp_path / "stations.csv", dtype={"sensor_id": str})
    frame.to_parquet(tmp_path / "stations.parquet")
    frame.to_feather(tmp_path / "stations.feather")
    write(tmp_path, CSV.replace(",", "\t"), "stations.tsv")
    sources = [
        tmp_path / "stations.parquet",
        tmp_path / "stations.feather",
        tmp_path / "stations.tsv",
        frame,
        frame.set_index("sensor_id"),
        frame.astype({"sensor_id": int, "kind": "category"}),
        polars.from_pandas(frame),
        pa.Table.from_pandas(frame),
    ]
    for source in sources:
        features, _ = read(source)
        assert features.to_bytes() == expected.to_bytes()


def test_codes_are_categories_where_the_user_says_so(tmp_path: Path) -> None:
    features, notes = read(write(tmp_path, CSV), categorical=("lanes",))
    assert features.categories[0] == ("2", "3", "5")
    assert not any("quantities" in note for note in notes)
    frame = pd.DataFrame({"id": IDS, "zone": pd.Categorical([10, 9, 10])})
    assert read(frame)[0].categories == (("9", "10"),)


def test_booleans_are_categories() -> None:
    frame = pd.DataFrame({"id": IDS, "is_ramp": [True, False, True]})
    features, _ = read(frame)
    assert features.categories == (("False", "True"),)
    np.testing.assert_array_equal(features.values[:, 0], [1, 0, 1])


def test_ids_keep_their_zeros_and_are_found_by_what_they_hold(tmp_path: Path) -> None:
    path = write(tmp_path, "ort,hoehe\n001,5\n002,6\n")
    features, notes = read(path, ("001", "002", "003"))
    np.testing.assert_array_equal(features.values[:, 0], [5, 6, np.nan])
    assert any("lacks 1 sensor (003): their features are missing" in note for note in notes)


def test_names_of_the_sensors_are_no_categories() -> None:
    ids = tuple(map(str, range(30)))
    frame = pd.DataFrame({"id": ids, "street": [f"street {i}" for i in ids], "lanes": 2.5})
    features, notes = read(frame, ids)
    assert features.names == ("lanes",)
    assert any("street of the DataFrame has 30 texts for 30 sensors: left out" in n for n in notes)
    assert read(frame, ids, categorical=("street",))[0].names == ("street", "lanes")


def test_row_numbers_of_pandas_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "stations.csv"
    pd.DataFrame({"sensor": IDS, "lanes": [1.5, 2, 3]}).to_csv(path)
    assert read(path)[0].names == ("lanes",)


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    features, _ = read(write(tmp_path, "sensor;height\n400001;3,5\n400002;4,25\n"))
    np.testing.assert_array_equal(features.values[:, 0], [3.5, 4.25, np.nan])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sensor,lanes\n400001,2\n400001,3\n", "line 3.* has the sensor '400001' again"),
        ("sensor,lanes\n7,2\n8,3\n", "none of the series's sensors: it has 7, 8"),
        ("a,b\n1,2\n", "no column with ids of the sensors .*call the column of ids 'id'"),
        ("a,b\n400001,400001\n", "2 columns with ids"),
        ("sensor,lanes\n400001,x\n400002,2\n400003,3\n", "lanes .* holds numbers and 'x'"),
        ("sensor,width;\n400001,\n", "no feature of the sensors"),
        ("sensor\n400001\n", "no column of features"),
        ("sensor,height\n400001,inf\n", "height of stations.csv has an infinite value"),
    ],
)
def test_tables_that_could_be_misread_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, text))


def test_a_feature_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'road'; it has sensor_id, lanes"):
        read(write(tmp_path, CSV), categorical=("road",))


@pytest.mark.parametrize("name", ["stations.xlsx", "nothing.csv"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("stations"):
        write(tmp_path, CSV, name)
    with pytest.raises(DataError, match="the table"):
        read(tmp_path / name)


@pytest.mark.parametrize("source", [np.zeros((3, 2)), {"id": list(IDS)}, [1, 2]])
def test_what_is_no_table_is_refused(source: object) -> None:
    with pytest.raises(DataError, match=r"given as (ndarray|dict|list): give a file, or a frame"):
        read(source)


def test_codes_of_missing_readings_are_values_and_said(tmp_path: Path) -> None:
    """A speed of 0 is missing, and 0 tolls are not; -999 stays what it is until it is left out."""
    table = write(tmp_path, "sensor,tolls,height\n400001,0,-999\n400002,0,2\n400003,1,3\n")
    features, notes = read(table, missing=(0, -999, "M"))
    np.testing.assert_array_equal(features.values, [[0, -999], [0, 2], [1, 3]])
    assert any("tolls of stations.csv is 0 at 2 sensors" in note for note in notes)
    assert any("height of stations.csv is -999 at 1 sensor: a value" in note for note in notes)
    assert not any("readings" in note for note in read(table)[1])


def ingest_placed(tmp_path: Path, stations: str, graph: str | None = None) -> SeriesStore:
    """A store of the sensors of `IDS` with a table of stations beside it."""
    rows = "".join(f"2025-01-01T00:{minute:02},1,2,3\n" for minute in range(0, 60, 5))
    readings = write(tmp_path, f"time,{','.join(IDS)}\n{rows}", "readings.csv")
    edges = None if graph is None else write(tmp_path, graph, "edges.csv")
    options = IngestOptions(overwrite=True)
    table = write(tmp_path, stations)
    return ingest(readings, tmp_path / "store", options, graph=edges, static=table)


def test_coordinates_place_the_sensors_of_an_edge_list(tmp_path: Path) -> None:
    edges = "from,to,weight\n400001,400002,0.5\n"
    store = ingest_placed(tmp_path, CSV, edges)
    assert store.graph.num_edges == 1
    np.testing.assert_array_equal(
        store.graph.coordinates, [[37.2, -122.2], [37.1, -122.1], [37.4, -122.4]]
    )
    assert store.static is not None
    assert list(store.static.columns) == ["lanes", "altitude", "kind"]


def test_a_table_may_hold_coordinates_alone(tmp_path: Path) -> None:
    """Longitudes of 0 to 360 are stored as -180 to 180."""
    store = ingest_placed(tmp_path, "id,lon,lat\n400001,237,1\n400002,2,2\n400003,3,3\n")
    np.testing.assert_array_equal(store.graph.coordinates, [[1, -123], [2, 2], [3, 3]])
    assert store.static is None


def test_coordinates_of_some_sensors_are_left_out(tmp_path: Path) -> None:
    store = ingest_placed(tmp_path, "id,lanes,lat,lon\n400001,1,1,1\n400002,2,,2\n400003,3,3,3\n")
    assert store.graph.coordinates is None
    assert "lat and lon of stations.csv lack 1 sensor (400002): the store has no coordinates" in (
        store.notes
    )


def test_coordinates_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="latitude must be in"):
        ingest_placed(tmp_path, "id,lat,lon\n400001,1,1\n400002,200,2\n400003,3,3\n")
    assert not (tmp_path / "store").exists()
