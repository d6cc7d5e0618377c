"""From options to built objects."""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pgti.batching import Batcher, WindowConfig, WindowSource
from pgti.display import count_of
from pgti.errors import ConfigError, option
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import (
    MODELS,
    AbstractModel,
    Head,
    ModelFactory,
    ModelShape,
    add_heads,
    build_config,
    build_model,
    explain_failures,
    is_own_model,
    model_entry,
    name_of_own_model,
    requested_inputs,
)
from pgti.nn import ShardedSupports, Supports
from pgti.run.config import ModelConfig, RunConfig, published_calendar
from pgti.run.sharding import Shard, check_can_shard
from pgti.store import Scaler, SeriesStore, TypicalReadings
from pgti.training.bounds import bounds_of_targets

__all__ = [
    "build_forecaster",
    "explain_own_failures",
    "network_shape",
    "relocate_model",
    "resolve_device",
    "resolve_model",
    "shape_of_store",
    "try_network",
    "window_source",
]

_DEVICE = re.compile(r"cpu|cuda(:(0|[1-9][0-9]{0,2}))?")


def resolve_device(name: str, local_rank: int = 0, local_world_size: int = 1) -> torch.device:
    """The compute device called `name`; `auto` is a GPU where there is one, else the CPU.

    Where a machine has several ranks, `auto` and `cuda` are each rank's own GPU; one process has
    torch's current one. A GPU always has its index, which NCCL needs.

    Args:
        name: auto, cpu, cuda or cuda:n.
        local_rank: which rank of its machine this is.
        local_world_size: ranks of the machine.

    Raises:
        ConfigError: if it is none of these, or not there; if there are more ranks than GPUs.
    """
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if has_gpu else "cpu"
    if not _DEVICE.fullmatch(name):
        raise ConfigError(f"there is no device {name!r}: use auto, cpu, cuda or cuda:1")
    if name == "cpu":
        return torch.device("cpu")
    if not has_gpu:
        raise ConfigError(f"device is {name!r} and this machine has no usable GPU: use cpu")
    count = torch.cuda.device_count()
    if ":" in name:
        return torch.device(
            "cuda", _chosen_index(torch.device(name).index, count, local_world_size)
        )
    if local_world_size == 1:
        # Asking an unused GPU whether it is the current one would open a context on it.
        is_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call] # torch does not annotate it
        return torch.device("cuda", torch.cuda.current_device() if is_in_use else 0)
    if count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ:
        return torch.device("cuda", 0)  # the launcher shows each rank its own
    if local_world_size > count:
        raise ConfigError(
            f"{local_world_size} ranks run on this machine and it has {count_of(count, 'GPU')}: "
            f"each rank needs one; launch fewer, or use {option('device', 'cpu')}"
        )
    return torch.device("cuda", local_rank)


def _chosen_index(index: int, count: int, local_world_size: int) -> int:
    """The index that the user chose, which is there and no other rank's."""
    if index >= count:
        raise ConfigError(
            f"device is 'cuda:{index}' and this machine has {count_of(count, 'GPU')}: they count "
            f"from cuda:0 to cuda:{count - 1}"
        )
    if local_world_size > 1:
        raise ConfigError(
            f"device is 'cuda:{index}' and {local_world_size} ranks run on this machine: each "
            f"needs a GPU of its own; use {option('device', 'cuda')}"
        )
    return index


def resolve_model(config: ModelConfig, factory: ModelFactory | None = None) -> ModelConfig:
    """The same model with every option spelled out.

    Args:
        config: its name and options.
        factory: your own class or function, in place of the one that the name imports.

    Raises:
        ConfigError: if there is no such model or option, or a value cannot be used.
    """
    options = build_config(config.name, config.options, factory)
    return ModelConfig(name=config.name, options=asdict(options))


def relocate_model(config: ModelConfig, model: str | ModelFactory) -> ModelConfig:
    """The model of a run, whose own class or function is now `model`; its options stay.

    Raises:
        ConfigError: if the run's model is registered, and `model` is another one.
    """
    if model == config.name:
        return config
    if not is_own_model(config.name) or (isinstance(model, str) and not is_own_model(model)):
        raise ConfigError(
            f"the run was trained with the model {config.name}: leave {option('model')} out"
        )
    name = model if isinstance(model, str) else name_of_own_model(model)
    return ModelConfig(name=name, options=config.options)


def window_source(
    config: RunConfig,
    store: SeriesStore,
    scaler: Scaler | None = None,
    typical: TypicalReadings | None = None,
    sensors: NDArray[np.int64] | None = None,
) -> WindowSource:
    """What the windows of a run hold.

    Args:
        config: every option.
        store: the series.
        scaler: standardisation of the inputs; fitted on the training rows if not given.
        typical: what each sensor usually reads; likewise, where the inputs need it.
        sensors: positions of this rank's, where sensors are split over ranks; all by default.

    Raises:
        ConfigError: if there is no such model.
        DataError: if a target channel is not in the store.
    """
    name = config.model.name
    day_of_week = not is_own_model(name) and model_entry(name).model.uses_day_of_week
    source = WindowSource.from_config(
        store, config.windows, scaler, typical=typical, day_of_week=day_of_week
    )
    return source if sensors is None else replace(source, sensors=sensors)


