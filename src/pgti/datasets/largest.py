"""LargeST: tables of flows by year, as published, as its notebooks leave them, or as they train."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from pgti.datasets.dataset import Dataset, FileSet, Prepared, Request
from pgti.datasets.flow import ZERO_FLOW_NOTE
from pgti.datasets.protocol import Protocol
from pgti.datasets.steps import (
    average_intervals,
    concatenate,
    mask_zeros,
    select_nodes,
    unstandardize,
)
from pgti.errors import ConfigError, DataError, option
from pgti.graph import SensorGraph
from pgti.ingestion import IngestOptions, Readings, open_readings
from pgti.ingestion.arrays.npy import read_header
from pgti.ingestion.instants import parse_interval
from pgti.ingestion.readings import reraise_read_errors

__all__ = ["LARGEST_DATASETS"]

_LARGEST = "https://www.kaggle.com/datasets/liuxu77/largest"

_DISTRICTS = {"LargeST-GLA": (7, 8, 12), "LargeST-GBA": (4,), "LargeST-SD": (11,)}
_NUMBERS = ("Lat", "Lng", "District", "ID2")
_COLUMNS = ("ID", *_NUMBERS)
_RAW_SECONDS = 300
_BLOCK_ROWS = 256  # of a dense matrix: 9 MB of all California
_DAY = np.timedelta64(1, "D")


def read_largest_raw(request: Request) -> Prepared:
    """The published files: 5-minute counts of all sensors, the table of sensors, and a matrix.

    As in the authors' notebooks, counts are averaged over 15 minutes and rounded, a part of the
    state is the sensors of its districts, and `ID2` is a sensor's place in the matrix.
    """
    *tables, meta, matrix = request.paths.values()
    options = request.options()
    readings = _open_tables(tables, request)
    positions, sensors = _select_district(readings, _read_sensors(meta), request.dataset.name)
    if len(positions) != readings.num_nodes:
        readings = select_nodes(readings, positions, tuple(sensors.index))
    seconds = parse_interval(request.interval)
    if seconds != _RAW_SECONDS:
        readings = average_intervals(readings, seconds)
    graph = _read_graph(
        matrix,
        sensors["ID2"].to_numpy(dtype=np.int64),
        sensors[["Lat", "Lng"]].to_numpy(dtype=np.float64),
    )
    return _prepare(readings, request, options, graph)


def read_largest_table(request: Request) -> Prepared:
    """What the authors' notebooks write: a table of one part of the state, and its matrix."""
    *tables, matrix = request.paths.values()
    _check_interval(request)
    readings = _open_tables(tables, request)
    graph = _read_graph(matrix, np.arange(readings.num_nodes), None)
    return _prepare(readings, request, request.options(), graph)


def read_largest_array(request: Request) -> Prepared:
    """What the authors train on: `his.npz`, with standardised flows and no dates or ids."""
    array, matrix = request.paths.values()
    _check_interval(request)
    opened = open_readings(array, IngestOptions(values=("data",)), has_graph=True)
    with (
        reraise_read_errors(array.name, "an npz archive"),
        np.load(array, allow_pickle=False) as archive,
    ):
        mean, deviation = (float(archive[key]) for key in ("mean", "std"))
    interval = _find_interval(opened, request.years)
    start = f"{request.years[0]}-01-01T00:00"
    options = request.options(interval=interval, start=start)
    graph = _read_graph(matrix, np.arange(opened.num_nodes), None)
    return _prepare(unstandardize(opened, mean, deviation), request, options, graph)


def _open_tables(paths: list[Path], request: Request) -> Readings:
    parts = [open_readings(path, IngestOptions(), has_graph=True) for path in paths]
    return concatenate(parts, request.dataset.name)


def _prepare(
    readings: Readings, request: Request, options: IngestOptions, graph: SensorGraph
) -> Prepared:
    if request.zeros_missing:
        readings = mask_zeros(readings)
    return Prepared(readings=readings, options=options, graph=graph)


def _check_interval(request: Request) -> None:
    if request.interval != request.dataset.interval:
        raise ConfigError(
            f"interval is {request.interval} and the files found are preprocessed: "
            f"leave {option('interval')} out, or give the published ca_his_raw_YEAR.h5"
        )


def _find_interval(readings: Readings, years: tuple[int, ...]) -> str:
    """The time between rows that fill whole years."""
    first, last = (np.datetime64(f"{year}-01-01") for year in (years[0], years[-1] + 1))
    days = int((last - first) / _DAY)
    for interval, per_day in (("15min", 96), ("5min", 288)):
        if readings.num_rows == days * per_day:
            return interval
    raise DataError(
        f"{readings.name} has {readings.num_rows} rows and {' to '.join(map(str, years))} has "
        f"{days * 96} quarters of an hour: name the years that it covers with {option('years')}"
    )


