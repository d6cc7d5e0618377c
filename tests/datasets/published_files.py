"""The files of data sets in their true formats, with few sensors and few steps."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

CHICKENPOX: dict[str, Any] = {
    "edges": [[0, 0], [0, 1], [1, 0], [1, 2], [2, 1]],
    "node_ids": {"BACS": 0, "BARANYA": 1, "BEKES": 2},
    "FX": [[-0.5, 1.25, 0.0], [1.5, -2.25, 0.5], [0.0, 0.0, -1.0], [2.0, 1.0, 3.0]],
}


def chickenpox() -> bytes:
    """`chickenpox.json`: edges, names of columns, and rows."""
    return json.dumps(CHICKENPOX).encode()


def windmill() -> bytes:
    """`windmill_output.json`: a complete graph with weights, and rows."""
    edges = [[i, j] for i in range(3) for j in range(3)]
    weights = [1.0 if i == j else 0.25 + 0.125 * i for i, j in edges]
    rows = [[0.5, 0.0, 2.5], [1.5, 3.5, 0.0]]
    return json.dumps(
        {"edges": edges, "weights": weights, "block": rows, "time_periods": 2}
    ).encode()


def npy(array: Any) -> bytes:
    """An array as the bytes of an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    """A compressed zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def clocked(speeds: Any, times: pd.DatetimeIndex, dtype: type = np.float64) -> Any:
    """PGT's `node_values.npy` [T, N, 2]: speeds, and the fraction of the day at every sensor."""
    of_day = ((times - times.floor("D")) / pd.Timedelta("1D")).to_numpy()
    return np.stack([speeds, np.repeat(of_day[:, None], speeds.shape[1], axis=1)], -1).astype(dtype)


def frame_file(path: Path, values: Any, start: str, freq: str, ids: Any, key: str) -> None:
    """A DataFrame in HDF5 as DCRNN, PGT and LargeST write it."""
    index = pd.date_range(start, periods=len(values), freq=freq)
    pd.DataFrame(values, index=index, columns=ids).to_hdf(path, key=key)


def adjacency_pickle(ids: list[str], matrix: Any) -> bytes:
    """DCRNN's `adj_mx.pkl`, in the protocol that it was written with."""
    places = {label: place for place, label in enumerate(ids)}
    return pickle.dumps((ids, places, matrix.astype(np.float32)), protocol=2)
