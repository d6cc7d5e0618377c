"""Valid inputs of every reader, each with the commands that read it."""

import gzip
import itertools
import json
import lzma
import os
import pickle
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import scipy.io
import scipy.sparse as sp
import xarray as xr

from pgti.cli.main import run_command
from pgti.errors import name_flags, option
from pgti.ingestion import append, ingest
from pgti.store import SeriesStore

from ..ingestion.layouts import FLOW, IDS, SPEED, frame, long_frame

__all__ = ["READERS", "READINGS", "Seed", "read_corpus", "write_corpus"]

Command = tuple[str, ...]
READINGS = "readings.npy"  # of a seed whose files have checksums


@dataclass(frozen=True)
class Source:
    """A valid input.

    Attributes:
        name: what it is.
        write: writes its files into a directory.
        commands: command lines that read it, of which each input takes one; the files are in the
            directory `in`, and what is written belongs into `out`.
        kept: names of files, or of directories of files, that are not damaged.
        is_whole: whether no change of its bytes can be read as something else, because the format
            has checksums.
    """

    name: str
    write: Callable[[Path], Any]
    commands: tuple[Command, ...]
    kept: tuple[str, ...] = ()
    is_whole: bool = False


@dataclass(frozen=True)
class Seed:
    """A valid input on the disk: see `Source`.

    Attributes:
        directory: has its files in the directory `in`.
    """

    directory: Path
    name: str
    commands: tuple[Command, ...]
    kept: tuple[str, ...]
    is_whole: bool

    @property
    def peer(self) -> Callable[[Path], np.ndarray] | None:
        """Another library's reading of its one file: values [T, N]."""
        return _PEERS.get(self.name)


def _floats_of(table: Any) -> np.ndarray:
    """Columns of numbers: pandas' index may be among the columns, or not."""
    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_decimal)
    kept = [column for column in table.columns if any(each(column.type) for each in kinds)]
    return np.stack([column.to_pandas().astype(np.float64) for column in kept])


_PEERS: dict[str, Callable[[Path], np.ndarray]] = {
    "comma, ISO times": lambda path: pd.read_csv(path, index_col=0).to_numpy(),
    "tabs": lambda path: pd.read_csv(path, index_col=0, sep="\t").to_numpy(),
    "long, in order of time": lambda path: pd.read_csv(path)["value"].to_numpy(),
    ".npy [T, N]": np.load,
    ".npy [T, N, C]": np.load,
    "MATLAB 5": lambda path: scipy.io.loadmat(path)["speed"],
    "NetCDF 4 of stations": lambda path: xr.load_dataset(path, engine="h5netcdf").speed.to_numpy(),
    "NetCDF 3": lambda path: xr.load_dataset(path, engine="scipy").speed.to_numpy(),
    "Parquet, wide": lambda path: _floats_of(pq.read_table(path)),
    "Parquet, long": lambda path: _floats_of(pq.read_table(path)),
    "Feather, wide": lambda path: _floats_of(pyarrow.feather.read_table(path)),
}


# -- readings -------------------------------------------------------------------------------------

_GROUPS = {
    ".tsv": "text", ".csv": "text", ".txt": "text", ".dyna": "text", ".gz": "compressed",
    ".bz2": "compressed", ".zst": "compressed", ".xz": "compressed", ".zip": "compressed",
    ".parquet": "parquet", ".feather": "feather", ".npy": "npy", ".npz": "npz", ".h5": "hdf5",
    ".mat": "matlab", ".nc": "netcdf", ".zarr": "zarr", ".dat": "basicts",
}  # fmt: skip
_WHOLE = (".gz", ".bz2", ".xz", ".zip", ".npz")


def _flags(options: Mapping[str, Any]) -> list[str]:
    with name_flags():
        texts = [option(name, value) for name, value in options.items()]
    return [token for text in texts for token in shlex.split(text)]


