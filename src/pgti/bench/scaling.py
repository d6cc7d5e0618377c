"""The scaling study: measured with local ranks, modelled beyond, and never one for the other.

The batch of a rank is fixed, so that the batch of a step grows with the ranks and an epoch has the
fewer steps, as in the paper (arXiv 2507.11683).
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pgti.bench.datasets import DATASETS
from pgti.bench.made_stores import synthetic_store
from pgti.bench.results import Machine, Spread
from pgti.bench.scaling_dask import check_dask
from pgti.bench.scaling_model import ModelledStep, Parts, StepModel, exchanged_bytes
from pgti.bench.scaling_network import NETWORKS, Network, fit_network
from pgti.bench.scaling_options import DASK, EXCHANGE, ScalingOptions
from pgti.bench.scaling_results import Measured, Modelled, Ratio, ScalingResult
from pgti.bench.scaling_sessions import Findings, Round, Sessions
from pgti.bench.scaling_systems import study_source, write_windows
from pgti.errors import ConfigError, MissingExtraError
from pgti.store import SeriesStore
from pgti.windows import GlobalShuffle

__all__ = ["measure_scaling"]

_COMPUTE_SCALES = (1.0, 0.1)


def measure_scaling(
    options: ScalingOptions,
    store: Path | None = None,
    *,
    workdir: Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> ScalingResult:
    """Measure the systems at each number of local ranks, and model them beyond.

    Args:
        options: what to measure.
        store: a store; a simulated one is made if not given.
        workdir: where that store is made and left for the next time; a temporary directory if not
            given.
        log: told what is being done, a line at a time.

    Raises:
        ConfigError: the series has fewer training windows than a round takes.
        MissingExtraError: nothing but Dask's system is asked for, and it is not installed.
        StoreError: the store cannot be opened or made.
        BenchError: a rank failed.
    """
    options, left_out = _without_missing(options)
    with tempfile.TemporaryDirectory(prefix="pgti-scaling-", dir=workdir) as scratch:
        opened = _store(options, store, Path(scratch) if workdir is None else workdir, log)
        source, starts = study_source(opened, options.spec)
        _check_enough(options, len(starts))
        machine = replace(Machine.here(), threads=1)
        load, written = _load(), 0
        if "windows" in options.systems:
            log("writing every training window out")
            written = write_windows(source, starts, Path(scratch))
        sessions = Sessions(options, opened, Path(scratch), machine.cores, log)
        for world_size in options.ranks:
            sessions.measure(world_size)
        found = sessions.found
        if written:
            found.made_bytes["windows"] = written
        study = _Study(options, found, machine.cores, starts, opened.raw[0].nbytes)
        return ScalingResult(
            options=options,
            machine=machine,
            load_before=load,
            store=opened.path if store is not None or workdir is not None else None,
            num_steps=opened.meta.num_steps,
            num_nodes=opened.meta.num_nodes,
            train_windows=len(starts),
            parameters=found.parameters,
            made_bytes=found.made_bytes,
            parts=study.parts,
            timings=tuple(found.timings),
            networks=NETWORKS,
            measured=study.measured(),
            predictions=study.predictions(),
            ratios=study.ratios(),
            left_out=left_out,
        )


class _Study:
    """From what the sessions found to results.

    Args:
        options: what was measured.
        found: by the sessions.
        cores: of this machine.
        starts: the training starts.
        row_bytes: of a row as it is stored.
    """

    def __init__(
        self,
        options: ScalingOptions,
        found: Findings,
        cores: int,
        starts: range,
        row_bytes: int,
    ) -> None:
        self._options, self._found = options, found
        self._starts, self._row_bytes = starts, row_bytes
        loopback = None
        if found.timings:
            sizes = sorted({each.ranks for each in found.timings})
            loopback = fit_network(
                "loopback",
                found.timings,
                f"fitted to all-reduces of {' and '.join(map(str, sizes))} ranks on this machine",
            )
        self.parts = Parts(
            compute_seconds={
                ranks: tuple(each.cpu_seconds) for ranks, each in found.compute.items()
            },
            competitors={
                ranks: each.competitors(min(ranks, cores), cores)
                for ranks, each in found.compute.items()
            },
            systems=found.systems,
            gradient_bytes=found.gradient_bytes,
            control_bytes=found.control_bytes,
            dask=found.dask,
            loopback=loopback,
            cores=cores,
        )
        self._model = StepModel(self.parts, draws=options.draws, seed=options.seed)

    def measured(self) -> tuple[Measured, ...]:
        """What ranks did, with what the model says of it."""
        return tuple(
            self._summary(system, world_size, self._found.rounds[system, world_size])
            for system in self._options.systems
            for world_size in self._options.ranks
        )

    def predictions(self) -> tuple[Modelled, ...]:
        """Every system over every network."""
        return tuple(
            self._predicted(system, world_size, network)
            for network in NETWORKS
            for system in self._options.systems
            for world_size in self._options.predicted_ranks
        )

    def ratios(self) -> tuple[Ratio, ...]:
        """Of the predictions with the most ranks."""
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
                ratios.append(
                    Ratio(
                        network=network.name,
                        ranks=most,
                        compute_scale=scale,
                        over_replicated={
                            system: seconds / steps["replicated"]
                            for system, seconds in steps.items()
                        },
                    )
                )
        return tuple(ratios)

    def _summary(self, system: str, world_size: int, rounds: Sequence[Round]) -> Measured:
        options = self._options
        step = Spread.of([each.step for each in rounds])
        total, most = 0, 0
        if system == EXCHANGE:
            total, most = self._exchanged(self._starts, world_size)
        modelled = self._model.here(system, world_size, most)
        num_steps = options.steps * len(rounds)
        return Measured(
            system=system,
            ranks=world_size,
            step_seconds=step,
            fetch_seconds=Spread.of([each.fetch for each in rounds]),
            compute_seconds=Spread.of([each.compute for each in rounds]),
            communication_seconds=Spread.of([each.communication for each in rounds]),
            windows_per_second=world_size * options.batch_size / step.median,
            epoch_seconds=options.epoch_steps(world_size) * step.median,
            sent_bytes={
                kind: sum(each.sent_bytes[kind] for each in rounds) / num_steps
                for kind in rounds[0].sent_bytes
            },
            exchange_bytes=total,
            is_oversubscribed=world_size > self.parts.cores,
            modelled=modelled,
            model_error=modelled.step / step.median - 1,
        )

    def _predicted(self, system: str, world_size: int, network: Network) -> Modelled:
        options = self._options
        step, total = self._over(system, world_size, network)
        return Modelled(
            system=system,
            ranks=world_size,
            network=network.name,
            step=step,
            exchange_bytes=total,
            windows_per_second=world_size * options.batch_size / step.step,
            epoch_seconds=options.epoch_steps(world_size) * step.step,
        )

    def _over(
        self, system: str, world_size: int, network: Network, *, compute_scale: float = 1.0
    ) -> tuple[ModelledStep, int]:
        """The model's step over a network, and the rows that cross in it."""
        total, most = 0, 0
        if system == EXCHANGE:
            # The epoch that is told of, and not the short series: its windows fill a large batch.
            total, most = self._exchanged(range(self._options.epoch_windows), world_size)
        step = self._model.over(system, world_size, network, most, compute_scale=compute_scale)
        return step, total

    def _exchanged(self, starts: range, world_size: int) -> tuple[int, int]:
        """Bytes that cross in a step, and those that the rank with the most of them receives."""
        sent = exchanged_bytes(
            GlobalShuffle(self._options.seed),
            starts,
            self._options.spec.span,
            world_size,
            self._options.batch_size,
            self._row_bytes,
        )
        return int(sent.sum()), int(max(sent.sum(axis=0).max(), sent.sum(axis=1).max()))


def _load() -> float | None:
    """Processes that want to run, averaged over a minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _without_missing(options: ScalingOptions) -> tuple[ScalingOptions, tuple[str, ...]]:
    """The study without Dask's system where it is not installed, and a line that says so."""
    if DASK not in options.systems:
        return options, ()
    try:
        check_dask()
    except MissingExtraError as error:
        rest = tuple(name for name in options.systems if name != DASK)
        if not rest:
            raise
        return replace(options, systems=rest), (f"{DASK}: {error}",)
    return options, ()


def _store(
    options: ScalingOptions, store: Path | None, directory: Path, log: Callable[[str], None]
) -> SeriesStore:
    """The store that was named, or a simulated one."""
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


def _check_enough(options: ScalingOptions, num_windows: int) -> None:
    """Refuse rounds that are longer than an epoch.

    Raises:
        ConfigError: naming the numbers.
    """
    for world_size in options.ranks:
        needed = (options.steps + 1) * options.batch_size * world_size
        if needed > num_windows:
            raise ConfigError(
                f"{options.steps} steps and one before them, of {options.batch_size} windows on "
                f"each of {world_size} ranks, take {needed:,} windows and the series trains on "
                f"{num_windows:,}: lower steps, batch-size or ranks, or give a longer series"
            )
