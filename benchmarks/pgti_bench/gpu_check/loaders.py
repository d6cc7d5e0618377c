"""Batches a second, of a store of California's size."""

from dataclasses import replace

from pgti_bench.gpu_check.setting import Setting
from pgti_bench.loader.worker import LoaderHandlers
from pgti_bench.paper_datasets import DATASETS
from pgti_bench.synthetic_stores import synthetic_store

__all__ = ["check"]

_BATCH_SIZE = 64


def check(setting: Setting) -> None:
    """Index and device batches of 64 windows, shuffled and in blocks; most readings are 0."""
    pems = DATASETS["pems"]
    shape = replace(
        pems,
        num_steps=setting.size(pems.num_steps, 2500),
        num_nodes=setting.size(pems.num_nodes, 12),
        is_sparse=True,
    )
    store = synthetic_store(shape, setting.scratch)
    for batching in ("index", "device"):
        for block_size in (1, 8):
            name = f"{batching} batches, {'shuffled' if block_size == 1 else 'blocks of 8'}"
            with setting.guard(name):
                handlers = LoaderHandlers()
                prepared = handlers.prepare(
                    store=str(store.path),
                    batching=batching,
                    block_size=block_size,
                    prefetch=True,
                    steps=12,
                    batch_size=_BATCH_SIZE,
                    device=setting.device.type,
                )
                count = min(setting.size(60, 3), prepared["batches"])
                handlers.batches(count=count)
                found = handlers.batches(count=count)
                setting.add(
                    name,
                    {
                        "windows_per_s": found["windows"] / found["seconds"],
                        "gb_per_s": found["bytes"] / found["seconds"] / 1e9,
                        "ms": 1e3 * found["seconds"] / count,
                        "peak_mib": setting.peak_mib(),
                    },
                )
                del handlers
