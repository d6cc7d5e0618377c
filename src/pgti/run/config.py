"""Every option of a run, and its journey through `config.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import tomli_w

from pgti.batching import WindowConfig
from pgti.batching.config import upgrade_window_options
from pgti.errors import ConfigError, option, require_whole_number
from pgti.memory import parse_bytes
from pgti.options import check_names, convert_fields, parse_config
from pgti.storage import read_small_file
from pgti.training import TrainingConfig
from pgti.training.compatibility import upgrade_training_options
from pgti.training.config import exclusive_batch_sizes
from pgti.training.orders import BlocksOrder
from pgti.windows import Placement

__all__ = [
    "ModelConfig",
    "RunConfig",
    "complete_settings",
    "earlier_options",
    "published_calendar",
    "read_toml",
    "upgrade_options",
]

_EARLIER_WINDOWS = {"fill": "mean", "across_holes": True, "covariates": False}
"""What runs did of versions that did not have the option yet, where it is not its default now."""

_EARLIER_CALENDAR = ("default",)
"""What a calendar that was not given meant for models that are published without the time of day,
whose runs of this version always name their calendar."""

_BATCH_SIZES = ("batch_size", "batch_size_per_rank")

_TABLES = ("windows", "model", "training")

_MAX_TOML_BYTES = 1 << 20  # a file of options has a few thousand
_MAX_TOML_BITS = 64
_MAX_TOML_DEPTH = 32  # of tables and lists; options take four


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
        batching: How batches are built: index, device, standard or auto. "index" gathers windows
            from the store, "device" from a copy of the series on the compute device (of a
            partitioned placement, of the rank's part), "standard" materializes all windows (for
            comparison), "auto" chooses the fastest that fits.
        placement: Where the training rows are when several ranks train (torchrun, srun, mpirun).
            "replicated" maps the whole store on every rank, "partitioned" gives each rank its part
            of the series, in host memory or on its device.
        shard_sensors: Ranks that share the sensors of each window, for graphs that exceed a device
            or take long on one; 1 gives every rank all sensors.
        device: Compute device: auto, cpu, cuda or cuda:1. With several ranks, auto and cuda mean
            each rank's own GPU.
        recipe: Published recipe that the options began from, whose errors stand beside the run's.
        memory_budget: Memory that the process may use on that device, in bytes or as text such as
            2GiB. By default the free memory.
    """

    store: Path
    windows: WindowConfig = field(default_factory=WindowConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    batching: str = "auto"
    placement: Placement = "replicated"
    shard_sensors: int = 1
    device: str = "auto"
    memory_budget: int | None = None
    recipe: str | None = None

    def __post_init__(self) -> None:
        if self.memory_budget is not None:
            budget = parse_bytes("memory_budget", self.memory_budget)
            object.__setattr__(self, "memory_budget", budget)
        convert_fields(self)
        require_whole_number("shard_sensors", self.shard_sensors, 1)
        if self.placement == "partitioned" and self.shard_sensors > 1:
            raise ConfigError(
                f"shard_sensors is {self.shard_sensors} and placement is partitioned: a rank holds "
                "a part of the sensors or a part of the time; leave "
                f"{option('placement')} out"
            )
        if self.training.compile and self.shard_sensors > 1:
            raise ConfigError(
                f"shard_sensors is {self.shard_sensors} and compile is on: products then exchange "
                f"rows with other ranks, which is not compiled; leave {option('compile')} out"
            )
        if self.placement == "partitioned" and isinstance(self.training.order, BlocksOrder):
            raise ConfigError(
                "order is blocks and placement is partitioned: blocks of the whole series lie on "
                f"any rank; use {option('order', 'partitions')}, or global, which sends rows at "
                "every step"
            )

    def resolved(self, world_size: int = 1) -> Self:
        """The same with the model's calendar, the batch of all ranks, the order and its blocks.

        Args:
            world_size: number of ranks that train together.
        """
        groups = max(1, world_size // self.shard_sensors)  # those that share sensors share windows
        return replace(
            self,
            windows=published_calendar(self.windows, self.model.name),
            training=self.training.resolved(self.placement, groups),
        )

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

    def override(self, options: Mapping[str, Any]) -> Self:
        """The same with some options replaced.

        Another model or another kind of an option replaces the whole table.

        Args:
            options: nested as `from_options` takes them.

        Raises:
            ConfigError: if an option is unknown or has a wrong value.
        """
        try:
            _check_batch_sizes(options)
            return type(self).from_options(_merge(self.to_options(), options))
        except ConfigError as error:
            # Options of the training loop stand alone, in Python and on the command line.
            raise ConfigError(str(error).removeprefix("training.")) from None

    @classmethod
    def from_toml(
        cls, path: Path, store: Path | None = None, options: Mapping[str, Any] | None = None
    ) -> Self:
        """Read a `config.toml`, of this version or an earlier one.

        Args:
            path: the file.
            store: the store, in place of the one that the file names.
            options: options that come before the file's, nested as `from_options` takes them.

        Raises:
            ConfigError: if it cannot be read, or an option is unknown or has a wrong value.
        """
        content = read_toml(path)
        if store is not None:
            content["store"] = store
        if "store" not in content:
            raise ConfigError(f"{path} names no store")
        try:
            content = upgrade_options(content)
            _check_batch_sizes(content)
            return cls.from_options(_merge(content, options or {}))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def of_run(cls, path: Path, store: Path | None = None) -> Self:
        """Read the `config.toml` of a run, as the version meant it that wrote it.

        Args:
            path: the file in the run's directory.
            store: the store, in place of the one that the file names.

        Raises:
            ConfigError: as `from_toml`.
        """
        return cls.from_toml(path, store, {"windows": earlier_options(path)})

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Build a configuration from plain values, nested as in `config.toml`.

        Raises:
            ConfigError: if an option is unknown or has a wrong value.
        """
        check_names(options, (each.name for each in fields(cls)))
        windows, model, training = (options.get(name, {}) for name in _TABLES)
        model = {"name": model} if isinstance(model, str) else model
        for name, table in zip(_TABLES, (windows, model, training), strict=True):
            if not isinstance(table, Mapping):
                raise ConfigError(f"{name} is {table!r}: it must be a table of options by name")
        values = {
            **options,
            "windows": parse_config(WindowConfig, windows, "windows"),
            "model": parse_config(
                ModelConfig,
                {
                    "name": model.get("name", ModelConfig().name),
                    "options": {key: value for key, value in model.items() if key != "name"},
                },
                "model",
            ),
            "training": parse_config(
                TrainingConfig, upgrade_training_options(training), "training"
            ),
        }
        return cls(**values)


def upgrade_options(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a configuration file, with the options of earlier versions as they are now."""
    upgraded = dict(content)
    for name, upgrade in (
        ("windows", upgrade_window_options),
        ("training", upgrade_training_options),
    ):
        if isinstance(table := content.get(name), Mapping):
            upgraded[name] = upgrade(table)
    return upgraded


def earlier_options(path: Path) -> dict[str, Any]:
    """Options of the windows that the `config.toml` of a run lacks, with what the run does.

    Raises:
        ConfigError: if the file cannot be read.
    """
    content = read_toml(path)
    windows, model = content.get("windows", {}), content.get("model", {})
    known = {name: value for name, value in _EARLIER_WINDOWS.items() if name not in windows}
    name = model.get("name", ModelConfig().name) if isinstance(model, Mapping) else model
    if "calendar" not in windows and not _has_time_of_day(name):
        known["calendar"] = _EARLIER_CALENDAR
    return known


def published_calendar(windows: WindowConfig, model: str) -> WindowConfig:
    """Windows without a calendar, if none is given and the model is published without one."""
    if windows.calendar is not None or _has_time_of_day(model):
        return windows
    return replace(windows, calendar=())


def _has_time_of_day(model: str) -> bool:
    """False of a model that is published without the time of day."""
    from pgti.models import MODELS, is_own_model  # noqa: PLC0415 - help needs no torch

    is_known = not is_own_model(model) and model in MODELS
    return not is_known or MODELS[model].model.uses_time_of_day


def complete_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a checkpoint, with what earlier versions did in place of what they lack."""
    known = upgrade_window_options(settings.get("windows", {}))
    windows = {**asdict(WindowConfig()), **_EARLIER_WINDOWS, **known}
    if windows["calendar"] is None and not _has_time_of_day(settings["model"]["name"]):
        windows["calendar"] = _EARLIER_CALENDAR
    return {**settings, "windows": windows, "model": _complete_model(settings["model"])}


def _complete_model(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model of an earlier version, with the defaults of options that it did not have yet."""
    from pgti.models import build_config, is_own_model  # noqa: PLC0415 - help needs no torch

    name = model["name"]
    if is_own_model(name):
        return model
    options = {key: value for key, value in model.items() if key != "name"}
    return {"name": name, **asdict(build_config(name, options))}


def _check_batch_sizes(options: Mapping[str, Any]) -> None:
    """Refuse both sizes of a batch at once: one of them would be ignored."""
    training = options.get("training")
    if isinstance(training, Mapping):
        whole, per_rank = map(training.get, _BATCH_SIZES)
        if whole is not None and per_rank is not None:
            raise exclusive_batch_sizes(whole, per_rank)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one, in which `above` comes first.

    Another model, or another kind of an option, replaces the table below, and one of the two batch
    sizes the other.
    """
    replaced = _BATCH_SIZES if any(above.get(name) is not None for name in _BATCH_SIZES) else ()
    merged = {name: value for name, value in below.items() if name not in replaced}
    for name, value in above.items():
        merged[name] = value
        table = below.get(name)
        if isinstance(value, Mapping) and isinstance(table, str):
            table = {"kind": table}  # the short form of a table without options
        if isinstance(value, Mapping) and isinstance(table, Mapping):
            is_other = any(
                value[tag] != table.get(tag, value[tag]) for tag in ("kind", "name") if tag in value
            )
            merged[name] = value if is_other else _merge(table, value)
    return merged


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table without options that are None, which TOML cannot hold; None is their default."""
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in table.items()
        if value is not None
    }


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: if it cannot be read or parsed.
    """
    what = f"the configuration {path}"
    content = read_small_file(path, what, _MAX_TOML_BYTES, ConfigError)
    try:
        options = tomllib.loads(content.decode())
        _check_toml(options, _MAX_TOML_DEPTH)
        return options
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} cannot be read: {error}") from None
    except RecursionError:
        raise ConfigError(f"{what} has tables or lists within each other too deeply") from None
    except ValueError as error:  # of syntax, and of a number of thousands of digits
        raise ConfigError(f"{what} is not valid TOML: {error}") from None


def _check_toml(value: Any, depth: int) -> None:
    """Refuse what Python reads and TOML has not, or no option: long numbers, and many levels.

    Raises:
        RecursionError: if there are more levels than `depth`.
        ValueError: naming the length of the number.
    """
    if isinstance(value, int) and value.bit_length() > _MAX_TOML_BITS:
        raise ValueError(f"a whole number of {value.bit_length()} bits, and TOML has 64")
    if isinstance(value, dict | list):
        if not depth:
            raise RecursionError
        for each in value.values() if isinstance(value, dict) else value:
            _check_toml(each, depth - 1)
