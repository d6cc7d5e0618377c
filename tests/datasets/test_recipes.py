"""Stores made from the files of each data set, in every form in which people have them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pgti.batching import WindowConfig, WindowSource, build_batcher
from pgti.datasets import DATASETS
from pgti.datasets.fetch import fetch
from pgti.errors import ConfigError, DataError
from pgti.run.protocol import apply_protocol
from pgti.store import SeriesStore

from . import published_files

pytest.importorskip("h5py", reason="h5py is not installed")
pytest.importorskip("tables", reason="PyTables is not installed")

MATRIX = np.array([[1.0, 0.5, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of the user's."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def made(name: str, files: Path, **options: Any) -> SeriesStore:
    """The store of a data set whose files the user has; nothing else is left beside them."""
    before = sorted(files.rglob("*"))
    fetch(name, files.parent / "store", source=files, overwrite=True, **options)
    assert sorted(files.rglob("*")) == before
    assert sorted(path.name for path in files.parent.iterdir()) == ["files", "store"]
    return SeriesStore.open(files.parent / "store")


def readings(store: SeriesStore) -> Any:
    """All of them, [T, N, C]."""
    return store.read(0, store.meta.num_steps)


def nan_for_zero(values: Any) -> Any:
    """The values in float32, NaN where they are 0."""
    values = np.asarray(values, dtype=np.float32)
    return np.where(values == 0, np.float32(np.nan), values)


@pytest.mark.parametrize("is_zipped", [True, False])
def test_metr_la_as_pgt_has_it(files: Path, is_zipped: bool) -> None:
    """Times come from the clock channel, a speed of 0 is missing, the matrix is the graph."""
    times = pd.date_range("2012-03-01", periods=300, freq="5min")
    speeds = np.random.default_rng(1).integers(0, 70, (300, 3)) + 0.375
    speeds[5, 1] = 0
    members = {
        "node_values.npy": published_files.npy(published_files.clocked(speeds, times)),
        "adj_mat.npy": published_files.npy(MATRIX.astype(np.float32)),
    }
    if is_zipped:
        (files / "METR-LA.zip").write_bytes(published_files.zipped(members))
    else:
        for name, content in members.items():
            (files / name).write_bytes(content)
    store = made("metr-la", files)
    np.testing.assert_array_equal(readings(store)[..., 0], nan_for_zero(speeds))
    meta = store.meta
    assert (meta.start, meta.interval_seconds) == ("2012-03-01T00:00:00", 300)
    assert (meta.channels, meta.units, meta.dtype) == (("speed",), ("mph",), "int16")
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), MATRIX)
    kept = made("METR-LA", files, zeros="observed")
    np.testing.assert_array_equal(readings(kept)[..., 0], speeds.astype(np.float32))


def test_pems_bay_lacks_the_hour_that_clocks_skip(files: Path) -> None:
    """Rows behind the gap have their true times."""
    times = pd.date_range("2017-01-01", "2017-03-12T06:00", freq="5min")
    times = times[(times < "2017-03-12T02:00") | (times >= "2017-03-12T03:00")]
    speeds = np.random.default_rng(2).integers(1, 70, (len(times), 3)) / 10
    values = published_files.clocked(speeds, times)
    (files / "pems_node_values.npy").write_bytes(published_files.npy(values))
    (files / "pems_adj_mat.npy").write_bytes(published_files.npy(MATRIX))
    store = made("PEMS-BAY", files)
    assert store.meta.num_steps == len(times)
    np.testing.assert_array_equal(readings(store)[..., 0], speeds.astype(np.float32))
    rows = np.arange(len(times))
    found = store.time_axis.time_of_day(rows)
    np.testing.assert_allclose(found, (times.hour + times.minute / 60) / 24, atol=1e-6)
    assert store.time_axis.steps_per_day == 288


def test_the_published_protocol_of_pems_bay_has_the_official_windows(files: Path) -> None:
    """Of all 52,116 rows, those around the hour that clocks skip included, as DCRNN cuts them."""
    times = pd.date_range("2017-01-01", "2017-07-01", freq="5min", inclusive="left")
    times = times[(times < "2017-03-12T02:00") | (times >= "2017-03-12T03:00")]
    speeds = np.arange(1.0, 1 + len(times))[:, None].repeat(3, axis=1)
    frame = pd.DataFrame(speeds, index=times, columns=[1, 2, 3])
    frame.to_hdf(files / "pems-bay.h5", key="speed")
    pickle = published_files.adjacency_pickle(["1", "2", "3"], MATRIX)
    (files / "adj_mx_bay.pkl").write_bytes(pickle)
    store = made("PEMS-BAY", files)
    options, _ = apply_protocol("published", store, {})
    windows = WindowConfig(**options)
    splits = windows.splits(store)
    counts = tuple(map(len, (splits.train, splits.val, splits.test)))
    assert counts == (36_465, 5_209, 10_419)
    starts = np.concatenate([splits.train, splits.val, splits.test])
    np.testing.assert_array_equal(starts, np.arange(len(times) - 23))

    source = WindowSource.from_config(store, windows)
    first = int((times < "2017-03-12T02:00").sum()) - 12
    batch = build_batcher("index", source, torch.device("cpu")).gather(np.array([first]))
    np.testing.assert_array_equal(batch.y[0, :, 0, 0], speeds[first + 12 : first + 24, 0])
    clock = (times.hour + times.minute / 60)[first : first + 24] / 24
    np.testing.assert_allclose(batch.calendar[0, :, 0], clock, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "table", "pickle", "start", "key"),
    [
        ("METR-LA", "metr-la.h5", "adj_mx.pkl", "2012-03-01", "df"),
        ("PEMS-BAY", "pems-bay.h5", "adj_mx_bay.pkl", "2017-01-01", "speed"),
        ("PeMS", "pems_cali_speed.h5", "pems_cali_adj_mat.pkl", "2018-01-01", "df"),
        ("PeMS", "pems.h5", "adj_mx_pems.pkl", "2018-01-01", "df"),
        ("PeMS-All-LA", "pems_AllLA_speed.h5", "pems_AllLA_adj_mat.pkl", "2018-01-01", "df"),
        ("PeMS-All-LA", "pems-all-la.h5", "adj_mx_all_la.pkl", "2018-01-01", "df"),
    ],
)
def test_frames_and_pickles(
    files: Path, name: str, table: str, pickle: str, start: str, key: str
) -> None:
    """Tables with dates and ids, and DCRNN's pickle, whose sensors come in another order."""
    values = np.random.default_rng(3).integers(0, 70, (20, 3)) + 0.5
    values[2, 2] = 0
    ids = [717446, 717447, 773869]
    published_files.frame_file(files / table, values, start, "5min", ids, key)
    order = [2, 0, 1]
    shuffled = published_files.adjacency_pickle(
        [str(ids[i]) for i in order], MATRIX[order][:, order]
    )
    (files / pickle).write_bytes(shuffled)
    store = made(name, files)
    np.testing.assert_array_equal(readings(store)[..., 0], nan_for_zero(values))
    assert store.meta.start == f"{start}T00:00:00"
    assert store.meta.node_ids == tuple(map(str, ids))
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), MATRIX)


