"""A traffic simulator: example data and PeMS-sized series without a download.

`simulate` writes a store; `road_graph` is the graph it uses when none is given. The readings are
simulated: they serve examples, tests and measurements of speed, memory and scale, never a claim
of accuracy.
"""

from pgti.datasets.simulated.options import SimulationOptions as SimulationOptions
from pgti.datasets.simulated.road import road_graph as road_graph
from pgti.datasets.simulated.simulate import simulate as simulate
from pgti.datasets.simulated.simulate import simulated_chunks as simulated_chunks

__all__ = ["SimulationOptions", "road_graph", "simulate", "simulated_chunks"]
