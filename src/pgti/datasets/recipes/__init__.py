"""How the files of each data set become readings and a graph, one module for each family."""

from collections.abc import Callable, Mapping

from pgti.datasets.dataset import RecipeName
from pgti.datasets.recipes.flow import flow_array
from pgti.datasets.recipes.largest import largest_array, largest_raw, largest_table
from pgti.datasets.recipes.pgt import clocked_array, frame, json
from pgti.datasets.recipes.prepared import Prepared as Prepared
from pgti.datasets.recipes.prepared import Request as Request

__all__ = ["RECIPES", "Prepared", "Request"]

RECIPES: Mapping[RecipeName, Callable[[Request], Prepared]] = {
    "clocked-array": clocked_array,
    "frame": frame,
    "json": json,
    "flow-array": flow_array,
    "largest-raw": largest_raw,
    "largest-table": largest_table,
    "largest-array": largest_array,
}
