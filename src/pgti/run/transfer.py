"""The weights of a network for other sensors: which dimensions count sensors, and carrying them.

A model does not declare which of its parameters belong to a sensor. They are found by building it
for one more sensor: what grows by one entry has one entry per sensor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pgti.display import count_of, shorten
from pgti.errors import PgtiError, RunError
from pgti.models import ModelFactory, ModelShape, build_model

__all__ = ["SensorDimensions", "carry_over", "check_fit", "find_sensor_dimensions"]

SensorDimensions = Mapping[str, tuple[int, ...]]
"""By name of a parameter or buffer, the dimensions with an entry per sensor; others have none."""


def find_sensor_dimensions(
    name: str,
    options: Mapping[str, object],
    shape: ModelShape,
    factory: ModelFactory | None = None,
) -> SensorDimensions:
    """The dimensions of a model's parameters and buffers that have an entry per sensor.

    Args:
        name: of the model.
        options: of it.
        shape: sizes of the data, N sensors.
        factory: the user's own class or function, in place of the one that the name imports.

    Raises:
        RunError: if the model cannot be built for another number of sensors, or a parameter grows
            with them by other steps than an entry each.
    """

    def sizes(num_nodes: int) -> dict[str, tuple[int, ...]]:
        return _sizes_of(name, options, replace(shape, num_nodes=num_nodes), factory)

    num_nodes = shape.num_nodes
    counts = (num_nodes, num_nodes + 1, 2 * num_nodes + 1)
    built = {count: sizes(count) for count in counts}
    found = {}
    for key, size in built[num_nodes].items():
        others = [built[count].get(key, ()) for count in counts]
        dimensions = tuple(
            dimension
            for dimension in range(len(size))
            if any(other[dimension : dimension + 1] != size[dimension : dimension + 1]
                   for other in others)
        )  # fmt: skip
        expected = [_resized(size, dimensions, count) for count in counts]
        if others != expected:
            raise RunError(
                f"{name} cannot be carried over to other sensors: {key} is {list(size)} for "
                f"{count_of(num_nodes, 'sensor')} and {list(others[1])} for {num_nodes + 1:,}, "
                "which is not an entry per sensor"
            )
        if dimensions:
            found[key] = dimensions
    return found


def carry_over(
    weights: Mapping[str, Tensor],
    dimensions: SensorDimensions,
    fresh: Mapping[str, Tensor],
    before: Sequence[str],
    after: Sequence[str],
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights for other sensors: entries of a sensor go with its id, new ones are the mean.

    Args:
        weights: parameters and buffers by name, for the sensors `before`.
        dimensions: of them, which count sensors.
        fresh: parameters and buffers of the network for the sensors `after`. Its whole numbers
            per sensor, such as positions, stay.
        before: ids of the sensors.
        after: ids of the sensors, in the order of the result.

    Returns:
        The weights, and a line that says how many sensors were carried over, if any parameter
        belongs to a sensor.
    """
    if tuple(before) == tuple(after):
        return dict(weights), []
    positions = {each: position for position, each in enumerate(before)}
    index = torch.tensor([positions.get(each, -1) for each in after])
    carried = {}
    learned = []
    for name, tensor in weights.items():
        if name not in dimensions:
            carried[name] = tensor
        elif not tensor.is_floating_point():
            carried[name] = fresh.get(name, tensor).cpu()
        else:
            learned.append(name)
            carried[name] = reduce(partial(_carry_along, index=index), dimensions[name], tensor)
    if not learned:
        return carried, []
    new = [each for each in after if each not in positions]
    line = (
        f"weights per sensor ({shorten(learned)}): "
        f"{count_of(len(after) - len(new), 'sensor')} carried over by id"
    )
    if new:
        line += f", {len(new):,} new as the mean of the others: {shorten(new)}"
    return carried, [line]


def check_fit(
    weights: Mapping[str, Tensor], network: nn.Module, differences: Sequence[str]
) -> None:
    """Refuse weights that do not fit a network.

    Args:
        weights: parameters and buffers by name.
        network: which is to have them.
        differences: what may be the reason, for the message.

    Raises:
        RunError: naming the first that does not fit, and the reasons.
    """
    current = network.state_dict()
    for name in (*weights, *current):
        saved, present = _describe(weights.get(name)), _describe(current.get(name))
        if saved != present:
            because = f" ({'; '.join(differences)})" if differences else ""
            raise RunError(
                f"the weights do not fit{because}: {name} is {saved} in the run to start from and "
                f"{present} here; use its options"
            )


def _sizes_of(
    name: str, options: Mapping[str, object], shape: ModelShape, factory: ModelFactory | None
) -> dict[str, tuple[int, ...]]:
    """Size of each parameter and buffer; nothing is allocated where the network allows that."""

    def build() -> nn.Module:
        return build_model(name, options, shape, factory=factory, is_restored=True)

    with torch.random.fork_rng(devices=[]):
        network = _build_on_meta(build)
        if network is None:
            try:
                network = build()
            except PgtiError as error:
                raise RunError(
                    f"{name} cannot be carried over to other sensors: it cannot be built for "
                    f"{count_of(shape.num_nodes, 'sensor')}: {error}"
                ) from error
    return {
        key: tuple(each.shape) for key, each in network.state_dict().items() if not is_lazy(each)
    }


def _build_on_meta(build: Callable[[], nn.Module]) -> nn.Module | None:
    """The network without numbers; None if it computes with them."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # noqa: BLE001 - a constructor may do anything
        return None


def _resized(size: tuple[int, ...], dimensions: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(count if i in dimensions else each for i, each in enumerate(size))


def _carry_along(tensor: Tensor, dimension: int, *, index: Tensor) -> Tensor:
    """Entries by position; the mean of all where the position is -1."""
    mean = tensor.double().mean(dim=dimension, keepdim=True).to(tensor.dtype)
    picked = tensor.index_select(dimension, index.clamp(min=0))
    is_new = (index < 0).view([-1 if i == dimension else 1 for i in range(tensor.ndim)])
    return torch.where(is_new, mean, picked)


def _describe(tensor: Any) -> str:
    return "absent" if tensor is None else f"{list(tensor.shape)}"
