"""Every option of a run, and its journey through `config.toml`."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self, get_args, get_origin, get_type_hints

import numpy as np

from pgti.batching import PLACEMENTS
from pgti.errors import ConfigError
from pgti.memory.available import parse_bytes
from pgti.store import SeriesStore
from pgti.training import TrainingConfig
from pgti.training.config import OrderName, to_toml
from pgti.windows import Splits, WindowSpec, split_by_fractions, split_by_rows

__all__ = [
    "ModelConfig",
    "RunConfig",
    "WindowConfig",
    "check_option_names",
    "parse_time",
    "read_toml",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """Which windows a run has and how they are split.

    Raises:
        ConfigError: if a size breaks its rule, or a split is given in two ways.
    """

    input_steps: int = 12
    """Rows that the model sees."""
    horizon: int = 12
    """Rows that it forecasts."""
    stride: int = 1
    """Rows between the starts of neighbouring windows."""
    targets: tuple[str, ...] = ()
    """Channels to forecast; all of them if empty."""
    calendar: tuple[str, ...] | None = None
    """Calendar features appended to the inputs (time-of-day, day-of-week); if not given, what fits
    the series and the model."""
    profile: bool = False
    """Append the typical reading of each sensor at that time of day, on working days or weekends,
    from training rows: for the input's row and for the row horizon steps later."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of train, validation and test windows, in time order."""
    val_from: str | None = None
    """First time whose reading is a validation target, ISO 8601; in place of fractions."""
    test_from: str | None = None
    """First time whose reading is a test target, ISO 8601; goes with val-from."""
    gap: int = 0
    """Rows left out between splits; input-steps + horizon - 1 keeps them from sharing any row."""

    def __post_init__(self) -> None:
        _ = self.spec
        self._check_lists()
        if (self.val_from is None) != (self.test_from is None):
            raise ConfigError(
                f"val_from is {self.val_from} and test_from {self.test_from}: "
                "a split by dates needs both"
            )

    def _check_lists(self) -> None:
        for name in ("targets", "calendar", "fractions"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ConfigError(f"{name} is {value!r}: it must be a list, such as ({value!r},)")
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        shares: tuple[object, ...] = self.fractions
        if len(shares) != 3 or not all(isinstance(sharding, float | int) for sharding in shares):
            raise ConfigError(
                f"fractions are {self.fractions}: they must be three numbers, for train, "
                "validation and test"
            )

    @property
    def spec(self) -> WindowSpec:
        """The window's shape."""
        return WindowSpec(input_steps=self.input_steps, horizon=self.horizon, stride=self.stride)

    def splits(self, store: SeriesStore) -> Splits:
        """Train, validation and test windows of a store.

        Raises:
            ConfigError: if the split leaves no training window, or names a time that is none.
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
    """Which model, and its options."""

    name: str = "dcrnn"
    """Name of the model."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of that model, by name; the rest have the model's defaults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that determines a run."""

    store: Path
    """The store to learn from."""
    windows: WindowConfig = field(default_factory=WindowConfig)
    """The windows and their split."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How to train."""
    batching: str = "auto"
    """Batching strategy; auto takes the fastest that fits."""
    placement: str = "replicated"
    """Where the training rows are on several ranks: replicated, every rank reads the whole series;
    partitioned, each holds its part of it."""
    device: str = "auto"
    """Compute device; auto takes a GPU where there is one."""
    memory_budget: int | None = None
    """Bytes that the process may use on the compute device; what is free there if not given."""

    def __post_init__(self) -> None:
        if self.placement not in PLACEMENTS:
            raise ConfigError(
                f"placement is {self.placement!r}: it is one of {', '.join(PLACEMENTS)}"
            )
        order = self.training.order
        if self.placement == "partitioned" and order == "blocks":
            raise ConfigError(
                "order is blocks and placement is partitioned: blocks of the whole series lie on "
                "any rank; use --order partitions, or global, which sends rows at every step"
            )

    def resolved(self) -> Self:
        """The same with the order that `auto` stands for, and the size of its blocks."""
        training = self.training
        if training.order == "auto":
            order: OrderName = "partitions" if self.placement == "partitioned" else "global"
            training = replace(training, order=order)
        if training.block_size is None:
            training = replace(training, block_size=training.default_block_size)
        return replace(self, training=training)

    def to_toml(self) -> str:
        """The text of `config.toml`; `from_toml` reads it back."""
        content = asdict(self)
        content["store"] = str(self.store)
        content["model"] = {"name": self.model.name, **self.model.options}
        return to_toml(content)

    def identity(self) -> dict[str, Any]:
        """The options outside `training` that a resumed run must share: what it computes from."""
        return {
            "windows": asdict(self.windows),
            "model": {"name": self.model.name, **self.model.options},
        }

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read a `config.toml`.

        Raises:
            ConfigError: if it is no TOML, or holds an unknown option or a value of a wrong type.
        """
        content = read_toml(path)
        check_option_names(path, content)
        model = dict(_table(path, content, "model"))
        if not isinstance(content.get("store"), str):
            raise ConfigError(f"{path} names no store")
        return cls(
            store=Path(content["store"]),
            windows=WindowConfig(**_options(path, content, "windows", WindowConfig)),
            model=ModelConfig(name=str(model.pop("name", "dcrnn")), options=model),
            training=TrainingConfig(**_options(path, content, "training", TrainingConfig)),
            batching=str(content.get("batching", "auto")),
            placement=str(content.get("placement", "replicated")),
            device=str(content.get("device", "auto")),
            memory_budget=_bytes_of(path, content.get("memory_budget")),
        )


def _bytes_of(path: Path, value: object) -> int | None:
    if value is None:
        return None
    return parse_bytes(f"{path}: memory_budget", value if isinstance(value, int) else str(value))


_TABLES: dict[str, type[WindowConfig | TrainingConfig]] = {
    "windows": WindowConfig,
    "training": TrainingConfig,
}


def parse_time(name: str, text: str) -> np.datetime64:
    """A wall-clock time, datetime64[s].

    Raises:
        ConfigError: if `text` is no ISO 8601 time.
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


def check_option_names(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse options that no run has; those of a model are the model's to check.

    Raises:
        ConfigError: naming the option and the nearest one that there is.
    """
    _check_names(path, "", content, {each.name for each in fields(RunConfig)})
    for name, config in _TABLES.items():
        known = {each.name for each in fields(config)}
        _check_names(path, f"{name}.", _table(path, content, name), known)


def _table(path: Path, content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: {name} must be a table, [{name}]")
    return table


def _check_names(path: Path, prefix: str, given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"{path}: there is no option {prefix}{name}; {hint}")


def _options(
    path: Path, content: Mapping[str, Any], name: str, config: type[WindowConfig | TrainingConfig]
) -> dict[str, Any]:
    """The options of a table, each of the type that its dataclass declares."""
    table = _table(path, content, name)
    hints = get_type_hints(config)
    return {key: _typed(f"{path}: {name}.{key}", value, hints[key]) for key, value in table.items()}


def _typed(where: str, value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    choices = get_args(hint) if get_origin(hint) is not None else (hint,)
    kinds = [kind for kind in choices if isinstance(kind, type)]
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kinds and type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
        raise ConfigError(f"{where} is {value!r}: it must be {expected}")
    return value
