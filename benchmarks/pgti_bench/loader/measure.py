"""Every batching strategy of pgti, PGT's loader and a plain copy of memory, interleaved.

Each runs in a separate process. A batch has the inputs and the targets of its windows as float32:
the observations and the time of day. PGT's is made by its METR-LA loader in index mode, which reads
arrays of the same observations; its targets have the time of day too. pgti's are decoded,
standardised and masked, in shuffled order, prefetched by a thread as in training, or not.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pgti.run.results import Machine, Spread
from pgti.store import SeriesStore
from pgti.windows import split_by_fractions
from pgti_bench.errors import BenchError
from pgti_bench.interleave import interleave_dropping, spread_of_ratios
from pgti_bench.loader.options import LoaderOptions
from pgti_bench.loader.workers import LoaderWorker, LoaderWorkers
from pgti_bench.paper_datasets import SPLIT_FRACTIONS
from pgti_bench.pgt_environment import PGT_VARIANTS
from pgti_bench.synthetic_stores import synthetic_store

__all__ = ["LoaderFigures", "LoaderResult", "measure_loader"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderFigures:
    """How fast one contender made batches.

    Attributes:
        name: of the contender.
        windows_per_second: None for a plain copy of memory.
        bytes_per_second: of inputs and targets, in float32.
        window_bytes: of a window's inputs and targets; None for a plain copy.
        peak_bytes: peak memory of the process; None where it is not reported.
        over_pgt: windows per second over those of PGT as its users run it; None without PGT.
        bytes_over_pgt: bytes per second over those of PGT.
        of_memcpy: bytes per second as a fraction of a plain copy's.
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
    """The result of `measure_loader`.

    Attributes:
        options: as given.
        store: whose windows the batches hold; None for a temporary one.
        num_steps: its time steps.
        num_nodes: its sensors.
        num_channels: its channels.
        dtype: of its series.
        batches: per round.
        machine: where it was measured.
        loaders: the figures of each contender.
        pgt_versions: of PGT's libraries; None if it was left out.
        left_out: what was not measured and why, one line each.
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
    log: Callable[[str], None] = lambda _: None,
) -> LoaderResult:
    """Measure how fast each strategy makes batches of a store's training windows.

    Args:
        options: what to measure.
        store: a store; a simulated one of the given shape if not given.
        pgt: interpreter of an environment with PGT; PGT is left out if not given.
        workdir: where the simulated store is written and kept for later runs; a temporary
            directory if not given.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: if the series has no training window.
        StoreError: if the store cannot be opened or written.
        BenchError: if no batching strategy can be measured. One that cannot is left out.
    """
    with tempfile.TemporaryDirectory(prefix="pgti-bench-") as scratch, ExitStack() as stack:
        if store is None:
            directory = Path(scratch) if workdir is None else workdir
            opened = synthetic_store(options.series_shape, directory, log=log)
        else:
            opened = SeriesStore.open(store)
        split_by_fractions(opened.meta.num_steps, options.spec, SPLIT_FRACTIONS)  # or refuse
        workers = LoaderWorkers(options, opened, stack, log)
        own = workers.start_own()
        runners = own + workers.start_peers(pgt, Path(scratch) / "pgt")
        count = workers.num_batches(own)
        copying = workers.start_copies(own[0].batch_bytes)
        measurements, failures = interleave_dropping(
            {runner.name: partial(runner.run, count) for runner in (*runners, copying)},
            options.rounds,
            may_fail={runner.name for runner in runners},
            after_round=workers.log_round,
        )
        if all(runner.name in failures for runner in own):
            raise BenchError(f"no batching could be measured: {failures[own[0].name]}")
        runners = [runner for runner in (*runners, copying) if runner.name in measurements]
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
            loaders=tuple(_figures(runner, runners, measurements) for runner in runners),
            pgt_versions=next((each.versions for each in runners if each.versions), None),
            left_out=(*workers.left_out, *failures.values()),
        )


def _figures(
    runner: LoaderWorker,
    runners: Sequence[LoaderWorker],
    measurements: Mapping[str, Sequence[float]],
) -> LoaderFigures:
    def rates(other: LoaderWorker, amount: int) -> list[float]:
        return [amount / seconds for seconds in measurements[other.name]]

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
        over_pgt=None if pgt is None else spread_of_ratios(windows, rates(pgt, pgt.num_windows)),
        bytes_over_pgt=None
        if pgt is None
        else spread_of_ratios(num_bytes, rates(pgt, pgt.num_bytes)),
        of_memcpy=spread_of_ratios(num_bytes, rates(copying, copying.num_bytes)),
    )