def _of_layouts(directory: Path) -> Iterable[tuple[str, Source]]:
    """The layouts of the tests of readers that are files, by reader."""
    # Polars starts threads when it is imported, which a process that forks must not have.
    from ..ingestion.test_layouts import LAYOUTS  # noqa: PLC0415

    for number, (name, layout) in enumerate(LAYOUTS.items()):
        place = directory / str(number)
        place.mkdir()
        made = layout.make(place)
        paths = made if isinstance(made, list) else [made]
        if not all(isinstance(path, Path) for path in paths):
            continue
        if any(isinstance(value, np.ndarray) for value in layout.options.values()):
            continue
        files = [f"in/{path.name}" for path in paths]
        command = ("ingest", *files, "--out", "out/store", *_flags(layout.options))
        group = _GROUPS[paths[0].suffix]
        if group == "text" and name.startswith("long"):
            group = "long text"
        is_whole = all(path.suffix in _WHOLE for path in paths)
        yield group, Source(name, layout.make, (command,), is_whole=is_whole)


def _reader(name: str, content: bytes | str, *flags: str, graph: bool = False) -> Source:
    """A file of readings, or of a graph of the sensors north, south and west."""
    content = content.encode() if isinstance(content, str) else content

    def write(directory: Path) -> None:
        (directory / name).write_bytes(content)
        frame().to_csv(directory / "readings.csv")

    command = ("ingest", f"in/{name}", "--out", "out/store", *flags)
    if graph:
        command = ("ingest", "in/readings.csv", "--out", "out/store", f"--graph=in/{name}")
    return Source(f"{name} {' '.join(flags)}", write, ((*command, *flags),), kept=("readings.csv",))


MATRIX = np.array([[0.5, 0.25, 0], [0, 0, 0.75], [1, 0, 0]], dtype=np.float32)
ROWS = SPEED[:4].round().tolist()
_NODES = dict(zip(IDS, range(3), strict=True))
_JSON = (
    {"edges": [[0, 1], [1, 2]], "node_ids": _NODES, "FX": FLOW.tolist()},
    {"edges": [[0, 1], [2, 0]], "weights": [0.5, 2.0], "X": FLOW.tolist()},
    {
        "nodes": [{"id": name, "y": FLOW[:, place].tolist()} for name, place in _NODES.items()],
        "links": [{"source": "north", "target": "west", "weight": 172.5}],
    },
    {
        "time_periods": 3,
        "node_ids": _NODES,
        "edges": [[0, 1], [2, 0]],
        "weights": [1, 3],
        **{
            str(row): {
                "index": row,
                "year": 2019,
                "month": 3,
                "day": 29 + row,
                "y": [1.0, 2.0, row],
            }
            for row in range(3)
        },
    },
    {
        **{
            str(node): {str(row): f"({node}.5, {row}, -1e-1)" for row in range(4)}
            for node in range(3)
        },
        "edges": [[0, 1], [1, 2]],
        "LABEL": [0, 0, 1, 1],
    },
)


def _readings() -> Iterable[tuple[str, Source]]:
    """Readers that the layouts have not."""
    for number, content in enumerate(_JSON):
        yield "json", _reader(f"{number}.json", json.dumps(content))
    yield "compressed", _reader("a.json.gz", gzip.compress(json.dumps(_JSON[0]).encode()))
    xz = _reader("a.csv.xz", lzma.compress(frame().to_csv().encode()))
    yield "compressed", Source(xz.name, xz.write, xz.commands, xz.kept, is_whole=True)
    yield "covariates", _static()
    yield "covariates", _future()


def _static() -> Source:
    table = pd.DataFrame({
        "id": IDS, "lat": [34.0, 34.1, 34.2], "lon": [-118.0, -118.1, -118.2],
        "lanes": [2, 3, 4], "kind": ["x", "y", "x"],
    })  # fmt: skip

    def write(directory: Path) -> None:
        frame().to_csv(directory / "readings.csv")
        table.to_csv(directory / "static.csv", index=False)

    command = ("ingest", "in/readings.csv", "--out", "out/store", "--static=in/static.csv")
    return Source("static.csv", write, (command,), kept=("readings.csv",))


