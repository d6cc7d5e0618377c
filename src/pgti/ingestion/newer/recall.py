"""How newer readings are read: as those of a series were, unless the user says otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pgti.errors import ConfigError
from pgti.ingestion.formats import suits_readings
from pgti.ingestion.options import OF_READINGS, IngestOptions
from pgti.options import check_names
from pgti.store import StoreMeta

__all__ = ["RecalledOptions", "describe_recalled", "given_options", "recall_options"]

# Those that say how a source is laid out and what its raw values mean; the others are of channels
# and times, which are matched with those of the series.
_REMEMBERED = OF_READINGS - {"channels", "scale", "interval", "time_zone", "gaps"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RecalledOptions:
    """Options for newer readings.

    Attributes:
        options: the remembered ones, and before them those that the user gave.
        recalled: those of them that are remembered, by name.
    """

    options: IngestOptions
    recalled: Mapping[str, Any]

    def without(self, *names: str) -> "RecalledOptions":
        """The same without remembered options of these names."""
        options = {
            each.name: getattr(self.options, each.name)
            for each in fields(IngestOptions)
            if each.name not in names or each.name not in self.recalled
        }
        recalled = {name: value for name, value in self.recalled.items() if name not in names}
        return RecalledOptions(options=IngestOptions(**options), recalled=recalled)

    def describe(self) -> str:
        """The remembered options in one line, such as "missing 0, scale 0.1"."""
        return ", ".join(
            f"{name.replace('_', ' ')} {describe_value(value)}"
            for name, value in self.recalled.items()
        )


def given_options(options: "IngestOptions | Mapping[str, Any] | None") -> dict[str, Any]:
    """The options that the user gave, by name: every entry of a mapping, else what is no default.

    Raises:
        ConfigError: if there is no such option, or a value cannot be used.
    """
    if options is None:
        return {}
    if isinstance(options, IngestOptions):
        default = IngestOptions()
        named = {each.name: getattr(options, each.name) for each in fields(IngestOptions)}
        return {name: each for name, each in named.items() if each != getattr(default, name)}
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"options is {options!r}: it must be an IngestOptions, or options by name"
        )
    check_names(options, IngestOptions.__slots__)
    checked = IngestOptions(**options)
    return {name: getattr(checked, name) for name in options}


def recall_options(
    remembered: Mapping[str, Any], given: Mapping[str, Any], suffix: str
) -> RecalledOptions:
    """What is remembered of a series' source, as far as a format can use it, below what is given.

    Args:
        remembered: options of `IngestOptions` by name, as the store keeps them.
        given: options that the user gave.
        suffix: of the file of newer readings, "" for an object in memory.
    """
    recalled = {
        name: value
        for name, value in remembered.items()
        if name in _REMEMBERED and name not in given and suits_readings(name, suffix)
    }
    recalled = given_options(recalled)  # lists of JSON become tuples
    return RecalledOptions(options=IngestOptions(**{**recalled, **given}), recalled=recalled)


def describe_recalled(
    recalled: RecalledOptions, series: StoreMeta, given: Mapping[str, Any], *, is_aware: bool
) -> str:
    """All that a source was read with and the user did not say, in one line; "" if nothing.

    Args:
        recalled: the options.
        series: what is remembered.
        given: what the user gave, by name.
        is_aware: whether the times of the source have an offset from UTC.
    """
    described = [recalled.describe()] if recalled.recalled else []
    if "scale" not in given and series.read_options.get("scale"):
        described.append(f"scale {describe_value(series.read_options['scale'])}")
    if series.time_zone is not None and "time_zone" not in given and not is_aware:
        described.append(f"time zone {series.time_zone}")
    return ", ".join(described)


def describe_value(value: object) -> str:
    """A value of an option as a message shows it."""
    values = value if isinstance(value, tuple | list) else (value,)
    return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)
