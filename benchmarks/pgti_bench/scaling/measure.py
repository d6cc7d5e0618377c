"""The scaling study: measured with local ranks, modelled beyond, the two always kept apart.

The batch of a rank is fixed, so the batch of a step grows with the number of ranks and an epoch has
fewer steps, as in the paper (arXiv 2507.11683).
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pgti.errors import ConfigError
from pgti.run.results import Machine, Spread
from pgti.store import SeriesStore
from pgti.windows import GlobalShuffle
from pgti_bench.errors import BenchError
from pgti_bench.paper_datasets import DATASETS
from pgti_bench.scaling.dask import check_dask
from pgti_bench.scaling.measurements import Measurements, Round
from pgti_bench.scaling.model import DaskCosts, ModelledStep, Parts, StepModel, exchanged_bytes
from pgti_bench.scaling.network import NETWORKS, Network, fit_network
from pgti_bench.scaling.options import DASK, EXCHANGE, ScalingOptions
from pgti_bench.scaling.results import DaskFetch, Measured, Modelled, Ratio, ScalingResult
from pgti_bench.scaling.runner import ScalingRunner
from pgti_bench.scaling.windows import window_source, write_windows
from pgti_bench.synthetic_stores import scratch_directory, synthetic_store

__all__ = ["measure_scaling"]

_COMPUTE_SCALES = (1.0, 0.1)


def measure_scaling(
    options: ScalingOptions,
    store: Path | None = None,
    *,
    workdir: Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> ScalingResult:
    """Measure the systems at each number of local ranks, and model larger numbers.

    Args:
        options: what to measure.
        store: a store; a simulated one if not given.
        workdir: where the simulated store is written and kept for later runs; a temporary directory
            if not given.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: the series has fewer training windows than a round takes.
        StoreError: the store cannot be opened or written.
        BenchError: a rank failed, or Dask's is the only system and Dask is not installed.
    """
    options, left_out = _drop_missing_dask(options)
    with scratch_directory(workdir) as scratch:
        opened = _open_store(options, store, Path(scratch) if workdir is None else workdir, log)
        source, starts = window_source(opened, options.spec)
        _check_enough_windows(options, len(starts))
        machine = replace(Machine.here(), threads=1)
        load, written, began = _load_average(), 0, time.perf_counter()
        if "windows" in options.systems:
            log("writing every training window to a file")
            written = write_windows(source, starts, Path(scratch))
        writing_seconds = time.perf_counter() - began
        runner = ScalingRunner(options, opened, Path(scratch), machine.cores, log)
        for world_size in options.ranks:
            runner.measure(world_size)
        measurements = runner.measurements
        if written:
            measurements.materialized_bytes["windows"] = written
            for world_size in options.ranks:
                measurements.startup_seconds["windows", world_size] += writing_seconds
        study = _Study(options, measurements, machine.cores, starts, opened.raw[0].nbytes)
        return ScalingResult(
            options=options,
            machine=machine,
            load_before=load,
            store=opened.path if store is not None or workdir is not None else None,
            num_steps=opened.meta.num_steps,
            num_nodes=opened.meta.num_nodes,
            train_windows=len(starts),
            parameters=measurements.parameters,
            materialized_bytes=measurements.materialized_bytes,
            parts=study.parts,
            timings=tuple(measurements.timings),
            networks=NETWORKS,
            measured=study.measured(),
            dask_fetches=study.dask_fetches(),
            predictions=study.predictions(),
            ratios=study.ratios(),
            left_out=left_out,
        )


class _Study:
    """Turns measurements into results.

    Args:
        options: what was measured.
        measurements: of the runner.
        cores: of this machine.
        starts: the training starts.
        row_bytes: of a stored row.
    """

    def __init__(
        self,
        options: ScalingOptions,
        measurements: Measurements,
        cores: int,
        starts: range,
        row_bytes: int,
    ) -> None:
        self._options, self._measurements = options, measurements
        self._starts, self._row_bytes = starts, row_bytes
        loopback = None
        if measurements.timings:
            sizes = sorted({each.ranks for each in measurements.timings})
            loopback = fit_network(
                "loopback",
                measurements.timings,
                f"fitted to all-reduces of {' and '.join(map(str, sizes))} ranks on this machine",
            )
        self.parts = Parts(
            compute_seconds={
                ranks: tuple(each.cpu_seconds) for ranks, each in measurements.compute.items()
            },
            competitors={
                ranks: each.competitors(min(ranks, cores), cores)
                for ranks, each in measurements.compute.items()
            },
            systems=measurements.systems,
            gradient_bytes=measurements.gradient_bytes,
            message_bytes=measurements.message_bytes,
            dask=self._dask_at_once(),
            loopback=loopback,
            cores=cores if options.device == "cpu" else None,
        )
        self._model = StepModel(self.parts, draws=options.draws, seed=options.seed)

    def _dask_at_once(self) -> DaskCosts | None:
        """Dask's costs, those of its scheduler with the most ranks: its calls grow cheaper."""
        alone, fetches = self._measurements.dask, self._measurements.fetches
        if alone is None or not fetches:
            return alone
        return replace(alone, scheduler_seconds=fetches[-1].scheduler_seconds)

    def measured(self) -> tuple[Measured, ...]:
        """Measured steps, each beside the model of it."""
        return tuple(
            self._summarize(system, world_size, self._measurements.rounds[system, world_size])
            for system in self._options.systems
            for world_size in self._options.ranks
        )

    def dask_fetches(self) -> tuple[DaskFetch, ...]:
        """Batches that several ranks fetched from Dask at once, beside the model's."""
        dask = self._measurements.dask
        if dask is None:
            return ()
        return tuple(
            DaskFetch(
                **asdict(each),
                modelled_seconds=dask.seconds(each.ranks, None),
                model_error=dask.seconds(each.ranks, None) / each.seconds - 1,
            )
            for each in self._measurements.fetches
        )

    def predictions(self) -> tuple[Modelled, ...]:
        """Modelled steps of every system over every network."""
        return tuple(
            self._predict(system, world_size, network)
            for network in NETWORKS
            for system in self._options.systems
            for world_size in self._options.predicted_ranks
        )

    def ratios(self) -> tuple[Ratio, ...]:
        """Ratios of the predictions with the most ranks."""
        if "replicated" not in self._options.systems or not self._options.predicted_ranks:
            return ()
        most = max(self._options.predicted_ranks)
        ratios = []
        for network in NETWORKS:
            for scale in _COMPUTE_SCALES:
                steps = {
                    system: self._over(system, most, network, compute_scale=scale)[0].step
                    for system in self._options.systems
                }
                runs = {
                    system: self._run_seconds(system, self._options.epoch_steps(most) * seconds)
                    for system, seconds in steps.items()
                }
                ratios.append(
                    Ratio(
                        network=network.name,
                        ranks=most,
                        compute_scale=scale,
                        over_replicated=_over_replicated(steps),
                        runs_over_replicated=_over_replicated(runs) if scale == 1 else None,
                    )
                )
        return tuple(ratios)

    def _summarize(self, system: str, world_size: int, rounds: Sequence[Round]) -> Measured:
        options = self._options
        step = Spread.of([each.step for each in rounds])
        total, most = 0, 0
        if system == EXCHANGE:
            total, most = self._exchange_bytes(self._starts, world_size)
        modelled = self._model.here(system, world_size, most)
        num_steps = options.steps * len(rounds)
        epoch_seconds = options.epoch_steps(world_size) * step.median
        startup_seconds = self._measurements.startup_seconds[system, world_size]
        return Measured(
            system=system,
            ranks=world_size,
            step_seconds=step,
            fetch_seconds=Spread.of([each.fetch for each in rounds]),
            compute_seconds=Spread.of([each.compute for each in rounds]),
            communication_seconds=Spread.of([each.communication for each in rounds]),
            windows_per_second=world_size * options.batch_size / step.median,
            epoch_seconds=epoch_seconds,
            startup_seconds=startup_seconds,
            run_seconds=options.run_seconds(startup_seconds, epoch_seconds),
            sent_bytes={
                kind: sum(each.sent_bytes[kind] for each in rounds) / num_steps
                for kind in rounds[0].sent_bytes
            },
            exchange_bytes=total,
            is_oversubscribed=self.parts.cores is not None and world_size > self.parts.cores,
            modelled=modelled,
            model_error=modelled.step / step.median - 1,
        )

    def _predict(self, system: str, world_size: int, network: Network) -> Modelled:
        options = self._options
        step, total = self._over(system, world_size, network)
        epoch_seconds = options.epoch_steps(world_size) * step.step
        return Modelled(
            system=system,
            ranks=world_size,
            network=network.name,
            step=step,
            exchange_bytes=total,
            windows_per_second=world_size * options.batch_size / step.step,
            epoch_seconds=epoch_seconds,
            run_seconds=self._run_seconds(system, epoch_seconds),
        )

    def _run_seconds(self, system: str, epoch_seconds: float) -> float:
        """Of a modelled run, which starts up as the measured one with the most ranks did."""
        startup = self._measurements.startup_seconds[system, max(self._options.ranks)]
        return self._options.run_seconds(startup, epoch_seconds)

    def _over(
        self, system: str, world_size: int, network: Network, *, compute_scale: float = 1.0
    ) -> tuple[ModelledStep, int]:
        """The modelled step over a network, and the bytes exchanged in it."""
        total, most = 0, 0
        if system == EXCHANGE:
            # The reported epoch rather than the short series: its windows fill a large batch.
            total, most = self._exchange_bytes(range(self._options.epoch_windows), world_size)
        step = self._model.over(system, world_size, network, most, compute_scale=compute_scale)
        return step, total

    def _exchange_bytes(self, starts: range, world_size: int) -> tuple[int, int]:
        """Bytes exchanged in a step, and the most that one rank sends or receives."""
        sent = exchanged_bytes(
            GlobalShuffle(self._options.seed),
            starts,
            self._options.spec.span,
            world_size,
            self._options.batch_size,
            self._row_bytes,
        )
        return int(sent.sum()), int(max(sent.sum(axis=0).max(), sent.sum(axis=1).max()))


