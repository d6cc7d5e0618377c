"""Sensor graphs, their construction and their operators, in numpy and scipy."""

from pgti.graph.build import from_coordinates as from_coordinates
from pgti.graph.build import from_dense as from_dense
from pgti.graph.build import from_distances as from_distances
from pgti.graph.partition import OperatorPart as OperatorPart
from pgti.graph.partition import SensorPartition as SensorPartition
from pgti.graph.partition import count_sent_rows as count_sent_rows
from pgti.graph.partition import cut_operator as cut_operator
from pgti.graph.partition import partition_sensors as partition_sensors
from pgti.graph.patches import SensorPatches as SensorPatches
from pgti.graph.patches import patch_sensors as patch_sensors
from pgti.graph.sensor_graph import SensorGraph as SensorGraph
from pgti.graph.supports import dual_random_walk as dual_random_walk
from pgti.graph.supports import random_walk as random_walk
from pgti.graph.supports import renormalized_adjacency as renormalized_adjacency
from pgti.graph.supports import scaled_laplacian as scaled_laplacian
