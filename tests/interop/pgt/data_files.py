"""The files of PGT's data sets, in their true formats, small, with readings of our own."""

import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pgti
from pgti.interop.pgt.package import import_pgt

STEPS, NODES = 90, 5
STEPS_PER_DAY = 288

needs_pgt = pytest.mark.skipif(
    importlib.util.find_spec("torch_geometric_temporal") is None,
    reason="PGT is not installed: pip install --no-deps torch-geometric-temporal",
)


def speeds(steps: int = STEPS, nodes: int = NODES) -> np.ndarray:
    """Float64 [T, N], some of them 0, which is missing."""
    values = np.random.default_rng(5).normal(55, 12, (steps, nodes)).round(3)
    values[steps // 3 : steps // 3 + 4, 1] = 0
    values[-3, 2] = 0
    values[2, 0] = 0
    return values


def times_of_day(steps: int = STEPS) -> np.ndarray:
    """Float64 [T]: a day has 288 steps, the series begins in the afternoon."""
    return ((np.arange(steps) + 250) % STEPS_PER_DAY) / STEPS_PER_DAY


def matrix(nodes: int = NODES) -> np.ndarray:
    """Float32 [N, N], directed, weighted, with self-loops and a sensor that has nothing else."""
    weights = np.eye(nodes, dtype=np.float32)
    weights[0, 1], weights[1, 0], weights[1, 2], weights[2, 4] = 0.7, 0.25, 0.5, 0.125
    return weights


def write_arrays(directory: Path, values: str, adjacency: str, archive: str) -> None:
    both = np.stack((speeds(), np.tile(times_of_day()[:, None], NODES)), axis=-1)
    np.save(directory / values, both)
    np.save(directory / adjacency, matrix())
    (directory / archive).touch()  # PGT looks whether it is there


def write_metr_la(directory: Path) -> None:
    write_arrays(directory, "node_values.npy", "adj_mat.npy", "METR-LA.zip")


def write_pems_bay(directory: Path) -> None:
    write_arrays(directory, "pems_node_values.npy", "pems_adj_mat.npy", "PEMS-BAY.zip")


def write_table(directory: Path, infix: str, *, layout: str = "fixed") -> None:
    ids = [str(400000 + node) for node in range(NODES)]
    index = pd.date_range("2018-01-01T20:50", periods=STEPS, freq="5min")
    frame = pd.DataFrame(speeds(), index=index, columns=ids)
    frame.to_hdf(directory / f"pems_{infix}_speed.h5", key="df", format=layout)
    content = (ids, {label: place for place, label in enumerate(ids)}, matrix())
    with (directory / f"pems_{infix}_adj_mat.pkl").open("wb") as file:
        pickle.dump(content, file)


def write_pems(directory: Path) -> None:
    write_table(directory, "cali")


def write_all_la(directory: Path) -> None:
    write_table(directory, "AllLA", layout="table")


def json_content() -> dict[str, Any]:
    edges = [[3, 1], [0, 0], [0, 1], [1, 0], [2, 2], [2, 4]]
    return {"edges": edges, "weights": [0.5, 1.0, 0.7, 0.3, 1.0, 0.125]}


def write_windmill(directory: Path) -> None:
    output = np.random.default_rng(6).gamma(2.0, 3.0, (STEPS, NODES)) * np.arange(1, NODES + 1)
    output[5:9, 3] = 0  # no wind: a reading
    content = {**json_content(), "block": output.tolist()}
    (directory / "windmill_output.json").write_text(json.dumps(content))


def write_chickenpox(directory: Path) -> None:
    counts = np.random.default_rng(7).normal(size=(STEPS, NODES))
    content = {
        "edges": json_content()["edges"],
        "node_ids": {f"county {node}": node for node in range(NODES)},
        "FX": counts.tolist(),
    }
    (directory / "chickenpox.json").write_text(json.dumps(content))


WRITERS: dict[str, Callable[[Path], None]] = {
    "METR-LA": write_metr_la,
    "PEMS-BAY": write_pems_bay,
    "PeMS": write_pems,
    "PeMS-All-LA": write_all_la,
    "WindmillLarge": write_windmill,
    "Chickenpox": write_chickenpox,
}
CLASSES = {
    "METR-LA": "METRLADatasetLoader",
    "PEMS-BAY": "PemsBayDatasetLoader",
    "PeMS": "PemsDatasetLoader",
    "PeMS-All-LA": "PemsAllLADatasetLoader",
    "WindmillLarge": "WindmillOutputLargeDatasetLoader",
    "Chickenpox": "ChickenpoxDatasetLoader",
}


def pgt_loader(name: str, directory: Path, *, index: bool = True) -> Any:
    """PGT's own loader on the files in the directory; it has no way to the internet."""
    dataset = import_pgt("dataset")
    kind = getattr(dataset, CLASSES[name])
    if name != "Chickenpox":
        return kind(raw_data_dir=str(directory), index=index)

    class Local(kind):  # type: ignore[misc, valid-type]
        def _read_web_data(self) -> None:
            self._dataset = json.loads((directory / "chickenpox.json").read_text())

    return Local(index=index)


def batches(loader: Any) -> list[list[torch.Tensor]]:
    return [list(batch) for batch in loader]


def assert_same(one: Any, other: Any) -> None:
    """Two results of get_index_dataset: the same bits, dtypes and shapes."""
    assert len(one) == len(other)
    for mine, theirs in zip(one[:3], other[:3], strict=True):
        assert len(mine) == len(theirs)
        for batch, expected in zip(batches(mine), batches(theirs), strict=True):
            for part, wanted in zip(batch, expected, strict=True):
                torch.testing.assert_close(part, wanted, rtol=0, atol=0)
    for part, wanted in zip(one[3:], other[3:], strict=True):
        torch.testing.assert_close(part, wanted, rtol=0, atol=0)


def make_store(path: Path, *, channels: int = 1) -> pgti.SeriesStore:
    values = np.stack([speeds().round(1) + 5 * channel for channel in range(channels)], axis=-1)
    options = pgti.IngestOptions(
        start="2012-03-01T20:50",
        interval="5min",
        missing=(0.0, 5.0),
        channels=tuple(f"c{channel}" for channel in range(channels)),
    )
    pgti.ingest(values, path, options, graph=matrix())
    return pgti.SeriesStore.open(path)