def _read_sensors(path: Path) -> pd.DataFrame:
    """The table of sensors, by their ids."""
    try:
        sensors = pd.read_csv(path, dtype={"ID": str})
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise DataError(f"{path.name} cannot be read as a table: {str(error)[:200]}") from error
    absent = [column for column in _COLUMNS if column not in sensors]
    if absent:
        raise DataError(
            f"{path.name} has no column {absent[0]}: it has {', '.join(map(str, sensors))}"
        )
    if sensors["ID"].duplicated().any():
        raise DataError(f"{path.name} has a sensor twice: each must occur once")
    sensors = sensors.set_index("ID")
    for column in _NUMBERS:
        numbers = pd.to_numeric(sensors[column], errors="coerce")
        wrong = sensors.index[numbers.isna()]
        if len(wrong):
            raise DataError(
                f"{path.name} has {column} {sensors[column][wrong[0]]} for sensor {wrong[0]}: it "
                "must be a number"
            )
        sensors[column] = numbers
    return sensors


def _select_district(
    readings: Readings, sensors: pd.DataFrame, name: str
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Columns of the sensors of a data set's districts, and their rows of the table."""
    ids = readings.node_ids or ()
    unknown = [label for label in ids if label not in sensors.index]
    if unknown or not ids:
        raise DataError(
            f"ca_meta.csv lacks {len(unknown)} of the {len(ids)} sensors of {name} "
            f"({', '.join(unknown[:3])}): the files must be of one publication"
        )
    known = sensors.loc[list(ids)]
    districts = _DISTRICTS.get(name)
    inside = np.ones(len(ids), dtype=bool)
    if districts is not None:
        inside = known["District"].isin(districts).to_numpy()
    if not inside.any():
        raise DataError(f"ca_meta.csv has no sensor of the districts of {name}: {districts}")
    positions = np.flatnonzero(inside).astype(np.int64)
    return positions, known.iloc[positions]


def _read_graph(
    path: Path, rows: NDArray[np.int64], latlon: NDArray[np.float64] | None
) -> SensorGraph:
    """The graph of some rows and columns of a dense matrix, which is read in blocks."""
    name = path.name
    with reraise_read_errors(name, "a NumPy array"):
        with path.open("rb") as file:
            header = read_header(file)
        header.check_size(name, path.stat().st_size)
        size = header.shape[0]
        if header.shape != (size, size) or header.dtype.kind not in "iuf":
            raise DataError(f"{name} is {header.dtype} {header.shape}: a square matrix is expected")
        if rows.min() < 0 or rows.max() >= size or (latlon is None and len(rows) != size):
            raise DataError(
                f"{name} has {size} rows and there are {len(rows)} sensors, the last in row "
                f"{rows.max()}: the files must be of one publication"
            )
        matrix: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        blocks = [
            sp.csr_array(np.asarray(matrix[rows[first : first + _BLOCK_ROWS]])[:, rows])
            for first in range(0, len(rows), _BLOCK_ROWS)
        ]
    return SensorGraph(adjacency=sp.csr_array(sp.vstack(blocks)), coordinates=latlon)


_PROTOCOL = Protocol(
    source="Liu et al., LargeST, NeurIPS 2023, and its generate_data_for_training.py",
    fractions=(0.6, 0.2, 0.2),
    num_windows=(21_010, 7_003, 7_004),
    num_steps=35_040,
    inputs=("flow",),
    targets=("flow",),
    calendar=("time-of-day", "day-of-week"),
    zeros="a flow of 0 counts in neither loss nor errors",
)

LARGEST_DATASETS = tuple(
    Dataset(
        name=f"LargeST-{stem.upper()}",
        summary=f"flows at {num_nodes:,} PeMS stations of {place}, 2017 to 2021",
        num_steps=35_040,
        num_nodes=num_nodes,
        channels=("flow",),
        units=("vehicles per 5 min",),
        interval="15min",
        start="2019-01-01T00:00",
        zeros="missing",
        licence="CC BY-NC 4.0",
        source_page=_LARGEST,
        file_sets=(
            FileSet(
                recipe=read_largest_raw,
                files=("ca_his_raw_{year}.h5", "ca_meta.csv", "ca_rn_adj.npy"),
                archives=("archive.zip", "largest.zip"),
            ),
            FileSet(
                recipe=read_largest_table,
                files=(f"{stem}_his_{{year}}.h5", f"{stem}_rn_adj.npy"),
            ),
            FileSet(recipe=read_largest_array, files=("{years}/his.npz", f"{stem}_rn_adj.npy")),
        ),
        years=(2017, 2018, 2019, 2020, 2021),
        default_years=(2019,),
        zeros_note=ZERO_FLOW_NOTE,
        notes=(
            "at 15min flows are means of three 5-minute counts, rounded as its authors do; "
            "the option interval = 5min takes the counts themselves",
        ),
        protocol=_PROTOCOL,
    )
    for stem, num_nodes, place in (
        ("ca", 8_600, "all of California"),
        ("gla", 3_834, "Greater Los Angeles, districts 7, 8 and 12"),
        ("gba", 2_352, "the Greater Bay Area, district 4"),
        ("sd", 716, "San Diego, district 11"),
    )
)
"""LargeST: all of California and its three parts."""
