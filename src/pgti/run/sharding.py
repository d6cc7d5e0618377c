"""Which sensors of a run are this rank's, where the sensors of each window are split over ranks."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pgti.display import count_of
from pgti.distributed import Communicator, SpaceGroup
from pgti.errors import ConfigError, option
from pgti.graph import SensorGraph, SensorPartition, partition_sensors
from pgti.models import AbstractModel

__all__ = ["Shard", "check_can_shard"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Shard:
    """This rank's share of the sensors.

    Attributes:
        partition: which sensors are whose.
        group: the ranks that share them.
    """

    partition: SensorPartition
    group: SpaceGroup

    @classmethod
    def of(cls, graph: SensorGraph, communicator: Communicator) -> Self | None:
        """The share of a rank of a communicator that is split in space; None if it is not.

        Raises:
            ConfigError: there are more ranks in a group than sensors.
        """
        group = communicator.space
        if group.size == 1:
            return None
        return cls(partition=partition_sensors(graph, group.size), group=group)

    @property
    def sensors(self) -> NDArray[np.int64]:
        """Positions of this rank's sensors, rising."""
        return self.partition.parts[self.group.rank]

    def describe(self, graph: SensorGraph) -> str:
        """How the sensors are split, in one line."""
        partition = self.partition
        share = partition.cut_edges / max(1, graph.num_edges)
        return (
            f"sensors split over {self.group.size} ranks, {partition.largest_part:,} each at most: "
            f"{count_of(partition.cut_edges, 'edge')} of {graph.num_edges:,} cut ({share:.2%}), "
            f"neighbours on other ranks {', '.join(f'{halo:,}' for halo in partition.halos)}"
        )


def check_can_shard(network: nn.Module, name: str) -> str:
    """The kind of operators of a network that can work on some of the sensors.

    Raises:
        ConfigError: the network needs all of them, saying why.
    """
    refusal: str | None = "a network of your own is given all sensors"
    if isinstance(network, AbstractModel):
        refusal = network.shard_refusal
        if refusal is None:
            return network.support_kind
    raise ConfigError(
        f"the sensors of the model {name} cannot be split over ranks: {refusal}; or leave "
        f"{option('shard_sensors')} out"
    )