def test_a_pickle_that_runs_something_is_refused(files: Path) -> None:
    """What comes from elsewhere is not trusted to run anything."""
    published_files.frame_file(
        files / "pems.h5", np.ones((4, 3)), "2018-01-01", "5min", [1, 2, 3], "df"
    )
    (files / "adj_mx_pems.pkl").write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(DataError, match=r"adj_mx_pems\.pkl"):
        made("PeMS", files)


def test_windmill(files: Path) -> None:
    """Hours without dates, zeros that are output, and a complete graph with weights."""
    (files / "windmill_output.json").write_bytes(published_files.windmill())
    store = made("Windmill-Large", files)
    np.testing.assert_array_equal(readings(store)[..., 0], [[0.5, 0, 2.5], [1.5, 3.5, 0]])
    assert (store.meta.start, store.meta.interval_seconds) == (None, 3600)
    assert store.meta.num_edges == 9
    assert store.graph.adjacency.toarray()[2].tolist() == [0.5, 0.5, 1]


def test_chickenpox(files: Path) -> None:
    """Weeks from the one that row 0 belongs to, with the names of the counties."""
    (files / "chickenpox.json").write_bytes(published_files.chickenpox())
    store = made("chickenpox-hungary", files)
    np.testing.assert_array_equal(readings(store)[..., 0], published_files.CHICKENPOX["FX"])
    assert (store.meta.start, store.meta.interval_seconds) == ("2005-01-10T00:00:00", 7 * 86_400)
    assert store.meta.node_ids == ("BACS", "BARANYA", "BEKES")


