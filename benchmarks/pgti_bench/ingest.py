"""Time how fast a wide .npy file becomes a store.

The goal is at least 150 MB/s of source data, counted as float32, for 11,160 sensors. Two sources of
simulated speeds are measured, interleaved: on a grid of 0.1 mph, as sensors report them (stored as
int16), and on no grid (stored as float32). The reference is a copy of the file, flushed to disk as
a store is: what the machine allows. The source has just been written and is read from the page
cache if it fits there.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from pgti.cli.output import print_results
from pgti.datasets.simulated import SimulationOptions, simulated_chunks
from pgti.errors import require_whole_number
from pgti.ingestion import ingest
from pgti.run.results import Machine, Spread, to_json
from pgti_bench.interleave import interleave
from pgti_bench.output import finish, number
from pgti_bench.synthetic_stores import scratch_directory

__all__ = ["IngestResult", "ingest_command", "measure_ingest"]

_GOAL = 150.0


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestResult:
    """The result of `measure_ingest`.

    Attributes:
        machine: where it was measured.
        rows: time steps of the source.
        sensors: columns of the source.
        megabytes_per_second: of source data, by contender.
        reaches_goal: whether every ingest reads at least 150 MB/s.
    """

    machine: Machine
    rows: int
    sensors: int
    megabytes_per_second: Mapping[str, Spread]
    reaches_goal: bool


def measure_ingest(workdir: Path, *, sensors: int, rows: int, rounds: int) -> IngestResult:
    """Measure ingest of two simulated files and a copy of one, interleaved.

    Args:
        workdir: where files are written; they are not removed.
        sensors: columns of the files.
        rows: time steps of the files.
        rounds: measurements of each.

    Raises:
        ConfigError: a number is less than 1.
    """
    for name, value in (("sensors", sensors), ("rows", rows)):
        require_whole_number(name, value, 1)
    grid, free = workdir / "grid.npy", workdir / "free.npy"
    _write_sources(grid, free, sensors, rows)
    contenders: dict[str, Callable[[], float]] = {
        "ingest, grid of 0.1": lambda: _ingest_seconds(grid, workdir / "store"),
        "ingest, no grid": lambda: _ingest_seconds(free, workdir / "store"),
        "copy of the file": lambda: _copy_seconds(grid, workdir / "copy"),
    }
    num_bytes = 4 * sensors * rows
    speeds = {
        name: Spread.of([num_bytes / each / 1e6 for each in seconds])
        for name, seconds in interleave(contenders, rounds).items()
    }
    slowest = min(speed.median for name, speed in speeds.items() if name.startswith("ingest"))
    return IngestResult(
        machine=Machine.here(),
        rows=rows,
        sensors=sensors,
        megabytes_per_second=speeds,
        reaches_goal=slowest >= _GOAL,
    )


def _write_sources(grid: Path, free: Path, num_sensors: int, num_rows: int) -> None:
    """Write the same simulated speeds twice: as they are, and slightly off their grid."""
    shape = (num_rows, num_sensors)
    speeds, shifted = (
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for path in (grid, free)
    )
    first = 0
    for chunk in simulated_chunks(SimulationOptions(sensors=num_sensors, steps=num_rows)):
        rows = slice(first, first + len(chunk))
        speeds[rows] = chunk[:, :, 0]
        shifted[rows] = chunk[:, :, 0] * np.float32(1.0000123)
        first += len(chunk)
    speeds.flush()
    shifted.flush()


def _ingest_seconds(source: Path, target: Path) -> float:
    began = time.perf_counter()
    ingest(source, target)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def _copy_seconds(source: Path, target: Path) -> float:
    began = time.perf_counter()
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def ingest_command(
    *,
    sensors: int = 11_160,
    rows: int = 8_064,
    rounds: int = 5,
    workdir: Path | None = None,
    json: bool = False,
) -> None:
    """Time how fast a wide .npy file becomes a store, beside a plain copy of the file.

    Args:
        sensors: Columns of the file.
        rows: Time steps of the file; the default is four weeks of five-minute intervals.
        rounds: Measurements of each contender.
        workdir: Directory for temporary files.
        json: Print one JSON object on standard output, and no tables.
    """
    with scratch_directory(workdir) as scratch:
        result = measure_ingest(Path(scratch), sensors=sensors, rows=rows, rounds=rounds)
    goal = "reached" if result.reaches_goal else "not reached"
    table = Table(
        title=f"{rows:,} x {sensors:,} float32; the goal of {_GOAL:.0f} MB/s is {goal}",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("MB/s of source", justify="right")
    for name, speed in result.megabytes_per_second.items():
        table.add_row(name, number(speed, digits=0))
    print_results(to_json(result), table, as_json=json)
    finish("Ingest", result.machine, ())
