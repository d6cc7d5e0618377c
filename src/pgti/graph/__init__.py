"""Sensor graphs, their construction and their operators, in numpy and scipy."""

from pgti.graph.build import from_coordinates as from_coordinates
from pgti.graph.build import from_dense as from_dense
from pgti.graph.build import from_distances as from_distances
from pgti.graph.sensor_graph import SensorGraph as SensorGraph
from pgti.graph.supports import dual_random_walk as dual_random_walk
from pgti.graph.supports import random_walk as random_walk
from pgti.graph.supports import renormalized_adjacency as renormalized_adjacency
from pgti.graph.supports import scaled_laplacian as scaled_laplacian