def test_the_real_chickenpox_file(tmp_path: Path) -> None:
    """Its rows are standardised changes, as the note says: the published counts give them."""
    folder = Path(__file__).resolve().parents[3] / "shared/data/raw"
    if not (folder / "chickenpox.json").exists():
        pytest.skip("needs ../shared/data/raw/chickenpox.json")
    fetch("Chickenpox-Hungary", tmp_path / "store", source=folder)
    store = SeriesStore.open(tmp_path / "store")
    assert (store.meta.num_steps, store.meta.num_nodes, store.meta.num_edges) == (521, 20, 102)
    rows = readings(store)[..., 0].astype(np.float64)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-6)
    # Cases in Budapest: the weeks of 2005-01-03 to 31, and of 2014-12-01 to 29.
    first, last = [168, 157, 96, 163, 122], [95, 43, 35, 30, 259]
    changes = np.concatenate([np.diff(first), np.diff(last)])
    budapest = rows[:, store.meta.node_ids.index("BUDAPEST")]
    stored = np.concatenate([budapest[:4], budapest[-4:]])
    slope, intercept = np.polyfit(changes, stored, 1)
    np.testing.assert_allclose(slope * changes + intercept, stored, atol=1e-5)
    assert store.meta.start == "2005-01-10T00:00:00"


@pytest.mark.parametrize(
    ("name", "channels", "start"),
    [
        ("PEMS04", ("flow", "occupancy", "speed"), "2018-01-01"),
        ("PEMS07", ("flow",), "2017-05-01"),
        ("PEMS08", ("flow", "occupancy", "speed"), "2016-07-01"),
    ],
)
def test_flows_of_numbered_stations(
    files: Path, name: str, channels: tuple[str, ...], start: str
) -> None:
    """All channels; flows of 0 are missing; neighbours are joined both ways with weight 1."""
    flows = np.random.default_rng(4).integers(0, 3, (12, 4, len(channels))).astype(float)
    np.savez_compressed(files / f"{name}.npz", data=flows)
    (files / f"{name}.csv").write_text("from,to,cost\n0,1,352.6\n1,2,0.8\n2,1,0.8\n3,3,0.0\n")
    store = made(name, files)
    expected = flows.astype(np.float32)
    expected[..., 0] = nan_for_zero(flows[..., 0])
    np.testing.assert_array_equal(readings(store), expected)
    assert store.meta.channels == channels
    assert (store.meta.start, store.meta.interval_seconds) == (f"{start}T00:00:00", 300)
    graph = [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), graph)
    kept = readings(made(name, files, zeros="observed"))
    np.testing.assert_array_equal(kept, flows.astype(np.float32))


