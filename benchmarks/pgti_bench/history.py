"""Windows that look back for days: batches from the series, beside materialised windows.

What a window looks back on is read from the mapped series with its inputs; a materialised window
holds it again, so that one of 1,344 rows takes 56 times what one of 24 rows takes. The sizes here
are such that materialised windows fit. Each contender is a process of its own.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from pgti.batching import WindowConfig
from pgti.cli.output import log, print_results
from pgti.errors import require_whole_number
from pgti.run.results import Machine, Spread, to_json
from pgti_bench.errors import DifferenceError
from pgti_bench.interleave import interleave
from pgti_bench.output import binary_size, finish, milliseconds
from pgti_bench.paper_datasets import DatasetShape
from pgti_bench.synthetic_stores import disk_usage, scratch_directory, synthetic_store
from pgti_bench.worker import Worker, thread_settings

__all__ = ["HistoryContender", "HistoryResult", "history_command", "measure_history"]

_PLAIN_ROWS = 24  # of a window without history
_NAMES = ("index", "index, decoded once", "materialised")


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryContender:
    """One way to make the batches.

    Attributes:
        disk_bytes: that it reads from.
        read_bytes: of a batch, on average: rows as they are stored, each once, or whole windows.
        seconds: of a batch.
        pss_bytes: of the process after the last batch.
    """

    disk_bytes: int
    read_bytes: float
    seconds: Spread
    pss_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryResult:
    """The result of `measure_history`.

    Attributes:
        machine: where it was measured.
        sensors: columns of the series.
        steps: its rows.
        history: of the windows.
        history_steps: rows of it in each window.
        batch_size: windows of a batch.
        windows: number of them.
        times_the_rows: rows of history in a window over those of a window without.
        contenders: by name.
        compared: batches whose bits were those of materialised windows.
    """

    machine: Machine
    sensors: int
    steps: int
    history: tuple[str, ...]
    history_steps: int
    batch_size: int
    windows: int
    times_the_rows: float
    contenders: Mapping[str, HistoryContender]
    compared: int


def measure_history(
    workdir: Path,
    *,
    sensors: int,
    steps: int,
    history: tuple[str, ...],
    batch_size: int,
    batches: int,
    rounds: int,
    log: Callable[[str], None] = lambda _: None,
) -> HistoryResult:
    """Make batches with history in three ways, interleaved, and compare their bits.

    Args:
        workdir: where the store and the windows are written; they are not removed.
        sensors: columns of the series.
        steps: its rows.
        history: of the windows.
        batch_size: windows of a batch.
        batches: of a round.
        rounds: measurements of each contender.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: a number is less than 1, or the history is not one of the series.
        DifferenceError: a batch differs from materialised windows.
    """
    for name, value in {"sensors": sensors, "batch_size": batch_size, "batches": batches}.items():
        require_whole_number(name, value, 1)
    shape = DatasetShape(
        name="history",
        title="",
        num_steps=steps,
        num_nodes=sensors,
        num_features=1,
        window_steps=12,
    )
    store = synthetic_store(shape, workdir, log=log)
    spec = WindowConfig(history=history).spec_of(store)
    file = workdir / "windows.npy"
    command = (sys.executable, "-m", "pgti_bench.history_worker")
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(command, thread_settings(1), name)) for name in _NAMES
        }
        common = {"store": str(store.path), "history": list(history), "batch_size": batch_size}
        for name in _NAMES[:2]:
            prepared = workers[name].ask(
                do="prepare", windows="", decoded=name != "index", **common
            )
        log(f"writing {prepared['windows']:,} windows to {file}")
        workers["index"].ask(do="materialize", windows=str(file))
        workers["materialised"].ask(do="prepare", windows=str(file), decoded=False, **common)
        found = workers["materialised"].ask(do="compare", count=batches)
        if found["differing"]:
            raise DifferenceError(f"{found['differing']} of {batches} batches differ")
        # What has written the windows has their pages, too: another process takes its place.
        workers["index"] = stack.enter_context(Worker(command, thread_settings(1), "index"))
        workers["index"].ask(do="prepare", windows="", decoded=False, **common)
        last: dict[str, dict[str, float]] = {}

        def run(name: str) -> float:
            last[name] = workers[name].ask(do="batches", count=batches)
            return last[name]["seconds"]

        seconds = interleave({name: lambda name=name: run(name) for name in _NAMES}, rounds)  # type: ignore[misc]
    on_disk = {name: disk_usage(store.path) for name in _NAMES}
    on_disk["materialised"] = file.stat().st_size
    return HistoryResult(
        machine=Machine.here(),
        sensors=sensors,
        steps=steps,
        history=history,
        history_steps=spec.history_steps,
        batch_size=batch_size,
        windows=prepared["windows"],
        times_the_rows=(spec.history_steps + spec.input_steps) / _PLAIN_ROWS,
        contenders={
            name: HistoryContender(
                disk_bytes=on_disk[name],
                read_bytes=last[name]["bytes"],
                seconds=Spread.of(seconds[name]),
                pss_bytes=None if last[name]["pss"] is None else int(last[name]["pss"]),
            )
            for name in _NAMES
        },
        compared=batches,
    )


def history_command(
    *,
    sensors: int = 64,
    steps: int = 4_000,
    history: tuple[str, ...] = ("1344",),
    batch_size: int = 8,
    batches: int = 50,
    rounds: int = 5,
    workdir: Path | None = None,
    json: bool = False,
) -> None:
    """Make batches with history from the series and from materialised windows, interleaved.

    Args:
        sensors: Columns of the series, which is simulated.
        steps: Its rows, five minutes each; all windows are materialised, in float32.
        history: Of the windows, as `--windows.history` takes it.
        batch_size: Windows of a batch.
        batches: Batches of a measurement.
        rounds: Measurements of each contender.
        workdir: Directory for temporary files.
        json: Print one JSON object on standard output, and no tables.
    """
    with scratch_directory(workdir) as scratch:
        result = measure_history(
            Path(scratch),
            sensors=sensors,
            steps=steps,
            history=history,
            batch_size=batch_size,
            batches=batches,
            rounds=rounds,
            log=log,
        )
    table = Table(
        title=f"{result.windows:,} windows of {sensors} sensors, history {', '.join(history)}: "
        f"{result.history_steps + 12:,} rows, {result.times_the_rows:.0f} times those of a window "
        f"of {_PLAIN_ROWS}; batches of {batch_size}, one thread",
        title_justify="left",
    )
    for name in ("batches from", "on disk", "read per batch", "ms per batch", "range", "PSS"):
        table.add_column(name, justify="left" if name == "batches from" else "right")
    for name, each in result.contenders.items():
        table.add_row(
            name,
            binary_size(each.disk_bytes),
            binary_size(round(each.read_bytes)),
            *milliseconds(each.seconds),
            binary_size(each.pss_bytes),
        )
    print_results(to_json(result), table, as_json=json)
    log(f"{result.compared} batches are those of materialised windows, bit for bit")
    finish("History", result.machine, ())
