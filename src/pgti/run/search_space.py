"""What a search chooses from: ranges and choices of options, checked before any trial."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from pgti.errors import ConfigError, PgtiError, option
from pgti.models import ModelFactory, is_own_model
from pgti.options import check_names
from pgti.run.build import resolve_model, shape_of_store
from pgti.run.config import RunConfig, read_toml
from pgti.store import SeriesStore
from pgti.training import TrainingConfig

__all__ = ["Dimension", "SearchSpace"]

_KEYS = ("low", "high", "log", "step", "choices")
_TABLES = ("windows", "model", "training")
_COMPARED = {
    *("windows.horizon", "windows.targets", "windows.fractions", "windows.val_from"),
    *("windows.test_from", "windows.gap", "windows.stride", "windows.across_holes"),
    "training.val_windows",
}
"""Options without which validation errors of two trials are of other targets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """An option and what it may be: a range, or choices.

    Attributes:
        low: lowest value of a range.
        high: highest value.
        log: whether values are drawn by their logarithm.
        step: between two values of a range.
        choices: the values, in place of a range; tables stand for an option with variants.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Any, ...] = ()

    @classmethod
    def of(cls, name: str, given: Any) -> Self:
        """The dimension that a table or a list describes.

        Raises:
            ConfigError: naming the option and the rule.
        """
        if isinstance(given, list | tuple):
            given = {"choices": given}
        check_names(given, _KEYS, f"{name}: ")
        if "choices" in given:
            return cls._of_choices(name, given)
        for key in ("low", "high"):
            if key not in given:
                raise ConfigError(f"{name} has no {key}: a range has low and high, or give choices")
        for key in ("low", "high", "step"):
            value = given.get(key, 1)
            if isinstance(value, bool) or not isinstance(value, int | float) or _is_odd(value):
                raise ConfigError(f"{name}: {key} is {value!r}: it must be a number")
        found = cls(**given)
        found._check_range(name)
        return found

    def _check_range(self, name: str) -> None:
        low, high = self._ends
        if low >= high:
            raise ConfigError(f"{name}: low is {low} and high is {high}: low must be less")
        if not isinstance(self.log, bool):
            raise ConfigError(f"{name}: log is {self.log!r}: it must be true or false")
        if self.log and low <= 0:
            raise ConfigError(f"{name}: low is {low} and log is true: it must be above 0")
        if self.log and self.step is not None:
            raise ConfigError(f"{name} has log and step: they exclude each other")
        if self.step is not None and not 0 < self.step <= high - low:
            raise ConfigError(
                f"{name}: step is {self.step}: it must be above 0 and at most high - low, "
                f"{high - low}"
            )
        if self.step is not None and (_exact(high) - _exact(low)) % _exact(self.step) != 0:
            raise ConfigError(
                f"{name}: step is {self.step} and high - low is {high - low}: it must be a "
                "multiple of the step"
            )

    @property
    def _ends(self) -> tuple[Any, Any]:
        return self.low, self.high

    @classmethod
    def _of_choices(cls, name: str, given: Mapping[str, Any]) -> Self:
        choices = given["choices"]
        if len(given) > 1:
            raise ConfigError(f"{name} has choices and a range: give one of them")
        if not isinstance(choices, list | tuple) or len(choices) < 2:
            raise ConfigError(f"{name}: choices are {choices!r}: there must be two at least")
        known = [_encode(each) for each in choices]
        for number, each in enumerate(known):
            if any(each == other and type(each) is type(other) for other in known[:number]):
                raise ConfigError(f"{name}: choices have {each!r} twice")
        return cls(choices=tuple(choices))

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values that stand for all: the ends of a range, or each choice."""
        return self.choices or (self.low, self.high)

    def decode(self, value: Any) -> Any:
        """The value of the option that a parameter of the search stands for."""
        return next((each for each in self.choices if _encode(each) == value), value)

    def distribution(self, *, is_float: bool) -> Any:
        """What Optuna draws from.

        Args:
            is_float: whether the option is a number with digits, even if the ends are whole.
        """
        from optuna import distributions  # noqa: PLC0415 - an extra

        if self.choices:
            return distributions.CategoricalDistribution([_encode(each) for each in self.choices])
        low, high = self._ends
        step: Any = self.step
        if is_float or any(isinstance(each, float) for each in (low, high, step)):
            return distributions.FloatDistribution(low, high, log=self.log, step=step)
        return distributions.IntDistribution(low, high, log=self.log, step=step or 1)


