"""One rank of `pgti-bench space`: training steps on the sensors of the rank, timed and weighed."""

import gc
import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from pgti.batching import build_batcher, build_loader
from pgti.distributed import init_communicator
from pgti.memory import PeakMemory, malloc_policy, pss_bytes
from pgti.models import AbstractModel
from pgti.run.build import build_forecaster, window_source
from pgti.run.config import RunConfig
from pgti.run.sharding import Shard
from pgti.store import Scaler, SeriesStore
from pgti.training import TrainStep
from pgti_bench.worker_loop import peak_resident_bytes

__all__ = ["measure_rank"]


def measure_rank(
    config: RunConfig, *, steps: int, activation_checkpointing: bool
) -> dict[str, Any]:
    """Take steps of one window each, as `pgti train` takes them.

    Args:
        config: of the training; `shard_sensors` ranks have been launched.
        steps: to take.
        activation_checkpointing: recompute activations.

    Returns:
        Seconds of each step, the loss summed over its steps, the sensors of this rank, the halo
        bytes that it sent in a step, and its memory: resident and proportional at the peak, and
        proportional before the first step.
    """
    with init_communicator() as communicator, malloc_policy("trim"), PeakMemory() as memory:
        communicator.split_space(config.shard_sensors)
        store = SeriesStore.open(config.store, verify_up_to_bytes=0)
        shard = Shard.of(store.graph, communicator)
        scaler = Scaler(mean=(50.0,), std=(10.0,))  # of no effect on time and memory
        source = window_source(
            config, store, scaler, sensors=None if shard is None else shard.sensors
        )
        forecaster = build_forecaster(config, source, None, shard=shard).train()
        network = forecaster.network
        if isinstance(network, AbstractModel):
            network.activation_checkpointing = activation_checkpointing
        step = TrainStep.from_config(forecaster, config.training, communicator)
        batcher = build_batcher("index", source, step.device, budget_bytes=0, prefetch_depth=1)
        starts = range(store.meta.num_steps - source.spec.span + 1)
        loader = build_loader(source, starts, 1, communicator=communicator, batcher=batcher)
        gc.collect()
        before = pss_bytes()
        seconds: list[float] = []
        with closing(loader.epoch(0)) as batches:
            for number, batch in zip(range(steps), batches, strict=False):
                communicator.barrier()
                began = time.perf_counter()
                step([batch], step=number, num_batches=1)
                seconds.append(time.perf_counter() - began)
        checksum = sum(float(each.detach().double().sum()) for each in step.parameters)
        sent = communicator.traffic.sent_bytes["halo"] // steps
    return {
        "seconds": seconds,
        "parameters_sum": checksum,
        "sensors": source.num_nodes,
        "halo_bytes": sent,
        "peak_pss_bytes": memory.peak_bytes,
        "peak_resident_bytes": peak_resident_bytes(),
        "pss_bytes_before": before,
    }


def _main() -> None:
    request = json.loads(sys.argv[1])
    config = RunConfig.from_options({**request.pop("config")})
    reply = measure_rank(config, **request)
    with Path(sys.argv[2]).open("w", encoding="utf-8") as file:
        json.dump(reply, file)


if __name__ == "__main__":
    _main()
