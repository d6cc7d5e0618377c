"""PGT's data sets in JSON: edges, perhaps their weights, and rows of readings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingest.readings import reraise_read_errors
from pgti.interop.pgt.data.edges import Edges, listed_edges

__all__ = ["read_json"]


def read_json(path: Path, key: str) -> tuple[NDArray[np.float64], Edges]:
    """Readings [T, N] and edges of a file, the edges in its order.

    Args:
        path: the file, read whole.
        key: the entry that holds the rows.

    Raises:
        DataError: if the file is damaged or has other entries.
    """
    name = path.name
    with reraise_read_errors(name, "JSON"):
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or key not in content or "edges" not in content:
            keys = ", ".join(list(content)[:8]) if isinstance(content, dict) else "no entries"
            raise DataError(f"{name} has {keys}: the rule is edges, and rows called {key}")
        values = np.asarray(content[key], dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DataError(f"{key} of {name} has shape {values.shape}: the rule is rows of numbers")
    edges = listed_edges(content["edges"], content.get("weights"), values.shape[1], name)
    return values, edges
