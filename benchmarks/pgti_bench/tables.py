"""Time how fast tables in text become rows of readings, beside pandas and polars, on one thread.

Every contender is a process of its own that reads the same file into an array in the order of time:
pgti chunk by chunk, as `pgti ingest` does before it writes; pandas and polars whole, with a pivot
where the table is long. A second contender of pgti writes the store as well.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from pgti.cli.output import print_results
from pgti.run.results import Machine, Spread, to_json
from pgti_bench.errors import BenchError
from pgti_bench.interleave import interleave
from pgti_bench.large_files import FORMATS
from pgti_bench.output import binary_size, finish, number
from pgti_bench.synthetic_stores import scratch_directory

__all__ = ["TableSpeed", "TablesResult", "measure_tables", "tables_command"]

_WIDE, _LONG = "CSV wide", "CSV long by time"
_NARROW, _WIDEST = "CSV of 207 sensors", "CSV of 11,160 sensors"
_GOALS = {
    **dict.fromkeys((_WIDE, _NARROW, _WIDEST), 60.0),
    **dict.fromkeys((_LONG, "CSV long by sensor"), 30.0),
}

_PROGRAM = """
import shutil, sys, time
from pathlib import Path
reader, path, layout = sys.argv[1:]
is_long = "long" in layout
if reader.startswith("pgti"):
    import pgti
    from pgti.ingestion import IngestOptions, open_readings
elif reader == "pandas":
    import pandas as pd
else:
    import polars as pl
began = time.perf_counter()
if reader == "pgti":
    readings = open_readings(path, IngestOptions())
    rows = sum(len(chunk.values) for chunk in readings.chunks(IngestOptions().budget_bytes))
elif reader == "pgti ingest":
    rows = pgti.ingest(path, path + ".store").meta.num_steps
    shutil.rmtree(path + ".store")
elif reader == "pandas":
    table = pd.read_csv(path)
    table["time"] = pd.to_datetime(table["time"])
    table = table.pivot(index="time", columns="sensor") if is_long else table.set_index("time")
    rows = len(table.to_numpy())
else:
    table = pl.read_csv(path, try_parse_dates=True)
    if is_long:
        table = table.pivot(on="sensor", index="time").sort("time")
    rows = len(table.drop("time").to_numpy())
seconds = time.perf_counter() - began
lines = Path("/proc/self/status").read_text().splitlines()
print(rows, seconds, *(int(each.split()[1]) * 1024 for each in lines if each.startswith("VmHWM")))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSpeed:
    """How one reader reads one table.

    Attributes:
        table: its layout.
        reader: what reads it.
        megabytes_per_second: of text.
        peak_bytes: largest peak memory of its process.
    """

    table: str
    reader: str
    megabytes_per_second: Spread
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TablesResult:
    """The result of `measure_tables`.

    Attributes:
        machine: where it was measured.
        file_bytes: size of each file, by layout.
        speeds: one entry for each table and reader.
        reaches_goals: whether pgti reads wide text at 60 MB/s and long text at 30 MB/s.
    """

    machine: Machine
    file_bytes: Mapping[str, int]
    speeds: tuple[TableSpeed, ...]
    reaches_goals: bool


def measure_tables(
    workdir: Path, *, tables: tuple[str, ...], size: int, rounds: int
) -> TablesResult:
    """Measure all readers of all tables, interleaved by table.

    Args:
        workdir: where files are written; they are not removed.
        tables: layouts of text (`large_files.FORMATS`).
        size: bytes of each file, about.
        rounds: measurements of each reader.

    Raises:
        BenchError: if a reader fails or readers disagree.
    """
    speeds: list[TableSpeed] = []
    file_bytes = {}
    for table in tables:
        name, write = FORMATS[table]
        path = workdir / name
        write(path, size)
        file_bytes[table] = path.stat().st_size
        peaks: dict[str, list[int]] = {}
        contenders: dict[str, Callable[[], float]] = {
            reader: partial(_seconds, reader, path, table, peaks.setdefault(reader, []))
            for reader in ("pgti", "pgti ingest", "pandas", "polars")
        }
        for reader, seconds in interleave(contenders, rounds, warmups=0).items():
            found = Spread.of([file_bytes[table] / each / 1e6 for each in seconds])
            speeds.append(
                TableSpeed(
                    table=table,
                    reader=reader,
                    megabytes_per_second=found,
                    peak_bytes=max(peaks[reader]),
                )
            )
    own = [each for each in speeds if each.reader == "pgti"]
    return TablesResult(
        machine=Machine.here(),
        file_bytes=file_bytes,
        speeds=tuple(speeds),
        reaches_goals=all(
            each.megabytes_per_second.median >= _GOALS.get(each.table, 0.0) for each in own
        ),
    )


def _seconds(reader: str, path: Path, table: str, peaks: list[int]) -> float:
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, reader, str(path), table],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | one | {"POLARS_MAX_THREADS": "1"},
    )
    if done.returncode:
        raise BenchError(f"{reader} does not read {table}: {done.stderr.strip()[-300:]}")
    _, seconds, peak = done.stdout.split()
    peaks.append(int(peak))
    return float(seconds)


def tables_command(
    *,
    size_mb: int = 200,
    tables: tuple[str, ...] = (_NARROW, _WIDE, _WIDEST, _LONG, "CSV long by sensor"),
    rounds: int = 5,
    workdir: Path | None = None,
    json: bool = False,
) -> None:
    """Time how fast tables in text are read, beside pandas and polars, on one thread each.

    Args:
        size_mb: Size of each file in millions of bytes.
        tables: Layouts to measure.
        rounds: Measurements of each reader.
        workdir: Directory for temporary files.
        json: Print one JSON object on standard output, and no tables.
    """
    with scratch_directory(workdir) as scratch:
        result = measure_tables(
            Path(scratch), tables=tables, size=size_mb * 1_000_000, rounds=rounds
        )
    goal = "reached" if result.reaches_goals else "not reached"
    shown = Table(title=f"the goal of 60 MB/s wide, 30 MB/s long is {goal}", title_justify="left")
    for heading in ("table", "reader", "MB/s of text", "peak memory"):
        shown.add_column(heading, justify="left" if heading in ("table", "reader") else "right")
    for each in result.speeds:
        speed = number(each.megabytes_per_second, digits=0)
        shown.add_row(each.table, each.reader, speed, binary_size(each.peak_bytes))
    print_results(to_json(result), shown, as_json=json)
    finish("Tables in text", result.machine, ())