def test_flows_of_stations_with_ids(files: Path) -> None:
    """PEMS03: the list of ids says which column is which station."""
    flows = np.random.default_rng(5).integers(1, 900, (12, 3, 1)).astype(float)
    np.savez_compressed(files / "PEMS03.npz", data=flows)
    (files / "PEMS03.csv").write_text("from,to,distance\n313349,317842,0.872\n317842,317842,0.0\n")
    (files / "PEMS03.txt").write_text("317842\n313344\n313349\n")
    store = made("PEMS03", files)
    assert store.meta.node_ids == ("317842", "313344", "313349")
    assert store.meta.read_options["dataset"] == "PEMS03"
    np.testing.assert_array_equal(
        store.graph.adjacency.toarray(), [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    )
    (files / "PEMS03.txt").write_text("317842\n313344\n")
    with pytest.raises(DataError, match=r"PEMS03.txt has 2 ids and .*PEMS03.npz has 3 sensors"):
        made("PEMS03", files)
    (files / "PEMS03.txt").write_text("317842\n313344\n999999\n")
    with pytest.raises(DataError, match=r"station 313349.* not among the 3 sensors"):
        made("PEMS03", files)


@pytest.mark.parametrize(
    ("name", "newline", "num_edges"),
    [("PEMS03", "\r\r\n", 1093), ("PEMS04", "\r\n", 680), ("PEMS08", "\r\n", 548)],
)
def test_the_real_lists_of_neighbours(files: Path, name: str, newline: str, num_edges: int) -> None:
    """The bytes that Zenodo publishes, made again from their content, have its MD5."""
    graphs = Path(__file__).resolve().parents[3] / "shared/data/benchmark_sensor_graphs.npz"
    if not graphs.exists():
        pytest.skip("needs ../shared/data/benchmark_sensor_graphs.npz")
    key = name.lower()
    with np.load(graphs) as arrays:
        edges, costs = arrays[f"{key}_edges"], arrays[f"{key}_cost"]
        ids = arrays[f"{key}_id"].tolist() if f"{key}_id" in arrays else []
    title = "from,to,distance" if name == "PEMS03" else "from,to,cost"
    lines = [f"{a},{b},{float(str(cost))}" for (a, b), cost in zip(edges, costs, strict=True)]
    contents = {f"{name}.csv": newline.join([title, *lines, ""]).encode()}
    if ids:
        contents[f"{name}.txt"] = "\r\n".join(map(str, ids)).encode()
    md5s = {each.name: each.md5 for each in DATASETS[name].downloads}
    for file, content in contents.items():
        assert hashlib.md5(content).hexdigest() == md5s[file]
        (files / file).write_bytes(content)
    _, num_nodes, num_channels = DATASETS[name].shape
    np.savez(files / f"{name}.npz", data=np.ones((2, num_nodes, num_channels)))
    store = made(name, files)
    places = {label: place for place, label in enumerate(ids or range(num_nodes))}
    expected = np.zeros((num_nodes, num_nodes))
    for source, target in edges.tolist():
        expected[places[source], places[target]] = expected[places[target], places[source]] = 1
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), expected)
    assert store.meta.num_edges == num_edges


IDS = ["1114091", "1114094", "400001", "716331", "1118348"]
DISTRICTS = [11, 11, 4, 7, 11]


def largest(folder: Path, year: int = 2019, days: int = 2) -> Any:
    """Kaggle's files of five sensors: 5-minute counts with holes, metadata, and a matrix."""
    rng = np.random.default_rng(year)
    counts = rng.integers(0, 90, (days * 288, 5)).astype(float)
    counts[rng.random(counts.shape) < 0.2] = np.nan
    counts[12:15, 0] = np.nan
    counts[24:27, 1] = 0
    published_files.frame_file(
        folder / f"ca_his_raw_{year}.h5", counts, f"{year}", "5min", IDS, "t"
    )
    meta = pd.DataFrame(
        {
            "ID": IDS,
            "Lat": 32.0 + np.arange(5),
            "Lng": -117.0 - np.arange(5),
            "District": DISTRICTS,
            "County": "San Diego",
            "ID2": range(5),
        }
    )
    meta.to_csv(folder / "ca_meta.csv", index=False)
    np.save(folder / "ca_rn_adj.npy", weights())
    index = pd.date_range(f"{year}", periods=len(counts), freq="5min")
    return pd.DataFrame(counts, index=index, columns=IDS)


