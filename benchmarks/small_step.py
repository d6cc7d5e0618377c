"""Time of a small training step on several ranks of this machine: what the ranks cost each other.

    python benchmarks/small_step.py RANKS [--steps 300]

prints the median milliseconds of a step of the model `linear` on rank 0, each rank with one thread
and four windows of 20 sensors. It uses what every version has, so that two checkouts compare:

    PYTHONPATH=OTHER/src python benchmarks/small_step.py 4
"""

import argparse
import os
import socket
import statistics
import time
from multiprocessing import get_context

import numpy as np
import torch

from pgti.batching import Batch
from pgti.distributed import init_communicator
from pgti.forecasting import NetworkForecaster
from pgti.graph import SensorGraph
from pgti.models import ModelShape, build_model
from pgti.nn import Supports
from pgti.store import Scaler
from pgti.training import TrainingConfig, TrainStep

SENSORS, WINDOWS, STEPS = 20, 4, 12


def work(rank: int, ranks: int, port: int, steps: int) -> None:
    """Take the steps as one rank."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, ranks, rank, ranks, "127.0.0.1", port)
    os.environ.update({name: f"{value}" for name, value in zip(names, values, strict=True)})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = ModelShape(
        input_steps=STEPS,
        horizon=STEPS,
        num_nodes=SENSORS,
        input_channels=1,
        target_channels=1,
        target_indices=(0,),
    )
    network = build_model("linear", {}, shape)
    edges = np.arange(SENSORS - 1)
    supports = Supports.from_graph(
        SensorGraph.from_edges(SENSORS, edges, edges + 1), network.support_kind
    )
    forecaster = NetworkForecaster(network, supports, Scaler(mean=(0.0,), std=(1.0,)), (0,), 0)
    x = torch.randn(WINDOWS, STEPS, SENSORS, 1)
    observed = torch.ones(x.shape, dtype=torch.bool)
    batch = Batch(
        x=x,
        x_mask=observed,
        y=x.clone(),
        y_mask=observed,
        calendar=torch.zeros(WINDOWS, 2 * STEPS, 0),
        starts=np.arange(WINDOWS),
    )
    seconds = []
    with init_communicator() as communicator:
        step = TrainStep.from_config(forecaster, TrainingConfig(), communicator)
        for number in range(steps):
            began = time.perf_counter()
            step([batch], step=number)
            seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(f"{1e3 * statistics.median(seconds[steps // 5 :]):.3f}", flush=True)


def main() -> None:
    """Start the ranks and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ranks", type=int)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = get_context("spawn")
    arguments = (options.ranks, port, options.steps)
    processes = [
        context.Process(target=work, args=(rank, *arguments)) for rank in range(options.ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
