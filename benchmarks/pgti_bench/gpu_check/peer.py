"""A recurrent layer against PyTorch Geometric Temporal's `BatchedDCRNN`, where it is installed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pgti_bench.gpu_check.setting import Setting
from pgti_bench.gpu_check.windows import PEMS_NODES, graph_of
from pgti_bench.pgt_worker import Handlers
from pgti_bench.step.network import (
    INPUT_CHANNELS,
    LAYER,
    TARGET_CHANNELS,
    RandomBatchStep,
    StepSpec,
)

__all__ = ["check"]

_HIDDEN, _HOPS, _STEPS = 64, 2, 12


def check(setting: Setting) -> None:
    """Steps of both at METR-LA's size and California's."""
    if find_spec("torch_geometric_temporal") is None:
        setting.add("layer", message="torch-geometric-temporal is not installed: make setup has it")
        return
    for num_nodes, batch_size in setting.size([(207, 64), (PEMS_NODES, 4)], [(12, 2)]):
        name = f"layer, {num_nodes:,} nodes, batch {batch_size}"
        with setting.guard(name):
            _compare(setting, name, num_nodes, batch_size)


def _compare(setting: Setting, name: str, num_nodes: int, batch_size: int) -> None:
    graph = graph_of(num_nodes)
    spec = StepSpec(
        model=LAYER,
        options={"hidden": _HIDDEN, "hops": _HOPS},
        steps=_STEPS,
        batch_size=batch_size,
        precision="float32",
        activation_checkpointing=False,
    )
    own = RandomBatchStep(graph, spec, setting.device)
    own_times = setting.milliseconds(own.take, limit_seconds=3)
    own_peak = setting.peak_mib()
    del own
    setting.free()
    path = Path(setting.scratch) / f"graph-{num_nodes}.npz"
    adjacency = graph.adjacency
    np.savez(path, indptr=adjacency.indptr, indices=adjacency.indices, data=adjacency.data)
    peer = Handlers(lambda: None)
    peer.prepare_step(
        graph=str(path),
        hidden=_HIDDEN,
        hops=_HOPS,
        steps=_STEPS,
        batch_size=batch_size,
        channels=[INPUT_CHANNELS, TARGET_CHANNELS],
        device=setting.device.type,
        retain_freed=False,
    )
    peer_times = setting.milliseconds(peer.step, limit_seconds=3)
    setting.add(
        name,
        {
            "pgti_ms": own_times["ms"],
            "pgti_mib": own_peak,
            "pgt_ms": peer_times["ms"],
            "pgt_mib": setting.peak_mib(),
            "times_as_fast": peer_times["ms"] / own_times["ms"],
        },
    )