def weights() -> Any:
    """A matrix of five sensors, not symmetric, with weight 1 on its diagonal."""
    matrix = np.triu(np.arange(25.0).reshape(5, 5) / 25).astype(np.float32)
    np.fill_diagonal(matrix, 1)
    return matrix


@pytest.mark.parametrize(
    ("name", "districts"),
    [
        ("LargeST-CA", DISTRICTS),
        ("LargeST-SD", [11]),
        ("LargeST-GBA", [4]),
        ("LargeST-GLA", [7, 8, 12]),
    ],
)
def test_largest_as_published(files: Path, name: str, districts: list[int]) -> None:
    """Quarters of an hour as the authors make them, for the sensors of some districts."""
    counts = largest(files)
    inside = np.isin(DISTRICTS, districts)
    store = made(name, files)
    theirs = counts.resample("15min").mean().round(0).fillna(0).to_numpy()[:, inside]
    np.testing.assert_array_equal(readings(store)[..., 0], nan_for_zero(theirs))
    assert store.meta.node_ids == tuple(np.array(IDS)[inside])
    assert (store.meta.start, store.meta.interval_seconds) == ("2019-01-01T00:00:00", 900)
    assert (store.meta.channels, store.meta.dtype) == (("flow",), "int16")
    np.testing.assert_array_equal(
        store.graph.adjacency.toarray(), weights()[inside][:, inside].astype(np.float32)
    )
    assert store.graph.coordinates is not None
    np.testing.assert_array_equal(store.graph.coordinates[:, 0], 32.0 + np.flatnonzero(inside))


def test_largest_zeros_that_were_counted_can_be_kept(files: Path) -> None:
    """The published files tell a zero from a missing reading."""
    counts = largest(files)
    store = made("LargeST-SD", files, zeros="observed")
    expected = counts.resample("15min").mean().round(0).to_numpy()[:, [0, 1, 4]]
    np.testing.assert_array_equal(readings(store)[..., 0], expected.astype(np.float32))
    assert (readings(store)[8, 1, 0], np.isnan(readings(store)[4, 0, 0])) == (0, True)


def test_largest_counts_as_they_were_read(files: Path) -> None:
    """At 5 minutes nothing is averaged."""
    counts = largest(files)
    store = made("LargeST-SD", files, interval="5min")
    np.testing.assert_array_equal(
        readings(store)[..., 0], nan_for_zero(counts.to_numpy()[:, [0, 1, 4]])
    )
    assert store.meta.interval_seconds == 300


def test_largest_years(files: Path) -> None:
    """Years that follow one another are one series, and hours between their files are missing."""
    first, second = largest(files, 2018, days=365), largest(files, 2019)
    store = made("LargeST-GBA", files, years=(2019, 2018))
    both = pd.concat([first, second]).resample("15min").mean().round(0)["400001"]
    np.testing.assert_array_equal(readings(store)[:, 0, 0], nan_for_zero(both.fillna(0)))
    assert store.meta.start == "2018-01-01T00:00:00"


@pytest.mark.parametrize("archive", ["archive.zip", "largest.zip", "one by one"])
def test_largest_as_kaggle_zips_it(files: Path, archive: str) -> None:
    """All files in one archive, or each in its own."""
    largest(files)
    names = ["ca_his_raw_2019.h5", "ca_meta.csv", "ca_rn_adj.npy"]
    contents = {name: (files / name).read_bytes() for name in names}
    expected = made("LargeST-SD", files).fingerprint
    for name in names:
        (files / name).unlink()
        if archive == "one by one":
            (files / f"{name}.zip").write_bytes(published_files.zipped({name: contents[name]}))
    if archive != "one by one":
        (files / archive).write_bytes(published_files.zipped(contents))
    assert made("LargeST-SD", files).fingerprint == expected


