"""Time how long it takes to append one row to a store, whatever its length.

The goal is less than 50 ms for 11,160 sensors, and the same for a short store and a long one. The
stores are simulated and sparse (see `synthetic_stores`): the time does not depend on the values.
The rows that are appended are random speeds to one decimal. Appending flushes three files and a
directory to the disk; how long the disk takes for that alone is measured beside it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from pgti.cli.output import log, print_results
from pgti.errors import require_whole_number
from pgti.run.results import Machine, Spread, to_json
from pgti.store import SeriesStore
from pgti_bench.interleave import interleave
from pgti_bench.output import finish, number
from pgti_bench.paper_datasets import DatasetShape
from pgti_bench.synthetic_stores import SIMULATED_STEPS, scratch_directory, synthetic_store

__all__ = ["AppendResult", "append_command", "measure_append"]

_GOAL = 50.0
_GROWTH = 1.25  # that the longest store may take more than the shortest


@dataclass(frozen=True, kw_only=True, slots=True)
class AppendResult:
    """The result of `measure_append`.

    Attributes:
        machine: where it was measured.
        sensors: columns of the stores.
        milliseconds: of appending one row, by number of rows, then by contender.
        flush_milliseconds: of writing as many bytes as a row has to three files, one after the
            other, and flushing each to the disk.
        reaches_goal: whether opening and appending takes less than 50 ms at every length.
        grows: whether the longest store takes more than 1.25 times as long as the shortest.
    """

    machine: Machine
    sensors: int
    milliseconds: Mapping[int, Mapping[str, Spread]]
    flush_milliseconds: Spread
    reaches_goal: bool
    grows: bool


def measure_append(
    workdir: Path, *, sensors: int, rows: tuple[int, ...], rounds: int, commands: int
) -> AppendResult:
    """Measure appends of one row to stores of several lengths, interleaved.

    Args:
        workdir: where stores are written; they are not removed.
        sensors: columns of the stores.
        rows: their lengths.
        rounds: measurements of each contender in this process.
        commands: of the command.

    Raises:
        ConfigError: a number is less than 1.
    """
    require_whole_number("sensors", sensors, 1)
    for length in rows:
        require_whole_number("rows", length, 3)
    paths = {}
    for length in rows:
        shape = DatasetShape(
            name=f"rows-{length}",
            title="",
            num_steps=length,
            num_nodes=sensors,
            num_features=1,
            window_steps=12,
            is_sparse=length > 2 * SIMULATED_STEPS,
        )
        paths[length] = synthetic_store(shape, workdir, log=log).path
    appends: dict[str, Callable[[], float]] = {}
    runs: dict[str, Callable[[], float]] = {}
    for length, path in paths.items():
        appends[f"{length} open"] = lambda path=path: _open_and_append(path)  # type: ignore[misc]
        appends[f"{length} grown"] = _Grown(path)
        runs[f"{length} command"] = lambda path=path: _run(path, workdir)  # type: ignore[misc]
    appends["flush"] = lambda: _flush(workdir, sensors)
    seconds = interleave(appends, rounds) | interleave(runs, commands)
    spreads = {name: Spread.of([1e3 * each for each in times]) for name, times in seconds.items()}
    titles = {
        "open": "open and append, in a process",
        "grown": "append to the store that the last append returned",
        "command": "pgti append, a CSV file of one row",
    }
    opened = [spreads[f"{length} open"].median for length in rows]
    return AppendResult(
        machine=Machine.here(),
        sensors=sensors,
        milliseconds={
            length: {title: spreads[f"{length} {name}"] for name, title in titles.items()}
            for length in rows
        },
        flush_milliseconds=spreads["flush"],
        reaches_goal=max(opened) < _GOAL,
        grows=opened[rows.index(max(rows))] > _GROWTH * opened[rows.index(min(rows))],
    )


def _next_row(store: SeriesStore) -> pd.DataFrame:
    """A row of speeds at the next time of a store."""
    meta, axis = store.meta, store.time_axis
    times = pd.DatetimeIndex(axis.next_seconds(1).astype("datetime64[s]"))
    speeds = np.random.default_rng().integers(0, 900, (1, meta.num_nodes)) / 10
    return pd.DataFrame(speeds, index=times, columns=list(meta.node_ids))


def _open_and_append(path: Path) -> float:
    row = _next_row(SeriesStore.open(path, verify_up_to_bytes=0))
    began = time.perf_counter()
    SeriesStore.open(path, verify_up_to_bytes=0).append(row)
    return time.perf_counter() - began


class _Grown:
    """Appends to the store that the last append returned, or opens it if another has grown it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> float:
        store = SeriesStore.open(self._path, verify_up_to_bytes=0)
        store = store.append(_next_row(store))
        row = _next_row(store)
        began = time.perf_counter()
        store.append(row)
        return time.perf_counter() - began


def _run(path: Path, workdir: Path) -> float:
    file = workdir / "row.csv"
    _next_row(SeriesStore.open(path, verify_up_to_bytes=0)).to_csv(file)
    command = [sys.executable, "-m", "pgti", "append", str(path), str(file), "--json"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def _flush(workdir: Path, sensors: int) -> float:
    began = time.perf_counter()
    for place in range(3):
        with (workdir / f"flush-{place}").open("wb") as file:
            file.write(bytes(2 * sensors))
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - began


def append_command(
    *,
    sensors: int = 11_160,
    rows: tuple[int, ...] = (10_000, 105_120),
    rounds: int = 20,
    commands: int = 5,
    workdir: Path | None = None,
    json: bool = False,
) -> None:
    """Time how long it takes to append one row to stores of several lengths.

    Args:
        sensors: Columns of the stores.
        rows: Rows of the stores; the default is five weeks and a year of five-minute intervals.
        rounds: Measurements of each contender in this process.
        commands: Measurements of the command.
        workdir: Directory for temporary files.
        json: Print one JSON object on standard output, and no tables.
    """
    with scratch_directory(workdir) as scratch:
        result = measure_append(
            Path(scratch), sensors=sensors, rows=rows, rounds=rounds, commands=commands
        )
    goal = "reached" if result.reaches_goal else "not reached"
    table = Table(
        title=f"one row of {sensors:,} sensors; the goal of {_GOAL:.0f} ms is {goal}",
        title_justify="left",
    )
    table.add_column("ms")
    for length in result.milliseconds:
        table.add_column(f"{length:,} rows", justify="right")
    for name in next(iter(result.milliseconds.values())):
        spreads = [spreads[name] for spreads in result.milliseconds.values()]
        table.add_row(name, *(number(spread) for spread in spreads))
    table.add_row("flushing three files of a row", number(result.flush_milliseconds))
    print_results(to_json(result), table, as_json=json)
    finish("Append", result.machine, ())