def _future() -> Source:
    def write(directory: Path) -> None:
        long_frame(flow=FLOW, rain=FLOW / 8).to_csv(directory / "readings.csv", index=False)
        later = long_frame(rain=FLOW / 4)
        later["time"] += pd.Timedelta("12h")
        later.to_csv(directory / "future.csv", index=False)

    command = ("ingest", "in/readings.csv", "--out", "out/store", "--future=in/future.csv")
    return Source("future.csv", write, ((*command, "--known-future=rain"),), kept=("readings.csv",))


# -- graphs ---------------------------------------------------------------------------------------


def _saved(save: Callable[[Path], None], name: str, directory: Path) -> tuple[str, bytes]:
    save(directory / name)
    return name, (directory / name).read_bytes()


def _network() -> nx.DiGraph:
    graph = nx.DiGraph()
    for place, name in enumerate(IDS):
        graph.add_node(name, lat=34.0 + place / 10, lon=-118.0)
    graph.add_edge("north", "south", weight=0.5)
    graph.add_edge("south", "west", weight=0.25)
    return graph


def _graphs(directory: Path) -> Iterable[tuple[str, Source]]:
    csr = sp.csr_array(MATRIX)
    positions = dict(zip(IDS, range(3), strict=True))
    for protocol in range(6):
        content = pickle.dumps((list(IDS), positions, MATRIX), protocol=protocol)
        yield "graph pickle", _reader(f"adj{protocol}.pkl", content, graph=True)
    yield "graph pickle", _reader("matrix.pkl", pickle.dumps(MATRIX), graph=True)
    index = np.array([[0, 1, 2, 2], [1, 2, 0, 1]])
    edges = {"edge_index": index, "edge_weight": np.ones(4)}
    arrays: dict[str, Callable[[Path], Any]] = {
        "dense.npy": lambda path: np.save(path, MATRIX),
        "edges.npy": lambda path: np.save(path, index),
        "dense.npz": lambda path: np.savez(path, adj=MATRIX),
        "index.npz": lambda path: np.savez(path, **edges),
        "scipy.npz": lambda path: sp.save_npz(path, csr),
        "coo.npz": lambda path: sp.save_npz(path, sp.coo_array(MATRIX)),
        "places.npz": lambda path: np.savez(path, lat=np.arange(3.0), lon=np.arange(3.0)),
        "a.mtx": lambda path: scipy.io.mmwrite(path, csr),
        "symmetric.mtx": lambda path: scipy.io.mmwrite(path, sp.csr_array(MATRIX + MATRIX.T)),
        "a.graphml": lambda path: nx.write_graphml(_network(), path),
        "a.gml": lambda path: nx.write_gml(_network(), path),
    }
    for name, save in arrays.items():
        neighbours = ("--neighbours=1",) if name == "places.npz" else ()
        _, content = _saved(save, name, directory)
        group = {".mtx": "graph matrix market"}.get(Path(name).suffix, "graph arrays")
        group = "graph network" if name.endswith("ml") else group
        yield group, _reader(name, content, *neighbours, graph=True)
    yield from _graph_tables()


def _graph_tables() -> Iterable[tuple[str, Source]]:
    near = ("--neighbours=1",)
    points = [
        {
            "type": "Feature",
            "properties": {"id": name},
            "geometry": {"type": "Point", "coordinates": [-118.0, 34.0 + place / 10]},
        }
        for place, name in enumerate(IDS)
    ]
    titled = "\n".join([",".join(["", *IDS]), *(
        ",".join([IDS[place], *map(str, row)]) for place, row in enumerate(MATRIX)
    )])  # fmt: skip
    tables: dict[str, tuple[str, tuple[str, ...]]] = {
        "distances.csv": (
            "from,to,cost\nnorth,south,352.6\nsouth,west,1008.9\nwest,north,57.1\n",
            (),
        ),
        "edges.csv": ("from,to,weight\nnorth,south,0.5\nsouth,west,0.25\n", ()),
        "positions.txt": ("0 1 0.5\n1 2 0.25\n2 0 1\n", ()),
        "named.csv": ("lanes,a,b,v\n3,north,south,.5\n2,south,west,.25\n", ("--edges=a,b,v",)),
        "titled.csv": (titled, ()),
        "a.rel": ("rel_id,type,origin_id,destination_id,cost\n0,geo,north,south,0.5\n", ()),
        "a.geo": (
            'geo_id,type,coordinates\nnorth,Point,"[-118.0, 34.0]"\nsouth,Point,"[-118.1, 34.1]"\n'
            'west,Point,"[-118.2, 34.2]"\n',
            near,
        ),
        "places.csv": ("id,lat,lon\nnorth,34,-118\nsouth,34.1,-118\nwest,34.2,-118\n", near),
        "a.geojson": (json.dumps({"type": "FeatureCollection", "features": points}), near),
    }
    for name, (text, flags) in tables.items():
        group = "geojson" if name == "a.geojson" else "graph tables"
        yield group, _reader(name, text, *flags, graph=True)


