"""What a network asks for: the names of the arguments of its `forward`."""

import difflib
import inspect
from collections.abc import Sequence

from torch import nn

from pgti.errors import ConfigError

__all__ = ["NETWORK_INPUTS", "OF_BATCH", "requested_inputs"]

OF_BATCH = (
    "x_mask",
    "calendar",
    "future",
    "future_mask",
    "static",
    "static_codes",
    "history",
    "history_mask",
)
"""Those of them that are parts of a batch."""

NETWORK_INPUTS = ("supports", "edge_index", "edge_weight", *OF_BATCH, "teacher")
"""Names by which a network asks for more than its first argument, x."""


def requested_inputs(network: nn.Module) -> tuple[str, ...] | None:
    """The `NETWORK_INPUTS` that the `forward` of a network names after x.

    None if its arguments cannot be seen (`*args`, scripted code): it is called with x and supports.

    Raises:
        ConfigError: if it requires an argument of another name, or none at all.
    """
    network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    owner = type(network).__name__
    try:
        parameters = list(inspect.signature(network.forward).parameters.values())
    except (TypeError, ValueError):
        return None
    if not parameters or parameters[0].name in NETWORK_INPUTS:
        raise ConfigError(f"{owner}.forward must take x as its first argument: {_rule()}")
    first, *others = parameters
    if first.kind is first.VAR_POSITIONAL:
        return None
    named = [each for each in others if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    for each in named:
        if each.name not in NETWORK_INPUTS and each.default is each.empty:
            raise ConfigError(
                f"{owner}.forward requires {each.name!r}"
                f"{_suggestion(each.name, NETWORK_INPUTS)}; {_rule()}"
            )
    return tuple(each.name for each in named if each.name in NETWORK_INPUTS)


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _rule() -> str:
    return f"after x it may name any of {', '.join(NETWORK_INPUTS)}"
