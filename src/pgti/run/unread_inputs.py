"""What a run asks for that its model does not look at, in one line each."""

from torch import nn

from pgti.batching import WindowConfig, WindowSource
from pgti.errors import option
from pgti.forecasting import NetworkForecaster
from pgti.models import AbstractModel

__all__ = ["note_unread_inputs"]

_IN_TABLES = ("time-of-day", "day-of-week")


def note_unread_inputs(
    name: str, windows: WindowConfig, source: WindowSource, forecaster: NetworkForecaster
) -> list[str]:
    """What is there for the model and it does not see, why, and what to do; a line each.

    Args:
        name: of the model.
        windows: options of the windows.
        source: what they hold.
        forecaster: with the network.
    """
    return [
        *_of_model(name, windows, source, forecaster),
        *_of_own(name, source, forecaster.network, forecaster.reads),
    ]


def _of_model(
    name: str, windows: WindowConfig, source: WindowSource, forecaster: NetworkForecaster
) -> list[str]:
    network, unread, why = forecaster.network, [], ""
    if not isinstance(network, AbstractModel):
        return []
    if network.reads_targets_alone:
        why = "sees the past of its targets alone"
        asked = {"observed_mask": windows.observed_mask, "climatology": windows.climatology}
        unread = [option(f"windows.{each}") for each, is_given in asked.items() if is_given]
    elif network.has_calendar_tables_alone and "calendar" not in forecaster.reads:
        why = f"has vectors of {' and '.join(_IN_TABLES)} alone"
        unread = [each for each in source.calendar if each not in _IN_TABLES]
    if not unread:
        return []
    return [
        f"the model {name} {why}, and does not see {', '.join(unread)}: leave that out, or choose "
        f"another model ({option('model', 'stid')})"
    ]


def _of_own(
    name: str, source: WindowSource, network: nn.Module, reads: frozenset[str]
) -> list[str]:
    """A network that reads some covariates itself is given no head for the others."""
    if isinstance(network, AbstractModel) or not reads & {"future", "static", "static_codes"}:
        return []
    channels = source.store.meta.channels
    there = {
        "future": [channels[index] for index in source.known_indices],
        "static": [] if source.static is None else list(source.static.names),
    }
    return [
        f"the network {name} does not name {each} in its forward, and does not see "
        f"{', '.join(names)}"
        for each, names in there.items()
        if names and not any(word.startswith(each) for word in reads)
    ]
