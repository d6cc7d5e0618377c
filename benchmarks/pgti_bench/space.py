"""Measure training with the sensors of each window split over ranks: memory, time, halo bytes.

The graph is a road network that is made here: crossings on a jittered grid, each joined to the
next ones in both directions, a tenth of the roads missing, so that a sensor has 3.6 neighbours; ids
are shuffled, as those of real sensors are not in the order of their roads. The series is random and
short: time and memory of a step do not depend on its values.
"""

import json as json_text
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from pgti.cli.output import build_table, log, print_results
from pgti.display import count_of
from pgti.errors import require_whole_number
from pgti.graph import SensorGraph, partition_sensors
from pgti.run.build import shape_of_store
from pgti.run.config import RunConfig
from pgti.run.halo import HaloTraffic, predict_halo
from pgti.run.results import Machine, to_json
from pgti.store import SeriesStore, StoreWriter
from pgti_bench.errors import BenchError, DifferenceError
from pgti_bench.output import binary_size, finish
from pgti_bench.synthetic_stores import scratch_directory
from pgti_bench.worker import thread_settings

__all__ = ["SpaceResult", "measure_space", "road_network", "space_command"]

_MISSING_ROADS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class RankFound:
    """What one rank measured; see `pgti_bench.space_worker.measure_rank`."""

    seconds: tuple[float, ...]
    parameters_sum: float
    sensors: int
    halo_bytes: int
    peak_pss_bytes: int | None
    peak_resident_bytes: int | None
    pss_bytes_before: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceResult:
    """The result of `measure_space`.

    Attributes:
        machine: where it was measured.
        load: mean number of runnable processes in the last minute, at the start.
        model: its name and options.
        num_nodes: sensors.
        num_edges: edges.
        input_steps: of a window.
        horizon: of a window.
        activation_checkpointing: whether activations were recomputed.
        ranks: what each rank found, by number of shards.
        predicted: the halo traffic, by number of shards.
        memory_ratio: the largest peak of a rank over that of one rank, by number of shards.
        agrees: whether each rank sent the bytes that were predicted, and parameters are those of
            one rank to 1e-4 of their sum.
    """

    machine: Machine
    load: float
    model: Mapping[str, Any]
    num_nodes: int
    num_edges: int
    input_steps: int
    horizon: int
    activation_checkpointing: bool
    ranks: Mapping[int, tuple[RankFound, ...]]
    predicted: Mapping[int, HaloTraffic]
    memory_ratio: Mapping[int, float]
    agrees: bool


def road_network(num_nodes: int, seed: int = 0) -> SensorGraph:
    """A road network of that many crossings; see above."""
    random = np.random.default_rng(seed)
    width = int(np.ceil(np.sqrt(num_nodes)))
    at = np.arange(num_nodes)
    right = at[(at % width < width - 1) & (at + 1 < num_nodes)]
    down = at[at + width < num_nodes]
    roads = np.concatenate([np.stack([right, right + 1]), np.stack([down, down + width])], axis=1)
    roads = random.permutation(num_nodes)[roads[:, random.random(roads.shape[1]) >= _MISSING_ROADS]]
    weights = random.uniform(0.2, 1.0, roads.shape[1])
    source, target = np.concatenate([roads, roads[::-1]], axis=1)
    return SensorGraph.from_edges(num_nodes, source, target, np.concatenate([weights, weights]))


def measure_space(
    workdir: Path,
    *,
    num_nodes: int,
    model: Mapping[str, Any],
    input_steps: int,
    horizon: int,
    shards: tuple[int, ...],
    steps: int,
    activation_checkpointing: bool,
) -> SpaceResult:
    """Train a few steps of one window at each number of shards, one after the other.

    Args:
        workdir: where the store is written; it is removed.
        num_nodes: sensors.
        model: `name` and options.
        input_steps: of a window.
        horizon: of a window.
        shards: numbers of ranks, each of one thread, that share the sensors.
        steps: at each of them.
        activation_checkpointing: recompute activations.

    Raises:
        BenchError: a rank failed.
    """
    for name, number in (
        ("sensors", num_nodes),
        ("steps", steps),
        *(("shards", n) for n in shards),
    ):
        require_whole_number(name, number, 1)
    load = os.getloadavg()[0]
    with scratch_directory(workdir) as directory:
        store = _write_store(Path(directory) / "store", num_nodes, input_steps + horizon + steps)
        found: dict[int, tuple[RankFound, ...]] = {}
        predicted: dict[int, HaloTraffic] = {}
        for number in shards:
            options = {
                "store": str(store.path),
                "windows": {"input_steps": input_steps, "horizon": horizon, "fill": "mean"},
                "model": dict(model),
                "training": {"batch_size": 1},
                "shard_sensors": number,
                "device": "cpu",
            }
            config = RunConfig.from_options(options)
            predicted[number] = predict_halo(
                config.model.name,
                config.model.options,
                shape_of_store(store, config.windows, config.model.name),
                store.graph,
                partition_sensors(store.graph, number),
                windows=1,
                activation_checkpointing=activation_checkpointing,
            )
            request = {
                "config": options,
                "steps": steps,
                "activation_checkpointing": activation_checkpointing,
            }
            found[number] = _run_ranks(request, number, Path(directory))
            log(_summary(number, found[number]))
    first = found[shards[0]]
    sums = [each.parameters_sum for ranks in found.values() for each in ranks]
    sent_as_predicted = all(
        each.halo_bytes == expected
        for number in shards
        if number > 1
        for each, expected in zip(found[number], predicted[number].step_bytes, strict=True)
    )
    return SpaceResult(
        machine=Machine.here(),
        load=load,
        model=model,
        num_nodes=num_nodes,
        num_edges=store.graph.num_edges,
        input_steps=input_steps,
        horizon=horizon,
        activation_checkpointing=activation_checkpointing,
        ranks=found,
        predicted=predicted,
        memory_ratio={number: _peak(ranks) / _peak(first) for number, ranks in found.items()},
        agrees=sent_as_predicted and max(sums) - min(sums) <= 1e-4 * max(map(abs, sums)),
    )


