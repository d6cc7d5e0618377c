"""Everything that training needs, built and checked before anything is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.batching import BatchLoader, WindowSource
from pgti.display import count_of, shorten
from pgti.distributed import Communicator, make_current
from pgti.errors import ConfigError, DataError, option
from pgti.forecasting import Observer
from pgti.models import (
    CUSTOM_MODEL,
    AbstractModel,
    ModelFactory,
    num_trainable_parameters,
    requested_inputs,
)
from pgti.nn.execution import bfloat16_speed
from pgti.nn.numerics import has_tf32
from pgti.run.build import (
    build_forecaster,
    explain_own_failures,
    resolve_device,
    try_network,
    window_source,
)
from pgti.run.config import RunConfig
from pgti.run.loaders import RunLoaders
from pgti.run.memory_plan import MemoryPlan, plan_memory
from pgti.run.run import Run
from pgti.run.series import series_facts
from pgti.run.sharding import Shard
from pgti.run.unread_inputs import note_unread_inputs
from pgti.run.warm_start import StartedFrom
from pgti.store import Scaler, SeriesStore, TypicalReadings
from pgti.training import Extensions, RunDirectory, RunFingerprint, Trainer
from pgti.windows import SPLIT_NAMES, subsample_evenly

__all__ = ["ObserverFactory", "PreparedRun", "check_edges", "prepare"]

ObserverFactory = Callable[[RunDirectory], Sequence[Observer]]
"""Creates the observers of a run."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PreparedRun:
    """Everything that training needs, checked; nothing is written yet.

    Attributes:
        run: store, configuration and forecaster.
        trainer: trains the forecaster.
        loaders: of its training and validation.
        info: content of `run.json`.
        choices: what was chosen automatically, in one line each.
    """

    run: Run
    trainer: Trainer
    loaders: RunLoaders
    info: dict[str, Any]
    choices: list[str]

    @property
    def training(self) -> BatchLoader:
        """This rank's training batches."""
        return self.loaders.training

    def plan_memory(self, *, checkpointed_before: bool | None = None) -> MemoryPlan:
        """Find out what the run needs, and add it to its information and choices.

        Args:
            checkpointed_before: whether a resumed run has checkpointed its activations so far.

        Raises:
            ConfigError: as `pgti.run.memory_plan.plan_memory`, or a step of the user's own network
                fails.
        """
        communicator, network = self.run.communicator, self.run.forecaster.network
        # No batch has more windows than there are.
        options = self.run.config.training
        size = min(options.batch_size, self.training.num_windows)
        config = replace(self.run.config, training=replace(options, batch_size=size))
        may_leave, agree = self.loaders.may_leave_device, None
        if communicator.space.size > 1:  # ranks that compute a window together try the same steps
            agree, may_leave = communicator.any, communicator.any(may_leave)
        on_cpu = self.run.device.type == "cpu"
        with (
            communicator.raise_together(),
            explain_own_failures(network, "a trial step of training failed"),
        ):
            plan = plan_memory(
                config,
                self.run.source,
                self.trainer.train_step,
                self.loaders.trial,
                int(self.run.splits.train[0]),
                batch_size=self.training.sharding.max_size(size),
                num_evaluated=self.loaders.num_evaluated,
                resident_bytes=self.loaders.device_bytes,
                may_leave_device=may_leave,
                num_sharing=communicator.local_world_size if on_cpu else 1,
                checkpointed_before=checkpointed_before,
                agree=agree,
            )
        if communicator.any(plan.leaves_device):
            self.choices.append(self.loaders.leave_device())
            self.info["batching"] = self.loaders.batching
        # If one rank must recompute, all do: gradients then have the same bits.
        activation_checkpointing = communicator.any(plan.activation_checkpointing)
        if isinstance(network, AbstractModel):
            network.activation_checkpointing = activation_checkpointing
        self.info["activation_checkpointing"] = activation_checkpointing
        self.choices.extend(plan.choices)
        return plan


