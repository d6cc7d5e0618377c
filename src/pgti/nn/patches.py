"""`PatchSupports`: which sensors attend to one another in patches of a graph."""

import torch
from torch import Tensor

from pgti.graph import SensorGraph, SensorPatches
from pgti.nn.sparse import Supports

__all__ = ["PatchSupports"]


class PatchSupports(Supports):
    """The patches of a graph's sensors, on a device; it has no operator.

    Args:
        graph: N sensors.
        patches: of these sensors.

    Attributes:
        sensors: sensor at each place of P patches, [P, S] int64.
        places: the place that is a sensor's own, [N] int64.
    """

    kind = "patches"
    sensors: Tensor
    places: Tensor

    def __init__(self, graph: SensorGraph, patches: SensorPatches) -> None:
        super().__init__((), graph, self.kind)
        self.register_buffer("sensors", torch.tensor(patches.sensors), persistent=False)
        self.register_buffer("places", torch.tensor(patches.places), persistent=False)