def shape_of_store(store: SeriesStore, windows: WindowConfig, model: str) -> ModelShape:
    """The sizes that windows of a store ask of the network called `model`.

    Raises:
        ConfigError, DataError: as `WindowConfig.splits`, `model_entry` and `window_source`.
    """
    windows = replace(windows, fill="mean")  # of the same shape, without a pass over the series
    windows = published_calendar(windows, model)
    config = RunConfig(store=store.path, windows=windows, model=ModelConfig(name=model))
    return window_source(config, store).shape


def network_shape(config: RunConfig, source: WindowSource) -> ModelShape:
    """The sizes that a run asks of its network: with quantiles, each target is there Q times."""
    shape, num_quantiles = source.shape, len(config.training.quantiles)
    if not num_quantiles:
        return shape
    indices = tuple(index for index in shape.target_indices for _ in range(num_quantiles))
    return replace(shape, target_channels=len(indices), target_indices=indices)


def build_forecaster(
    config: RunConfig,
    source: WindowSource,
    factory: ModelFactory | None,
    device: torch.device | None = None,
    *,
    is_restored: bool = False,
    shard: Shard | None = None,
) -> NetworkForecaster:
    """The network with its un-scaling, on the compute device, its parameters drawn from the seed.

    Args:
        config: the model, its options and the seed.
        source: what the windows hold.
        factory: your own class or function, in place of the one that the model's name imports.
        device: the compute device; the configuration's by default.
        is_restored: whether the parameters of a checkpoint will replace the initial ones.
        shard: which sensors are this rank's, if they are split over ranks.

    Raises:
        ConfigError: if the model cannot be found or built, or works on all sensors only.
    """
    channels, shape = source.network_channels, network_shape(config, source)
    device = resolve_device(config.device) if device is None else device
    torch.manual_seed(config.training.seed)
    network = build_model(
        config.model.name,
        config.model.options,
        shape,
        factory=factory,
        is_restored=is_restored,
    )
    heads = add_heads(network, shape, covariates=config.windows.covariates)
    _check_history(network, heads, shape, config.model.name)
    forecaster = NetworkForecaster(
        network,
        _supports(network, source.store.graph, shard, config.model.name),
        source.scaler,
        source.target_indices,
        config.training.seed,
        source.sensors,
        None if channels is None else (channels, source.input_indices),
        quantile_levels=config.training.quantiles,
        bounds=bounds_of_targets(config.training.bounds, source.target_names),
        heads=heads,
    )
    forecaster.deterministic = config.training.deterministic
    return forecaster.to(device)


def _check_history(
    network: nn.Module, heads: tuple[Head, ...], shape: ModelShape, name: str
) -> None:
    """Refuse history that nothing looks at: its rows would be read for nothing."""
    reads = set(requested_inputs(network) or ()).union(*(head.reads for head in heads))
    if not shape.history or {"history", "history_mask"} & reads:
        return
    takers = [each for each, entry in MODELS.items() if entry.reads_any_history]
    raise ConfigError(
        f"the windows have a history of {shape.history_steps:,} rows, and the model {name} sees "
        f"whole earlier days alone: give {option('windows.history', ('1d..7d',))}, leave it out, "
        f"or use {', '.join(takers)}, which read any history"
    )


def _supports(network: nn.Module, graph: SensorGraph, shard: Shard | None, name: str) -> Supports:
    """The operators of the graph that the network diffuses with; none if it does not ask."""
    if shard is not None:
        kind = check_can_shard(network, name)
        return ShardedSupports.cut(graph, kind, shard.partition, shard.group)
    if isinstance(network, AbstractModel):
        return network.build_supports(graph)
    requested = requested_inputs(network)
    if requested is not None and "supports" not in requested:
        return Supports.from_graph(graph, "none")
    return Supports.from_graph(graph, getattr(network, "support_kind", "dual_random_walk"))


def explain_own_failures(network: nn.Module, what: str) -> AbstractContextManager[None]:
    """As `explain_failures`, if the network is not of this package."""
    is_own = not type(network).__module__.startswith("pgti.")
    return explain_failures(what) if is_own else nullcontext()


def try_network(forecaster: NetworkForecaster, batcher: Batcher[Any], start: int) -> None:
    """Run one window through the network, to refuse at once a network that cannot work.

    Parameters and torch's generators stay as they are.

    Args:
        forecaster: the network with its un-scaling.
        batcher: makes the window.
        start: its first row.

    Raises:
        ConfigError: if the network raises an error, or returns anything but a tensor of the right
            shape.
    """
    batch = batcher.gather(np.array([start]))
    devices = [batch.x.device] if batch.x.device.type == "cuda" else []
    forecaster.eval()
    # Not inference_mode: what a network caches here must be usable in training later.
    what = f"the network failed on one window, x {list(batch.x.shape)}"
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=devices),
        explain_own_failures(forecaster.network, what),
    ):
        forecaster(batch)
    forecaster.train()
