"""Making batches: every batching of ours, PGT's loader and a plain copy of memory, in alternation.

Each runs in a process of its own. A batch has the inputs and the targets of its windows as float32:
the readings and the time of day. PGT's is made by its METR-LA loader in index mode, which reads
arrays of the same readings; its targets carry the time of day as well. Ours are decoded,
standardised and masked, in shuffled order, fetched ahead by a thread as in training, or not.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pgti.bench.contest import alternate_dropping
from pgti.bench.loader_crew import LoaderCrew, LoaderProcess
from pgti.bench.loader_options import TRAINED_FRACTIONS, LoaderOptions
from pgti.bench.made_stores import synthetic_store
from pgti.bench.peers import PGT_VARIANTS
from pgti.bench.results import Machine, Spread
from pgti.errors import BenchError
from pgti.store import SeriesStore
from pgti.windows import split_by_fractions

__all__ = ["LoaderFigures", "LoaderResult", "measure_loader"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderFigures:
    """How fast batches were made.

    Args:
        name: by what.
        windows_per_second: None for a plain copy of memory.
        bytes_per_second: of inputs and targets, in float32.
        window_bytes: of a window's inputs and targets; None for a plain copy.
        peak_bytes: most memory of the process; None where the system does not tell.
        over_pgt: windows a second in times of PGT's as its users run it; None without it.
        bytes_over_pgt: bytes a second in times of PGT's.
        of_memcpy: bytes a second as a share of a plain copy's.
    """

    name: str
    windows_per_second: Spread | None
    bytes_per_second: Spread
    window_bytes: int | None
    peak_bytes: int | None
    over_pgt: Spread | None
    bytes_over_pgt: Spread | None
    of_memcpy: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderResult:
    """What `measure_loader` found.

    Args:
        options: as they were asked for.
        store: that the batches were made of; None for one that was made for this and is gone.
        num_steps: its rows.
        num_nodes: its sensors.
        num_channels: its channels.
        dtype: of its readings.
        batches: made in a round.
        machine: where.
        loaders: the figures.
        pgt_versions: of PGT's libraries; None where it was left out.
        left_out: what was not measured and why, a line each.
    """

    options: LoaderOptions
    store: Path | None
    num_steps: int
    num_nodes: int
    num_channels: int
    dtype: str
    batches: int
    machine: Machine
    loaders: tuple[LoaderFigures, ...]
    pgt_versions: Mapping[str, str] | None
    left_out: tuple[str, ...]


def measure_loader(
    options: LoaderOptions,
    store: Path | None = None,
    *,
    pgt: Path | None = None,
    workdir: Path | None = None,
    log: Callable[[str], None] | None = None,
) -> LoaderResult:
    """Measure how fast each strategy makes batches of a store's training windows.

    Args:
        options: what to measure.
        store: a store; a simulated one of the shape asked for is made if not given.
        pgt: interpreter of an environment with PGT; without one it is left out.
        workdir: where that store is made and left for the next time; a temporary directory if not
            given.
        log: told what is being done, a line at a time.

    Raises:
        ConfigError: if the series has no training window.
        StoreError: if the store cannot be opened or made.
        BenchError: if no batching of ours can be measured. One that cannot is left out.
    """
    tell = log or (lambda _line: None)
    with tempfile.TemporaryDirectory(prefix="pgti-bench-") as scratch, ExitStack() as stack:
        if store is None:
            directory = Path(scratch) if workdir is None else workdir
            opened = synthetic_store(options.series_shape, directory, log=tell)
        else:
            opened = SeriesStore.open(store)
        split_by_fractions(opened.meta.num_steps, options.spec, TRAINED_FRACTIONS)  # or refuse
        crew = LoaderCrew(options, opened, stack, tell)
        own = crew.start_own()
        runners = own + crew.start_peers(pgt, Path(scratch) / "pgt")
        count = crew.num_batches(own)
        copying = crew.start_copies(own[0].batch_bytes)
        measures, failures = alternate_dropping(
            {runner.name: partial(runner.run, count) for runner in (*runners, copying)},
            options.rounds,
            may_fail={runner.name for runner in runners},
            after_round=crew.tell_round,
        )
        if all(runner.name in failures for runner in own):
            raise BenchError(f"no batching could be measured: {failures[own[0].name]}")
        runners = [runner for runner in (*runners, copying) if runner.name in measures]
        meta = opened.meta
        return LoaderResult(
            options=options,
            store=opened.path if store is not None or workdir is not None else None,
            num_steps=meta.num_steps,
            num_nodes=meta.num_nodes,
            num_channels=meta.num_channels,
            dtype=meta.dtype,
            batches=count,
            machine=replace(Machine.here(), threads=own[0].threads),
            loaders=tuple(_figures(runner, runners, measures) for runner in runners),
            pgt_versions=next((each.versions for each in runners if each.versions), None),
            left_out=(*crew.left_out, *failures.values()),
        )


def _figures(
    runner: LoaderProcess, runners: Sequence[LoaderProcess], measures: Mapping[str, Sequence[float]]
) -> LoaderFigures:
    def rates(other: LoaderProcess, amount: int) -> list[float]:
        return [amount / seconds for seconds in measures[other.name]]

    windows, num_bytes = rates(runner, runner.num_windows), rates(runner, runner.num_bytes)
    pgt = next((each for each in runners if each.name == next(iter(PGT_VARIANTS))), None)
    if pgt is runner or not runner.num_windows:
        pgt = None
    copying = runners[-1]
    return LoaderFigures(
        name=runner.name,
        windows_per_second=Spread.of(windows) if runner.num_windows else None,
        bytes_per_second=Spread.of(num_bytes),
        window_bytes=runner.num_bytes // runner.num_windows if runner.num_windows else None,
        peak_bytes=runner.worker.ask(do="peak")["bytes"],
        over_pgt=None if pgt is None else Spread.of_ratios(windows, rates(pgt, pgt.num_windows)),
        bytes_over_pgt=None
        if pgt is None
        else Spread.of_ratios(num_bytes, rates(pgt, pgt.num_bytes)),
        of_memcpy=Spread.of_ratios(num_bytes, rates(copying, copying.num_bytes)),
    )
