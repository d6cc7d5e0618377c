"""Every option of a run, and its journey through `config.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import tomli_w

from pgti.batching import Placement
from pgti.errors import ConfigError, option
from pgti.memory import parse_bytes
from pgti.options import check_names, convert_fields, parse_config
from pgti.store import SeriesStore
from pgti.training import TrainingConfig
from pgti.training.compatibility import upgrade_training_options
from pgti.training.config import BlocksOrder
from pgti.windows import Splits, WindowSpec, split_by_fractions, split_by_rows

__all__ = [
    "ModelConfig",
    "RunConfig",
    "WindowConfig",
    "parse_time",
    "read_toml",
]


_TABLES = ("windows", "model", "training")


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """Shape and split of the windows.

    Attributes:
        input_steps: Time steps that the model sees.
        horizon: Time steps that it forecasts.
        stride: Time steps between the starts of neighbouring windows.
        targets: Channels to forecast. By default all of them.
        calendar: Calendar features to append to the inputs: time-of-day, day-of-week. By default
            those that suit the series and the model.
        profile: Append typical-day features to the inputs: the mean of each sensor at that time of
            day, on working days or on weekends, over the training rows; for the time step itself
            and for the time step one horizon later.
        fractions: Fractions of train, validation and test windows, in time order.
        val_from: Time of the first validation target, ISO 8601, instead of fractions.
        test_from: Time of the first test target, ISO 8601; required with val-from.
        gap: Time steps left out between splits. With input-steps + horizon - 1, splits share no
            time step.

    Raises:
        ConfigError: if a size breaks its rule, or a split is given in two ways.
    """

    input_steps: int = 12
    horizon: int = 12
    stride: int = 1
    targets: tuple[str, ...] = ()
    calendar: tuple[str, ...] | None = None
    profile: bool = False
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    val_from: str | None = None
    test_from: str | None = None
    gap: int = 0

    def __post_init__(self) -> None:
        convert_fields(self)
        _ = self.spec
        if (self.val_from is None) != (self.test_from is None):
            raise ConfigError(
                f"val_from is {self.val_from} and test_from {self.test_from}: "
                "a split by dates needs both"
            )

    @property
    def spec(self) -> WindowSpec:
        """The window's shape."""
        return WindowSpec(input_steps=self.input_steps, horizon=self.horizon, stride=self.stride)

    def splits(self, store: SeriesStore) -> Splits:
        """Train, validation and test windows of a store.

        Raises:
            ConfigError: if the split leaves no training window, or a time is not valid.
        """
        num_steps = store.meta.num_steps
        if self.val_from is None or self.test_from is None:
            return split_by_fractions(num_steps, self.spec, self.fractions, self.gap)
        return split_by_rows(
            num_steps,
            self.spec,
            val_row=store.time_axis.row_of(parse_time("val_from", self.val_from)),
            test_row=store.time_axis.row_of(parse_time("test_from", self.test_from)),
            gap=self.gap,
        )

    def target_indices(self, store: SeriesStore) -> tuple[int, ...]:
        """Positions of the target channels."""
        return store.channel_indices(self.targets or store.meta.channels)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A model by name.

    Attributes:
        name: Name of the model.
        options: Options of that model by name; the others have the model's defaults.
    """

    name: str = "dcrnn"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        convert_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that determines a run.

    Attributes:
        store: The store to learn from.
        windows: Shape and split of the windows.
        model: The model.
        training: Options of the training loop.
        batching: How batches are built: "index" gathers windows from the store, "device" from a
            copy of the series on the compute device, "standard" materializes all windows (for
            comparison), "auto" chooses the fastest that fits.
        placement: Where the training rows are when several ranks train (torchrun, srun, mpirun):
            "replicated" maps the whole store on every rank, "partitioned" gives each rank its part
            of the series.
        device: Compute device: auto, cpu, cuda or cuda:1. With several ranks, auto and cuda mean
            each rank's own GPU.
        memory_budget: Memory that the process may use on that device, in bytes or as text such as
            2GiB. By default the free memory.
    """

    store: Path
    windows: WindowConfig = field(default_factory=WindowConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    batching: str = "auto"
    placement: Placement = "replicated"
    device: str = "auto"
    memory_budget: int | None = None

    def __post_init__(self) -> None:
        if self.memory_budget is not None:
            budget = parse_bytes("memory_budget", self.memory_budget)
            object.__setattr__(self, "memory_budget", budget)
        convert_fields(self)
        if self.placement == "partitioned" and isinstance(self.training.order, BlocksOrder):
            raise ConfigError(
                "order is blocks and placement is partitioned: blocks of the whole series lie on "
                f"any rank; use {option('order', 'partitions')}, or global, which sends rows at "
                "every step"
            )

    def resolved(self) -> Self:
        """The same with the order that `auto` stands for, and the size of its blocks."""
        return replace(self, training=self.training.resolved(self.placement))

    def to_toml(self) -> str:
        """The text of `config.toml`; `from_toml` reads it back."""
        try:
            return tomli_w.dumps(_without_none(self.to_options()))
        except TypeError as error:  # an option of a user's own model
            raise ConfigError(f"the options cannot be written as TOML: {error}") from None

    def to_options(self) -> dict[str, Any]:
        """Every option as a plain value, nested as `from_options` takes them."""
        model = {"name": self.model.name, **self.model.options}
        return {**asdict(self), "store": str(self.store), "model": model}

    def settings(self) -> dict[str, Any]:
        """The options that determine the run, as nested plain values: a checkpoint stores them."""
        options = self.to_options()
        return {name: options[name] for name in ("windows", "model", "training")}

    @classmethod
    def from_toml(cls, path: Path, store: Path | None = None) -> Self:
        """Read a `config.toml`, of this version or of 0.1.

        Args:
            path: the file.
            store: the store, in place of the one that the file names.

        Raises:
            ConfigError: if it cannot be read, or an option is unknown or has a wrong value.
        """
        content = read_toml(path)
        if store is not None:
            content["store"] = store
        if "store" not in content:
            raise ConfigError(f"{path} names no store")
        try:
            return cls.from_options(content)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Build a configuration from plain values, nested as in `config.toml`.

        Raises:
            ConfigError: if an option is unknown or has a wrong value.
        """
        check_names(options, (each.name for each in fields(cls)))
        windows, model, training = (options.get(name, {}) for name in _TABLES)
        for name, table in zip(_TABLES, (windows, model, training), strict=True):
            if not isinstance(table, Mapping):
                raise ConfigError(f"{name} is {table!r}: it must be a table, [{name}]")
        values = {
            **options,
            "windows": parse_config(WindowConfig, windows, "windows"),
            "model": ModelConfig(
                name=model.get("name", "dcrnn"),
                options={name: value for name, value in model.items() if name != "name"},
            ),
            "training": parse_config(
                TrainingConfig, upgrade_training_options(training), "training"
            ),
        }
        return cls(**values)


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table without options that are None, which TOML cannot hold; None is their default."""
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in table.items()
        if value is not None
    }


def parse_time(name: str, text: str) -> np.datetime64:
    """A wall-clock time, datetime64[s].

    Raises:
        ConfigError: if `text` is not an ISO 8601 time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{name} is {text!r}: it must be a time such as 2025-10-22 or 2025-10-22T06:00"
        ) from None
    if moment.tzinfo is not None:
        raise ConfigError(
            f"{name} is {text!r}: it must be a wall-clock time without an offset, in the series' "
            "own zone"
        )
    return np.datetime64(moment, "s")


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: if it cannot be read or parsed.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration {path} is not valid TOML: {error}") from None
