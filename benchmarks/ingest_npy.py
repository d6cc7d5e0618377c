"""How fast does ingest turn a wide .npy into a store?

The claim: at least 150 MB/s of readings, counted as the float32 numbers of the source, 11,160
sensors wide. Two sources of simulated speeds are measured in alternation: on a grid of 0.1 mph, as
sensors report them (stored as int16), and off every grid (stored as float32). Beside them stands a
copy of the file that is brought to the disk as a store is: what the machine allows.

    python benchmarks/ingest_npy.py
    python benchmarks/ingest_npy.py --rows 20000 --rounds 7 --json

The source is read from the page cache if it fits there: it has just been written.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pgti import SimulationOptions, ingest
from pgti.bench import Machine, Spread, alternate, to_json
from pgti.datasets.simulated import simulated_chunks

CLAIM_MB_PER_SECOND = 150.0


def main() -> None:
    """Measure, and print a table on standard error or one JSON object on standard output."""
    options = parsed_arguments()
    with tempfile.TemporaryDirectory(prefix="pgti-", dir=options.workdir) as scratch:
        measures = measured(Path(scratch), options.sensors, options.rows, options.rounds)
    num_bytes = 4 * options.sensors * options.rows
    speeds = {
        name: Spread.of([num_bytes / each / 1e6 for each in seconds])
        for name, seconds in measures.items()
    }
    print(
        f"{options.rows:,} x {options.sensors:,} float32, MB of source a second:", file=sys.stderr
    )
    for name, speed in speeds.items():
        print(
            f"  {name:24s} {speed.median:8.0f}  ({speed.minimum:.0f} to {speed.maximum:.0f}, "
            f"{speed.runs} runs)",
            file=sys.stderr,
        )
    slowest = min(speed.median for name, speed in speeds.items() if name.startswith("ingest"))
    failure = "holds" if slowest >= CLAIM_MB_PER_SECOND else "does not hold"
    print(f"at least {CLAIM_MB_PER_SECOND:.0f} MB/s: {failure}", file=sys.stderr)
    if options.json:
        result = {
            "machine": to_json(Machine.here()),
            "rows": options.rows,
            "sensors": options.sensors,
            "megabytes_per_second": {name: to_json(speed) for name, speed in speeds.items()},
        }
        print(json.dumps(result))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--sensors", type=int, default=11_160)
    parser.add_argument("--rows", type=int, default=8_064, help="steps; four weeks of five minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workdir", type=Path, help="where files are made and removed again")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measured(scratch: Path, num_sensors: int, num_rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round."""
    grid, free = scratch / "grid.npy", scratch / "free.npy"
    write_sources(grid, free, num_sensors, num_rows)
    contenders: dict[str, Callable[[], float]] = {
        "ingest, grid of 0.1": lambda: seconds_to_ingest(grid, scratch / "store"),
        "ingest, off every grid": lambda: seconds_to_ingest(free, scratch / "store"),
        "copy of the file": lambda: seconds_to_copy(grid, scratch / "copy"),
    }
    return alternate(contenders, rounds, warmups=1)


def write_sources(grid: Path, free: Path, num_sensors: int, num_rows: int) -> None:
    """The same simulated speeds twice: as they are, and a little off their grid."""
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


def seconds_to_ingest(source: Path, target: Path) -> float:
    began = time.perf_counter()
    ingest(source, target)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def seconds_to_copy(source: Path, target: Path) -> float:
    began = time.perf_counter()
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


if __name__ == "__main__":
    main()