# -- stores, options and runs ---------------------------------------------------------------------

_TINY = (
    "--model.hidden=2", "--model.layers=1", "--windows.input-steps=3", "--windows.horizon=2",
    "--max-steps=1", "--val-windows=3", "--batch-size=4", "--device=cpu", "--quiet",
)  # fmt: skip
_CONFIG = """
batching = "index"
device = "cpu"
memory_budget = "1GiB"

[windows]
input_steps = 3
horizon = 2
calendar = ["time-of-day", "day-of-week"]
fractions = [0.6, 0.2, 0.2]

[model]
name = "dcrnn"
hidden = 2
layers = 1

[training]
epochs = 1
batch_size = 4
learning_rate = 0.01
max_steps = 1
seed = 3

[training.schedule]
kind = "multistep"
milestones = [1]
factor = 0.5

[training.loss]
kind = "huber"
delta = 1.0

[training.order]
kind = "blocks"
block_size = 2
"""
_SPACE = """
[learning_rate]
low = 1e-4
high = 1e-2
log = true

[model.hidden]
low = 1
high = 4
step = 1

[batch_size]
choices = [2, 4]

[loss]
choices = ["mae", {kind = "huber", delta = 2.0}]
"""


def _store(directory: Path, kind: str) -> None:
    """A store with all parts that there are, or of one kind."""
    source, target = directory.parent / f"{directory.name}-{kind}.csv", directory / "store"
    times = pd.date_range("2024-03-13", periods=40, freq="h")
    flow = np.arange(120.0).reshape(40, 3)
    table = pd.DataFrame({"time": np.repeat(times, 3), "sensor": list(IDS) * 40})
    table["flow"], table["rain"] = flow.ravel(), flow.ravel() / 8
    if kind == "irregular":
        table = table[~table["time"].isin(times[[5, 6, 17]])]
    table.loc[7, "flow"] = np.nan
    if kind == "covariates":
        table.loc[table.index[-9:], "flow"] = np.nan
    table.to_csv(source, index=False)
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "irregular": {"gaps": "keep"},
        "exact": {"exact": True},
        "covariates": {
            "known_future": ("rain",),
            "static": pd.DataFrame({"id": IDS, "lanes": [1.0, 2.0, np.nan], "kind": list("xyx")}),
        },
    }
    ingest(source, target, graph=MATRIX, **options[kind])
    if kind == "plain":  # a second generation
        table["flow"] += 1
        table.to_csv(source, index=False)
        append(SeriesStore.open(target), source, correct=True)
    newer = table.iloc[-6:].assign(time=table["time"].iloc[-6:] + pd.Timedelta("2h"))
    newer.to_csv(directory / "newer.csv", index=False)
    source.unlink()


def _stores() -> Iterable[tuple[str, Source]]:
    commands = (
        ("info", "in/store", "--verify"),
        ("info", "in/store", "--verify"),
        ("append", "in/store", "in/newer.csv"),
        ("train", "in/store", "--run=out/run", *_TINY),
    )
    for kind in ("plain", "irregular", "exact", "covariates"):

        def write(directory: Path, kind: str = kind) -> None:
            _store(directory, kind)

        yield "store", Source(kind, write, commands, kept=("newer.csv",), is_whole=True)
    append = (("append", "in/store", "in/newer.csv"),)
    yield "append", Source("newer.csv", lambda path: _store(path, "plain"), append, kept=("store",))


