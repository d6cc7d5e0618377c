"""From options to built objects."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import nn

from pgti.batching import WindowSource
from pgti.errors import ConfigError
from pgti.models import ModelShape, build_config, build_model
from pgti.nn import Supports
from pgti.run.config import ModelConfig, RunConfig
from pgti.series import Scaler, SeriesStore
from pgti.training import NetworkForecaster

__all__ = [
    "CUSTOM_MODEL",
    "NUM_SLOTS",
    "ModelFactory",
    "build_forecaster",
    "resolve_device",
    "resolved_model",
    "window_source",
]

NUM_SLOTS = 3  # one batch in use, one ready, one being fetched
CUSTOM_MODEL = "custom"
"""Name, in a configuration, of a network that the user's own function makes."""

ModelFactory = Callable[[ModelShape], nn.Module]
"""Makes a network of one's own once the sizes of the data are known."""


def resolve_device(name: str) -> torch.device:
    """The compute device called `name`; `auto` is a GPU where there is one, else the CPU.

    Raises:
        ConfigError: if torch knows no such device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"there is no device {name!r}: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r} and this machine has no usable GPU: use cpu")
    return device


def resolved_model(config: ModelConfig) -> ModelConfig:
    """The same model with every option spelled out.

    Raises:
        ConfigError: if there is no such model or option, or a value cannot be used.
    """
    if config.name == CUSTOM_MODEL:
        return config
    return ModelConfig(name=config.name, options=asdict(build_config(config.name, config.options)))


def window_source(config: RunConfig, store: SeriesStore, scaler: Scaler) -> WindowSource:
    """What the windows of a run hold.

    Raises:
        DataError: if a target channel is not in the store.
    """
    return WindowSource(
        store=store,
        spec=config.windows.spec,
        scaler=scaler,
        target_indices=config.windows.target_indices(store),
        calendar=config.windows.calendar_of(store),
    )


def build_forecaster(
    config: RunConfig, source: WindowSource, factory: ModelFactory | None
) -> NetworkForecaster:
    """The network with its un-scaling, on the compute device, its parameters drawn from the seed.

    Raises:
        ConfigError: if the model cannot be built, or a network of one's own is needed.
    """
    shape = ModelShape(
        input_steps=source.spec.input_steps,
        horizon=source.spec.horizon,
        num_nodes=source.store.meta.num_nodes,
        input_channels=source.num_input_channels,
        target_channels=len(source.target_indices),
        target_indices=source.target_indices,
        calendar_channels=len(source.calendar),
    )
    device = resolve_device(config.device)
    torch.manual_seed(config.training.seed)
    if factory is not None:
        network = factory(shape)
    elif config.model.name == CUSTOM_MODEL:
        raise ConfigError(
            "the run was trained with a network of its own: give the function that makes it "
            "as model="
        )
    else:
        network = build_model(config.model.name, config.model.options, shape)
    forecaster = NetworkForecaster(
        network,
        Supports.from_graph(source.store.graph),
        source.scaler,
        source.target_indices,
        config.training.seed,
    )
    return forecaster.to(device)