def _write_store(path: Path, num_nodes: int, num_steps: int) -> SeriesStore:
    random, graph = np.random.default_rng(1), road_network(num_nodes)
    ids = tuple(map(str, range(num_nodes)))
    with StoreWriter(path, node_ids=ids, channels=("speed",), graph=graph) as writer:
        for _ in range(num_steps):
            speeds = random.integers(0, 900, (1, num_nodes, 1)) / 10
            writer.append(speeds.astype(np.float32))
        writer.finish(start=np.datetime64("2026-01-01T00:00"), interval_seconds=300)
    return SeriesStore.open(path)


def _run_ranks(request: Mapping[str, Any], number: int, directory: Path) -> tuple[RankFound, ...]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    files = [directory / f"{number}-{rank}.json" for rank in range(number)]
    processes = []
    for rank, file in enumerate(files):
        launched = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": number,
            "LOCAL_WORLD_SIZE": number,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        env = {**os.environ, **thread_settings(1), **{key: f"{v}" for key, v in launched.items()}}
        worker = (sys.executable, "-m", "pgti_bench.space_worker", json_text.dumps(request))
        processes.append(subprocess.Popen([*worker, str(file)], env=env))
    codes = [process.wait() for process in processes]
    if any(codes):
        raise BenchError(f"training on {number} ranks failed with exit codes {codes}")
    replies = [json_text.loads(file.read_text(encoding="utf-8")) for file in files]
    return tuple(RankFound(**{**each, "seconds": tuple(each["seconds"])}) for each in replies)


def _peak(ranks: tuple[RankFound, ...]) -> float:
    """Of the rank that takes the most: proportional memory, or resident where there is none."""
    return float(max(each.peak_pss_bytes or each.peak_resident_bytes or 0 for each in ranks))


def _summary(number: int, ranks: tuple[RankFound, ...]) -> str:
    return (
        f"{count_of(number, 'rank')}: {min(ranks[0].seconds):.1f} s a step, "
        f"{binary_size(int(_peak(ranks)))} at the peak of a rank"
    )


def space_command(
    *,
    sensors: int = 100_000,
    hidden: int = 16,
    input_steps: int = 12,
    horizon: int = 12,
    shards: tuple[int, ...] = (1, 2),
    steps: int = 1,
    activation_checkpointing: bool = False,
    workdir: Path = Path(),
    json: bool = False,
) -> None:
    """Measure training steps of DCRNN whose sensors are split over ranks, each of one thread.

    Args:
        sensors: Sensors of a road network that is made for it.
        hidden: Units of DCRNN.
        input_steps: Steps that the model sees.
        horizon: Steps that it forecasts.
        shards: Comma-separated numbers of ranks that share the sensors.
        steps: Training steps of one window at each of them.
        activation_checkpointing: Recompute activations in the backward pass.
        workdir: Where the store is written; it is removed.
        json: Print one JSON object on standard output, and no table.
    """
    result = measure_space(
        workdir,
        num_nodes=sensors,
        model={"name": "dcrnn", "hidden": hidden},
        input_steps=input_steps,
        horizon=horizon,
        shards=shards,
        steps=steps,
        activation_checkpointing=activation_checkpointing,
    )
    print_results(to_json(result), _table(result), as_json=json)
    finish("Space", result.machine, ())
    log(f"the load was {result.load:.1f}")
    if not result.agrees:
        raise DifferenceError("ranks sent other bytes than predicted, or differ in parameters")


def _table(result: SpaceResult) -> Table:
    columns: dict[str, Callable[[int], str]] = {
        "shards": str,
        "s a step": lambda n: f"{min(result.ranks[n][0].seconds):.1f}",
        "peak of a rank": lambda n: binary_size(int(_peak(result.ranks[n]))),
        "of one rank's": lambda n: f"{result.memory_ratio[n]:.3f}",
        "edges cut": lambda n: f"{result.predicted[n].cut_edges:,}",
        "halo a step, sent": lambda n: binary_size(max(e.halo_bytes for e in result.ranks[n])),
        "predicted": lambda n: binary_size(max(result.predicted[n].step_bytes) * (n > 1)),
    }
    title = f"{result.num_nodes:,} sensors, {result.num_edges:,} edges, dcrnn, batch 1"
    rows = [[show(number) for show in columns.values()] for number in result.ranks]
    return build_table(title, list(columns), rows)