def _options(directory: Path) -> None:
    _store(directory, "plain")
    (directory / "run.toml").write_text(_CONFIG)
    (directory / "space.toml").write_text(_SPACE)


def _run(directory: Path) -> None:
    _store(directory, "plain")
    _command("train", directory / "store", f"--run={directory / 'run'}", *_TINY)
    _command("evaluate", directory / "run", "--intervals=0.8", "--quiet")


def _command(*tokens: object) -> None:
    assert run_command([str(token) for token in tokens]) == 0


def _trainings() -> Iterable[tuple[str, Source]]:
    train = ("train", "in/store", "--run=out/run", "--config=in/run.toml", "--max-steps=1")
    small = (*train, "--epochs=1", "--test-windows=2", "--val-windows=2", "--quiet")
    yield (
        "options",
        Source("run.toml", _options, (small,), kept=("store", "newer.csv", "space.toml")),
    )
    tune = (
        "tune",
        "in/store",
        "--space=in/space.toml",
        "--out=out/search",
        "--trials=1",
        *_TINY,
    )
    yield "space", Source("space.toml", _options, (tune,), kept=("store", "newer.csv", "run.toml"))
    runs = (
        ("report", "in/run", "--out=out/report.html", "--store=in/store"),
        ("evaluate", "in/run", "--windows=2", "--store=in/store"),
        ("evaluate", "in/run", "--windows=2", "--intervals=0.8", "--store=in/store"),
        ("predict", "in/run", "--out=out/forecast.csv", "--store=in/store"),
        ("predict", "in/run", "--readings=in/newer.csv", "--out=out/f.csv", "--store=out/none"),
        ("train", "in/store", "--run=in/run", "--resume", "--max-steps=1", "--quiet"),
    )
    yield "run", Source("run", _run, runs, kept=("store", "newer.csv", "checkpoints"))


READERS = (
    "text", "long text", "compressed", "parquet", "feather", "npy", "npz", "hdf5", "matlab",
    "netcdf", "zarr", "basicts", "json", "covariates", "graph pickle", "graph arrays",
    "graph matrix market", "graph network", "graph tables", "geojson", "store", "append",
    "options", "space", "run",
)  # fmt: skip


def write_corpus(directory: Path, readers: Collection[str]) -> None:
    """Write the files of seeds into `directory/READER/NUMBER`, and `seeds.json`."""
    scratch = directory / "scratch"
    scratch.mkdir(parents=True)
    described: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    sources = (_of_layouts(scratch), _readings(), _graphs(scratch), _stores(), _trainings())
    for reader, source in itertools.chain(*sources):
        if reader not in readers:
            continue
        place = directory / reader / str(len(described[reader]))
        (place / "in").mkdir(parents=True)
        source.write(place / "in")
        if source.is_whole and source.commands[0][0] == "ingest":
            np.save(place / READINGS, _readings_of(source.commands[0], place))
        plain = {"name": source.name, "commands": source.commands, "kept": source.kept}
        described[reader].append({**plain, "directory": str(place), "is_whole": source.is_whole})
    assert set(described) == set(readers)
    (directory / "seeds.json").write_text(json.dumps(described))


def _readings_of(command: Command, place: Path) -> np.ndarray:
    """What a store has that is made of a seed; nothing where the seed is refused."""
    os.chdir(place)
    if run_command([*command, "--quiet"]) != 0:
        return np.empty(0)
    store = SeriesStore.open(place / "out" / "store")
    return store.read(0, store.meta.num_steps)


def read_corpus(directory: Path) -> dict[str, list[Seed]]:
    """The seeds of each reader, as `write_corpus` wrote them."""
    described = json.loads((directory / "seeds.json").read_text())
    return {
        reader: [
            Seed(
                directory=Path(each["directory"]),
                name=each["name"],
                commands=tuple(map(tuple, each["commands"])),
                kept=tuple(each["kept"]),
                is_whole=each["is_whole"],
            )
            for each in seeds
        ]
        for reader, seeds in described.items()
    }