@dataclass(frozen=True, eq=False, slots=True)
class SearchSpace:
    """Options by dotted name, as in a configuration file ("training.learning_rate").

    Attributes:
        dimensions: what each may be.
    """

    dimensions: Mapping[str, Dimension]

    @classmethod
    def of(cls, given: Path | str | Mapping[str, Any]) -> Self:
        """The space that a TOML file or a mapping describes.

        Args:
            given: tables with low and high (and log or step) or choices, by the name of their
                option: dotted, or in tables as in a configuration. A list stands for choices.

        Raises:
            ConfigError: if the file cannot be read, a name is no option, or a rule is broken.
        """
        if isinstance(given, str | Path):
            path = Path(given)
            try:
                return cls.of(read_toml(path))
            except ConfigError as error:
                raise ConfigError(
                    f"{path}: {error}".replace(f"{path}: the con", "the con")
                ) from None
        dimensions: dict[str, Dimension] = {}
        for name, each in _leaves(given):
            name = _full_name(name)  # noqa: PLW2901 - the name of the option
            if name in dimensions:
                raise ConfigError(f"the space has {name} twice")
            dimensions[name] = Dimension.of(name, each)
        if not dimensions:
            raise ConfigError("the space is empty: name an option, and low and high or choices")
        return cls(dimensions)

    def configure(self, config: RunConfig, params: Mapping[str, Any]) -> RunConfig:
        """The configuration of a trial.

        Args:
            config: where the search starts.
            params: a parameter for each dimension.

        Raises:
            ConfigError: if they do not go together.
        """
        options: dict[str, Any] = {}
        for name in sorted(params, key=lambda each: each.count(".")):
            *tables, last = name.split(".")
            table = options
            for each in tables:
                inner = table.get(each)
                table[each] = dict(inner) if isinstance(inner, Mapping) else {}
                table = table[each]
            value = _underscored(self.dimensions[name].decode(params[name]))
            known = table.get(last)
            table[last] = {**value, **known} if isinstance(known, Mapping) else value
        return config.override(options)

    def distributions(
        self, config: RunConfig, store: SeriesStore, factory: ModelFactory | None
    ) -> dict[str, Any]:
        """What Optuna draws from, once each end of a range and each choice is known to be allowed.

        Args:
            config: where the search starts.
            store: to train on.
            factory: the user's own class or function.

        Raises:
            PgtiError: naming the option and the value that cannot be trained.
        """
        first = {name: _encode(each.extremes[0]) for name, each in self.dimensions.items()}
        found = {}
        for name, dimension in self.dimensions.items():
            for value in dimension.extremes:
                params = first | {name: _encode(value)}
                try:
                    tried = self.configure(config, params)
                    _check(tried, store, factory)
                except PgtiError as error:
                    wrong = next((each for each in params if each in str(error)), name)
                    shown = self.dimensions[wrong].decode(params[wrong])
                    raise type(error)(f"the space has {wrong} = {shown!r}: {error}") from None
            is_float = isinstance(_value_of(tried, name, factory), float)
            found[name] = dimension.distribution(is_float=is_float)
        return found

    def params_of(
        self, config: RunConfig, factory: ModelFactory | None, distributions: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a configuration itself has of the space, to be the first trial."""
        found = {}
        for name, distribution in distributions.items():
            value = _value_of(config, name, factory)
            if isinstance(value, Mapping) and self.dimensions[name].choices:
                value = value.get("kind", value)
            if isinstance(value, tuple | list | Mapping) or value is None:
                continue
            if self.dimensions[name].choices:
                if value in distribution.choices:
                    found[name] = value
            elif isinstance(value, int | float) and distribution._contains(value):
                found[name] = value
        return found

    def to_plain(self) -> dict[str, Any]:
        """The space as plain values, to compare it with that of an earlier start."""
        return {
            name: {each.name: getattr(dimension, each.name) for each in fields(dimension)}
            for name, dimension in self.dimensions.items()
        }


def _is_odd(value: int | float) -> bool:
    return not math.isfinite(value)


def _exact(value: int | float) -> Fraction:
    """The number that the shortest text of a number stands for."""
    return Fraction(str(value))


def _check(config: RunConfig, store: SeriesStore, factory: ModelFactory | None) -> None:
    """Refuse options, a model or windows that a training would refuse."""
    if factory is not None or not is_own_model(config.model.name):
        resolve_model(config.model, factory)
    config.resolved().windows.splits(store)
    shape_of_store(store, config.windows, config.model.name)


def _value_of(config: RunConfig, name: str, factory: ModelFactory | None) -> Any:
    """The value of an option by its dotted name; None where it has none."""
    if factory is not None or not is_own_model(config.model.name):
        config = replace(config, model=resolve_model(config.model, factory))
    value: Any = config.to_options()
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _leaves(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names, and tables or lists that describe what they may be."""
    for key, value in given.items():
        name = f"{prefix}{key}".replace("-", "_")
        if isinstance(value, list | tuple):
            yield name, value
        elif not isinstance(value, Mapping) or not value:
            raise ConfigError(
                f"{name} is {value!r}: it must be a table with low and high, or choices"
            )
        elif any(each in _KEYS for each in value):
            yield name, value
        else:
            yield from _leaves(value, f"{name}.")


def _full_name(name: str) -> str:
    """With the table of the option; options of the training loop may stand alone."""
    first = name.partition(".")[0]
    if first not in _TABLES:
        known = [each.name for each in fields(TrainingConfig)]
        check_names([first], [*known, *_TABLES], owner="the space")
        name = f"training.{name}"
    if name in _COMPARED:
        raise ConfigError(
            f"the space has {name}: trials with other values are validated on other targets, and "
            f"their errors do not compare; give one value, as {option('config')} does"
        )
    return name


def _encode(value: Any) -> Any:
    """A choice as Optuna stores it: tables and lists as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _underscored(value: Any) -> Any:
    """Names of options in tables with underscores, as in Python."""
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[str, Any]] = value.items()
        return {key.replace("-", "_"): _underscored(each) for key, each in pairs}
    return value