def prepare(  # noqa: PLR0913 - each names one part of a run
    config: RunConfig,
    directory: RunDirectory,
    store: SeriesStore,
    model: ModelFactory | None,
    observers: ObserverFactory | None,
    communicator: Communicator,
    *,
    scaler: Scaler | None = None,
    typical: TypicalReadings | None = None,
    latest: SeriesStore | None = None,
    is_restored: bool = False,
    started_from: StartedFrom | None = None,
    extensions: Extensions | None = None,
) -> PreparedRun:
    """Build everything and try the network on one window, without touching the run's directory.

    Args:
        config: every option, the model's resolved.
        directory: where the run is, or will be.
        store: the configuration's store.
        model: the user's own class or function, in place of the one that the configuration's
            model names.
        observers: creates the observers of the training.
        communicator: the ranks.
        scaler: of the run that is resumed: another version may fit one whose last bits differ.
        typical: what each sensor usually reads in the training rows; fitted here if not given,
            where the inputs need it.
        latest: the whole store, if it has grown since the run began.
        is_restored: whether trained parameters will replace pretrained ones.
        started_from: what the run takes over from another, if it does.
        extensions: what the user adds to the training.

    Raises:
        PgtiError: if something given cannot be used.
    """
    extensions = Extensions() if extensions is None else extensions
    device = resolve_device(config.device, communicator.local_rank, communicator.local_world_size)
    make_current(device)
    splits = config.windows.splits(store)
    if scaler is None and started_from is not None:
        scaler = started_from.scaler
    shard = Shard.of(store.graph, communicator)
    sensors = None if shard is None else shard.sensors
    source = window_source(config, store, scaler, typical=typical, sensors=sensors)
    validated = subsample_evenly(splits.val, config.training.val_windows)
    _check_validation(source, validated)
    run = Run(
        config=config,
        store=store,
        latest=store if latest is None else latest,
        splits=splits,
        source=source,
        forecaster=build_forecaster(
            config, source, model, device, is_restored=is_restored, shard=shard
        ),
        directory=directory,
        communicator=communicator,
        metrics=extensions.metrics or {},
    )
    loaders = RunLoaders(run, validated)
    choices = [*loaders.choices, *_warnings(run)]
    if shard is not None:
        choices.append(shard.describe(store.graph))
    try_network(run.forecaster, loaders.trial, int(splits.train[0]))
    trainer = Trainer(
        run.forecaster,
        training=loaders.training,
        validation=loaders.validation,
        config=config.training,
        run=directory,
        fingerprint=RunFingerprint(store=store.fingerprint, settings=config.settings()),
        observers=() if observers is None or not communicator.is_main else observers(directory),
        communicator=communicator,
        extensions=extensions,
        validates_start=started_from is not None,
    )
    info = {
        **series_facts(store, directory.path),
        "parameters": num_trainable_parameters(run.forecaster.network),
        "windows": {name: len(splits.starts(name)) for name in SPLIT_NAMES},
        "batching": loaders.batching,
        "placement": config.placement,
        "world_size": communicator.world_size,
        "shard_sensors": communicator.space.size,
        "device": str(run.device),
        "calendar": list(source.calendar),
    }
    if started_from is not None:
        info["started_from"] = started_from.record
    return PreparedRun(
        run=run,
        trainer=trainer,
        loaders=loaders,
        info=info,
        choices=choices,
    )