def test_largest_as_its_notebooks_leave_it(files: Path) -> None:
    """A table of one part of the state, already averaged, with zeros where nothing was read."""
    values = np.random.default_rng(6).integers(0, 50, (96, 3)).astype(float)
    published_files.frame_file(files / "sd_his_2019.h5", values, "2019", "15min", IDS[:3], "t")
    np.save(files / "sd_rn_adj.npy", MATRIX)
    store = made("LargeST-SD", files)
    np.testing.assert_array_equal(readings(store)[..., 0], nan_for_zero(values))
    assert store.meta.node_ids == tuple(IDS[:3])
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), MATRIX)
    with pytest.raises(ConfigError, match="interval is 5min and the files found are prepro"):
        made("LargeST-SD", files, interval="5min")
    np.save(files / "sd_rn_adj.npy", np.ones((4, 4)))
    with pytest.raises(DataError, match=r"sd_rn_adj.npy has 4 rows and there are 3 sensors"):
        made("LargeST-SD", files)


@pytest.mark.parametrize("is_in_folder", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_largest_as_it_is_trained_on(files: Path, is_in_folder: bool, dtype: type) -> None:
    """`his.npz`: flows come back from their standardised form, dates from the year."""
    flows = np.random.default_rng(7).integers(0, 900, (35_040, 3)).astype(float)
    mean, deviation = flows[:20_000].mean(), flows[:20_000].std()
    clock = np.zeros_like(flows)
    data = np.stack([(flows - mean) / deviation, clock, clock], -1).astype(dtype)
    folder = files / "2019" if is_in_folder else files
    folder.mkdir(exist_ok=True)
    np.savez(folder / "his.npz", data=data, mean=mean, std=deviation)
    np.save(files / "sd_rn_adj.npy", MATRIX)
    store = made("LargeST-SD", files)
    np.testing.assert_array_equal(readings(store)[..., 0], nan_for_zero(flows))
    assert (store.meta.start, store.meta.interval_seconds) == ("2019-01-01T00:00:00", 900)
    np.savez(folder / "his.npz", data=data[:-1], mean=mean, std=deviation)
    with pytest.raises(DataError, match="has 35039 rows and 2019 has 35040 quarters of an hour"):
        made("LargeST-SD", files)


def test_largest_files_that_do_not_belong_together(files: Path) -> None:
    """Sensors that the metadata do not know, a column that is missing, and a matrix too small."""
    largest(files)
    meta = pd.read_csv(files / "ca_meta.csv")
    meta[:3].to_csv(files / "ca_meta.csv", index=False)
    with pytest.raises(DataError, match=r"lacks 2 of the 5 sensors .* \(716331, 1118348\)"):
        made("LargeST-SD", files)
    meta.drop(columns="ID2").to_csv(files / "ca_meta.csv", index=False)
    with pytest.raises(DataError, match=r"ca_meta.csv has no column ID2: it has ID, Lat"):
        made("LargeST-SD", files)
    for column, value in (("Lat", "x"), ("ID2", None)):
        wrong = meta.astype({column: object})
        wrong.loc[1, column] = value
        wrong.to_csv(files / "ca_meta.csv", index=False)
        with pytest.raises(DataError, match=rf"{column} (x|nan) for sensor {meta['ID'][1]}: it mu"):
            made("LargeST-SD", files)
    meta.to_csv(files / "ca_meta.csv", index=False)
    np.save(files / "ca_rn_adj.npy", weights()[:4, :4])
    with pytest.raises(DataError, match=r"ca_rn_adj.npy has 4 rows"):
        made("LargeST-SD", files)
    np.save(files / "ca_rn_adj.npy", weights()[:4])
    with pytest.raises(DataError, match="a square matrix is expected"):
        made("LargeST-SD", files)