def _over_replicated(seconds: Mapping[str, float]) -> dict[str, float]:
    return {system: each / seconds["replicated"] for system, each in seconds.items()}


def _load_average() -> float | None:
    """Runnable processes, averaged over a minute; None where the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _drop_missing_dask(options: ScalingOptions) -> tuple[ScalingOptions, tuple[str, ...]]:
    """The options without Dask's system if Dask is not installed, and a line that says so."""
    if DASK not in options.systems:
        return options, ()
    try:
        check_dask()
    except BenchError as error:
        rest = tuple(name for name in options.systems if name != DASK)
        if not rest:
            raise
        return replace(options, systems=rest), (f"{DASK}: {error}",)
    return options, ()


def _open_store(
    options: ScalingOptions, store: Path | None, directory: Path, log: Callable[[str], None]
) -> SeriesStore:
    """The given store, or a simulated one."""
    if store is not None:
        return SeriesStore.open(store)
    shape = replace(
        DATASETS["metr-la"],
        name=f"scaling-{options.num_nodes}x{options.num_steps}",
        num_steps=options.num_steps,
        num_nodes=options.num_nodes,
        is_sparse=False,
    )
    return synthetic_store(shape, directory, log=log)


def _check_enough_windows(options: ScalingOptions, num_windows: int) -> None:
    """Refuse rounds that are longer than an epoch.

    Raises:
        ConfigError: naming the numbers.
    """
    for world_size in options.ranks:
        needed = (options.steps + 1) * options.batch_size * world_size
        if needed > num_windows:
            raise ConfigError(
                f"{options.steps} steps and a warm-up step of {options.batch_size} windows on each "
                f"of {world_size} ranks take {needed:,} windows, and the series has "
                f"{num_windows:,} training windows: lower steps, batch-size or ranks, or use a "
                "longer series"
            )
