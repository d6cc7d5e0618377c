"""Every `pgti ingest` of docs/data.md runs as it stands there, on a small file of its kind."""

import glob
import json
import pickle
import re
import shlex
from itertools import chain
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.io

import pgti
from pgti.cli.main import run_command

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
ELSEWHERE = ("s3://", "https://")  # tests/ingestion/test_remote.py
T, IDS = 48, [f"S{number}" for number in range(9)]
TIMES = pd.date_range("2025-10-14", periods=T, freq="h")
SPEED = np.round(50 + np.arange(T)[:, None] * 0.25 + np.arange(9) * 0.5, 2)
FLOW = SPEED * 2
BOTH = np.stack([SPEED, FLOW], axis=-1)
WIDE = pd.DataFrame(SPEED, index=TIMES, columns=IDS)
CLOCK = np.broadcast_to((np.arange(T) % 24 / 24)[:, None, None], (T, 9, 1))


def long_table(**values: np.ndarray) -> pd.DataFrame:
    """A row for each time and sensor."""
    keys = {"time": np.repeat(TIMES, 9), "sensor": np.tile(IDS, T)}
    return pd.DataFrame(keys | {name: array.ravel() for name, array in values.items()})


def write_texts() -> None:
    """Tables of text."""
    WIDE.to_csv("speeds.csv", index_label="time")
    text = Path("speeds.csv").read_bytes()
    Path("speeds.csv.zst").write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    WIDE.to_csv("verbrauch.csv", index_label="Zeit", sep=";", decimal=",")
    WIDE.to_csv("stationen.csv", index_label="Zeit in Köln", encoding="cp1252")
    WIDE.to_csv("us.csv", index_label="time", date_format="%m/%d/%Y %H:%M")
    WIDE.to_csv("counts.csv", index=False)
    WIDE.drop(TIMES[5]).to_csv("holes.csv", index_label="time")
    WIDE.set_index(TIMES.astype("datetime64[s]").astype("int64")).to_csv(
        "epoch.csv", index_label="time"
    )
    bins = pd.date_range("2025-10-14", periods=T, freq="5min") + pd.Timedelta(seconds=9)
    rows = [WIDE.set_index(bins) - 1, WIDE.set_index(bins + pd.Timedelta(seconds=77)) + 1]
    pd.concat(rows).sort_index().to_csv("logger.csv", index_label="time")
    autumn = pd.date_range("2025-10-26", periods=T, freq="h", tz="Europe/Berlin")
    WIDE.set_index(autumn.tz_localize(None)).to_csv("clock.csv", index_label="time")
    WIDE.assign(date=TIMES.strftime("%Y-%m-%d"), time=TIMES.strftime("%H:%M")).to_csv(
        "loop.csv", index=False
    )
    WIDE.assign(weekday=2, remark="dry").to_csv("remarks.csv", index_label="time")
    words = WIDE.astype(object)
    words.iloc[0, :3] = ["-", "M", -999]
    words.to_csv("rain.csv", index_label="time")
    units = pd.concat([pd.DataFrame("km/h", index=["UTC"], columns=IDS), WIDE.astype(object)])
    Path("station.csv").write_text("# A logger\n" + units.to_csv(index_label="time"))
    days = WIDE.set_index(pd.date_range("2025-01-01", periods=T)).T
    days.to_csv("cases.csv", index_label="place")
    (WIDE * 1_000_000 + 1).astype("int64").to_csv("meters.csv", index_label="time")
    long_table(value=SPEED).to_csv("long.csv", index=False)
    other = long_table(speed=SPEED, flow=FLOW).rename(columns={"time": "when", "sensor": "where"})
    other.to_csv("other.csv", index=False)
    twice = [long_table(value=SPEED + 1), long_table(value=SPEED - 1)]
    pd.concat(twice).to_csv("repeated.csv", index=False)
    levels = pd.concat({"speed": WIDE, "flow": WIDE * 2}, axis=1)
    levels.to_csv("levels.csv")
    levels.rename_axis(columns=["channel", "sensor"]).to_csv("named.csv")


def write_graphs() -> None:
    """Values known in advance, graphs, and features of the sensors."""
    known = long_table(load=SPEED, temperature=FLOW)
    known.to_csv("load.csv", index=False)
    later = known.assign(time=known["time"] + pd.Timedelta(hours=T)).drop(columns="load")
    later.to_csv("forecast.csv", index=False)
    pairs = [(a, b, abs(i - j) * 500.0) for i, a in enumerate(IDS) for j, b in enumerate(IDS)]
    pd.DataFrame(pairs, columns=["from", "to", "cost"]).to_csv("distances.csv", index=False)
    pd.DataFrame(pairs, columns=["from", "to", "m"]).to_csv("metres.csv", index=False)
    roads = pd.DataFrame({"src": IDS[:-1], "dst": IDS[1:], "w": 1.0})
    roads.to_csv("roads.csv", index=False)
    roads.set_axis(["from", "to", "weight"], axis=1).to_csv("edges.csv", index=False)
    places = {"latitude": 52 + np.arange(9) / 50, "longitude": 13.0, "lanes": [1, 2, 3] * 3}
    pd.DataFrame({"id": IDS, **places}).to_csv("stations.csv", index=False)
    nx.write_graphml(nx.path_graph(IDS), "net.graphml")
    Path("adj_mx.pkl").write_bytes(
        pickle.dumps([IDS, dict(zip(IDS, range(9), strict=True)), np.eye(9, k=1)])
    )


