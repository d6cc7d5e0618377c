"""Sensor graphs: what they are, how they are built, and the operators on them.

Pure numpy and scipy; knows nothing of torch, readings or models.
"""

from pgti.graph.build import from_coordinates as from_coordinates
from pgti.graph.build import from_dense as from_dense
from pgti.graph.build import from_distances as from_distances
from pgti.graph.sensor_graph import SensorGraph as SensorGraph
from pgti.graph.supports import dual_random_walk as dual_random_walk
from pgti.graph.supports import random_walk as random_walk
from pgti.graph.supports import renormalised_adjacency as renormalised_adjacency
from pgti.graph.supports import scaled_laplacian as scaled_laplacian