def _warnings(run: Run) -> list[str]:
    """What may surprise in the results or the speed of a run, in one line each."""
    lines = [*run.splits.notes, *_history_notes(run)]
    if run.config.model.name == CUSTOM_MODEL:
        lines.append(
            "no module defines the network's class or function, with `shape` as first parameter: "
            f"opening the run will need {option('model')}"
        )
    if run.typical is not None:
        observed = run.typical.observed[:, list(run.source.target_indices)].any(axis=1)
        never = [run.store.meta.node_ids[sensor] for sensor in np.flatnonzero(~observed)]
        if never:
            lines.append(
                f"{count_of(len(never), 'sensor')} without an observed target in the training rows "
                f"({shorten(never)}): what is forecast there rests on the other sensors"
            )
    lines += note_unread_inputs(
        run.config.model.name, run.config.windows, run.source, run.forecaster
    )
    size, ranks = run.config.training.batch_size, run.communicator.data_size
    if size < ranks:
        who = "ranks" if ranks == run.communicator.world_size else "groups of ranks"
        lines.append(
            f"{ranks - size} of {ranks} {who} have no window of a batch to train on: "
            f"{option('batch_size', size)} is that of all ranks together; raise it, to "
            f"{option('batch_size', ranks)} or by {option('batch_size_per_rank')}, or launch fewer "
            "ranks"
        )
    targets = run.source.target_names
    if len(targets) > 1:
        lines.append(
            f"{len(targets)} targets ({', '.join(targets)}): the loss and the "
            f"errors over all of them mix their units; {option('windows.targets')} chooses"
        )
    if run.config.training.compile:
        lines.append("the network is compiled in the first step, which takes up to some minutes")
    if run.config.training.precision == "tf32" and not has_tf32(run.device):
        lines.append(
            f"precision tf32: {'a CPU' if run.device.type == 'cpu' else 'this GPU'} has no TF32 "
            "and computes in float32"
        )
    if run.config.training.precision == "bfloat16" and run.device.type == "cpu":
        speed = bfloat16_speed()
        if speed < 1:
            lines.append(
                f"precision bfloat16: this processor multiplies it {1 / speed:.0f} times as slowly "
                f"as float32; {option('precision', 'float32')} is faster here"
            )
    return lines


def _history_notes(run: Run) -> list[str]:
    """What windows look back on, and how much of it lies before the series."""
    source, steps = run.source, run.source.spec.history_steps
    if not steps:
        return []
    missing = (
        source.num_missing_history(np.asarray(run.splits.train, dtype=np.int64)).mean() / steps
    )
    line = f"history {', '.join(run.config.windows.history)}: {steps:,} earlier rows of each window"
    if missing:
        line += (
            f"; {missing:.1%} of those of the training windows lie before the series begins, or "
            "behind missing rows, and are missing"
        )
    return [line]


def check_edges(run: Run) -> None:
    """Refuse a model of the graph for a store without edges, unless the user allows it.

    Raises:
        ConfigError: saying how to give it edges, or to mean it.
    """
    meta, network = run.store.meta, run.forecaster.network
    needs_edges = getattr(network, "needs_edges", None)
    if needs_edges is None:  # the user's own
        asked = {"supports", "edge_index", "edge_weight"} & set(requested_inputs(network) or ())
        needs_edges = bool(asked)
    if (
        needs_edges
        and not meta.num_edges
        and meta.num_nodes > 1
        and not (run.config.training.allow_no_edges)
    ):
        raise ConfigError(
            f"the store {run.store.path} has no edges, and the model {run.config.model.name} "
            "passes readings along them: it would forecast each sensor alone; ingest the readings "
            f"with {option('graph')}, choose a model without a graph "
            f"({option('model', 'stid')}), or pass {option('allow_no_edges', value=True)} if this "
            "is meant"
        )


def _check_validation(source: WindowSource, starts: range | NDArray[np.int64]) -> None:
    """Refuse validation windows without any observed target: there would be no best parameters."""
    if not len(starts):
        return  # the trainer says so
    first, last = source.spec.input_steps, source.spec.span
    targets = list(source.target_indices)
    # The targets of a whole split are one run of rows.
    runs = [range(starts[0] + first, starts[-1] + last)]
    if not isinstance(starts, range):
        runs = [range(start + first, start + last) for start in starts.tolist()]
    if not any(source.store.moments(rows).count[targets].any() for rows in runs):
        raise DataError(
            f"no target of the {len(starts)} validation windows was observed in rows "
            f"{runs[0].start} to {runs[-1].stop - 1}: choose another split, or more "
            f"{option('val_windows')}"
        )