def write_folders() -> None:
    """Several files of a series, and directories that are one source."""
    for folder in ("readings", "stations", "METR-LA", "PEMS08"):
        Path(folder).mkdir()
    WIDE[:24].to_csv("readings/monday.csv", index_label="time")
    WIDE[24:].to_csv("readings/tuesday.csv", index_label="time")
    WIDE.to_csv("speed.csv", index_label="time")
    (WIDE * 2).to_csv("flow.csv", index_label="time")
    clock = {name: getattr(TIMES, name) for name in ("year", "month", "day", "hour")}
    for place, name in enumerate(IDS):
        columns = {"pm25": SPEED[:, place], "temp": FLOW[:, place]}
        pd.DataFrame(columns, index=TIMES).to_csv(f"stations/{name}.csv", index_label="time")
        prsa = pd.DataFrame({"No": np.arange(T) + 1, **clock, "station": name})
        prsa = prsa.assign(**{"PM2.5": SPEED[:, place], "TEMP": FLOW[:, place], "wd": "NW"})
        prsa.to_csv(f"PRSA_{name}.csv", index=False)
    full = np.concatenate([SPEED[..., None], CLOCK], axis=2)
    x, y = (np.stack([full[at : at + 6] for at in range(first, 37 + first)]) for first in (0, 6))
    np.savez("train.npz", x=x, y=y)
    for split, rows in (("train", slice(20)), ("val", slice(20, 28)), ("test", slice(28, None))):
        np.savez(f"METR-LA/{split}.npz", x=x[rows], y=y[rows])
    Path("PEMS08/data.dat").write_bytes(SPEED.astype("float32").tobytes())
    described = {"shape": [T, 9, 1], "frequency (minutes)": 60, "feature_description": ["flow"]}
    described |= {"regular_settings": {"null_val": float("nan")}}
    Path("PEMS08/desc.json").write_text(json.dumps(described))


def write_arrays() -> None:
    """Arrays, labelled or not."""
    xr = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("tables", reason="PyTables is not installed")
    WIDE.to_parquet("speeds.parquet")
    np.save("a.npy", SPEED)
    np.save("rows.npy", SPEED.T)
    np.save("axes.npy", BOTH.transpose(1, 0, 2))
    np.savez("grid.npz", a=SPEED.reshape(T, 3, 3), lat=np.arange(3.0), lon=np.arange(3.0))
    np.savez("several.npz", speed=SPEED, flow=FLOW)
    scipy.io.savemat("speeds.mat", {"speed": SPEED})
    scipy.io.savemat("tensor.mat", {"tensor": SPEED.T.reshape(9, 2, 24)})
    WIDE.to_hdf("metr-la.h5", key="df")
    WIDE.to_hdf("small36.h5", key="pm25")
    places = {"latitude": 52 + np.arange(9) / 50, "longitude": 13.0 + np.arange(9) ** 2 / 99}
    pd.DataFrame(places, index=IDS).to_hdf("small36.h5", key="stations")
    content = {"edges": [[0, 1]], "node_ids": {name: at for at, name in enumerate(IDS)}}
    Path("chickenpox.json").write_text(json.dumps({**content, "FX": SPEED.tolist()}))
    grid = {"time": TIMES, "latitude": np.arange(3.0), "longitude": np.arange(3.0)}
    cells = {"t2m": SPEED, "tp": FLOW}
    dataset = xr.Dataset(
        {name: (tuple(grid), array.reshape(T, 3, 3)) for name, array in cells.items()}, grid
    )
    dataset.to_netcdf("era5.nc")
    dataset.to_zarr("era5.zarr", zarr_format=2)
    xr.Dataset({"v": (("d0", "d1", "d2"), SPEED.reshape(T, 3, 3))}).to_netcdf("dims.nc")


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file of each name that the page uses."""
    directory = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for write in (write_texts, write_graphs, write_folders, write_arrays):
            write()
    return directory


TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = [
    command
    for command in dict.fromkeys(re.findall(r"`pgti (ingest [^`]+)`", TEXT))
    if not any(place in command for place in ELSEWHERE)
]
HOLES = np.where(np.arange(T)[:, None] == 5, np.nan, SPEED)
FIRST_MISSING = SPEED.copy()
FIRST_MISSING[0, :3] = np.nan
EXPECTED = {  # where it is not SPEED
    "rain.csv": FIRST_MISSING,
    "holes.csv": HOLES,
    "meters.csv": SPEED * 1_000_000 + 1,
    **dict.fromkeys(("other.csv", "load.csv", "stations/*.csv", "PRSA*.csv", "speed.csv"), BOTH),
    **dict.fromkeys(("axes.npy", "several.npz", "named.csv", "levels.csv", "era5.nc"), BOTH),
}


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 50


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The store has the readings of the file, each in its place."""
    monkeypatch.chdir(files)
    words = shlex.split(command)
    found = [sorted(glob.glob(word)) if "*" in word else [word] for word in words]  # noqa: PTH207
    target = tmp_path / "store"
    assert run_command([*chain(*found), "--out", str(target)]) == 0
    store = pgti.SeriesStore.open(target)
    expected = EXPECTED.get(words[1], SPEED).reshape(T, 9, -1)
    np.testing.assert_allclose(store.read(0, store.meta.num_steps), expected, rtol=1e-7)
    has_graph = words[1] == "chickenpox.json" or not {"--graph", "--neighbours"}.isdisjoint(words)
    assert (store.meta.num_edges > 0) is has_graph
