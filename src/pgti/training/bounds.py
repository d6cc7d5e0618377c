"""Bounds of forecasts as text: `0,` for counts, `0,100` for percentages."""

import math

from pgti.errors import ConfigError

__all__ = ["Bound", "bounds_of_targets", "parse_bounds"]

Bound = tuple[float, float]
"""Lowest and highest forecast, in the unit of the channel; infinite where there is no limit."""


def parse_bounds(text: str) -> dict[str, Bound]:
    """Bounds by name of the channel; the name of those of every target is "".

    Args:
        text: LOW,HIGH, or NAME=LOW,HIGH of several channels between semicolons; a limit that is
            left out does not exist.

    Raises:
        ConfigError: if it is not of this form, or the low limit is not below the high one.
    """
    bounds: dict[str, Bound] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, limits = part.rpartition("=")
        low, comma, high = (each.strip() for each in limits.partition(","))
        try:
            pair = float(low or -math.inf), float(high or math.inf)
        except ValueError:
            pair = math.nan, math.nan
        if not comma or not pair[0] < pair[1] or name in bounds:
            raise ConfigError(
                f"bounds are {text!r}: the rule is LOW,HIGH with LOW below HIGH, either of which "
                "may be left out, such as 0, for counts or 0,100; of several targets, "
                "flow=0,;occupancy=0,100"
            )
        bounds[name] = pair
    if "" in bounds and len(bounds) > 1:
        raise ConfigError(f"bounds are {text!r}: name the channel of each pair, as in flow=0,")
    return bounds


def bounds_of_targets(text: str, targets: tuple[str, ...]) -> tuple[Bound, ...]:
    """The bounds of each target; () where no target has any.

    Raises:
        ConfigError: if a name is no target.
    """
    bounds = parse_bounds(text)
    for name in bounds:
        if name and name not in targets:
            raise ConfigError(
                f"bounds name {name!r}: the targets of this run are {', '.join(targets)}"
            )
    if not bounds:
        return ()
    free = bounds.get("", (-math.inf, math.inf))
    return tuple(bounds.get(name, free) for name in targets)
