"""Training on the GPU: waits of the host, resuming, NCCL, an epoch."""

import json
import os
import shutil
import socket
import time
import warnings
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import pgti
from pgti.datasets.simulated import SimulationOptions, simulate
from pgti.distributed import Communicator, init_communicator
from pgti.models import MODELS
from pgti.training.capture import WARM_UP_STEPS
from pgti.training.step import TrainStep
from pgti_bench.gpu_check.setting import Setting

__all__ = ["check", "group_of_one", "watch_waits"]

_PREPARING = WARM_UP_STEPS + 3
"""Steps before those that are watched: they allocate, and the last of them are recorded."""
_WATCHED = 4
_SMALL: dict[str, dict[str, Any]] = {"st-llm": {"gpt_layers": 2, "width": 64, "heads": 2}}


def check(setting: Setting) -> None:
    """Train on a simulated store of METR-LA's size."""
    store = setting.scratch / "training"
    sensors, steps = setting.size((207, 2016), (12, 400))
    simulate(store, SimulationOptions(sensors=sensors, steps=steps))
    models = [name for name, entry in MODELS.items() if not entry.library]
    for name in setting.size(models, ["dcrnn", "gru"]):
        with setting.guard(f"waits in a step of {name}"):
            _waits(setting, store, name, "auto")
    for name in setting.size(("dcrnn", "stid"), ()):
        with setting.guard(f"waits in a step of {name}, without graphs"):
            _waits(setting, store, name, "off")
    with setting.guard("resumed"):
        _resume(setting, store)
    with setting.guard("one rank over NCCL"):
        _one_rank(setting, store)
    with setting.guard("an epoch of dcrnn"):
        _epoch(setting, store)


def _train(setting: Setting, store: Path, name: str, **options: Any) -> pgti.Run:
    """A short run, which replaces the one before it of that name."""
    run = setting.scratch / name
    if not options.get("resume"):
        shutil.rmtree(run, ignore_errors=True)
    settings = {"batch_size": 16, "val_windows": 16, "log_every_steps": 0, "progress": False}
    return pgti.train(store, run, device=setting.device.type, **{**settings, **options})


@contextmanager
def watch_waits(device: torch.device) -> Generator[Counter[str]]:
    """Count, by line, where the host waits for the GPU in the block; nowhere on a CPU.

    CUDA's driver sees copies, `.item()` and whatever else synchronizes, by torch's debug mode.
    """
    found: Counter[str] = Counter()
    if device.type != "cuda":
        yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
            for each in caught:
                # Not what torch says of the mode itself, the first time that it is set.
                if "called a synchronizing" in str(each.message):
                    found[f"{Path(each.filename).name}:{each.lineno}"] += 1


def _waits(setting: Setting, store: Path, model: str, cuda_graphs: str) -> None:
    """Steps as the trainer takes them, batches and running loss included; the first prepare."""
    taken, waits = 0, Counter[str]()
    take = TrainStep.__call__

    def watched(*args: Any, **kwargs: Any) -> int:
        nonlocal taken
        taken += 1
        if taken <= _PREPARING:
            return take(*args, **kwargs)
        with watch_waits(setting.device) as found:
            stop = take(*args, **kwargs)
        waits.update(found)
        return stop

    with mock.patch.object(TrainStep, "__call__", watched):
        _train(
            setting,
            store,
            "waits",
            model=model,
            model_options=_SMALL.get(model, {}),
            max_steps=_PREPARING + _WATCHED,
            cuda_graphs=cuda_graphs,
        )
    setting.add(
        f"waits in a step of {model}{'' if cuda_graphs == 'auto' else ', without graphs'}",
        {"steps": taken - _PREPARING, "waits": waits.total()},
        passed=not waits,
        message=", ".join(f"{line} ({count})" for line, count in waits.items()),
    )


def _resume(setting: Setting, store: Path) -> None:
    """A run that stops and is resumed ends with the bits of one that does not stop."""
    steps = setting.size(20, 4)
    for deterministic in (True, False):
        options = {
            "model": "dcrnn",
            "model_options": {"hidden": 16},
            "deterministic": deterministic,
        }
        whole, again = (
            _parameters(_train(setting, store, name, max_steps=steps, **options))
            for name in ("whole", "again")
        )
        _train(setting, store, "stopped", max_steps=steps // 2, **options)
        resumed = _parameters(
            _train(setting, store, "stopped", max_steps=steps, resume=True, **options)
        )
        repeats = _same(whole, again)
        setting.add(
            f"resumed, deterministic {'on' if deterministic else 'off'}",
            {
                "repeats_bitwise": repeats,
                "resumed_bitwise": _same(whole, resumed),
                "largest_difference": max(
                    float((whole[name] - resumed[name]).abs().max()) for name in whole
                ),
            },
            passed=_same(whole, resumed) if repeats or deterministic else None,
        )


def _parameters(run: pgti.Run) -> dict[str, torch.Tensor]:
    """Those of the last step: a run that is open has those of the best validation."""
    network = run.directory.load_last().network
    return {name: value.detach().cpu() for name, value in network.items()}


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def _one_rank(setting: Setting, store: Path) -> None:
    """A job of one rank has NCCL's collectives, and the parameters of a process without any."""
    options = {
        "model": "dcrnn",
        "model_options": {"hidden": 16},
        "max_steps": setting.size(10, 2),
        "deterministic": True,
    }
    alone = _parameters(_train(setting, store, "alone", **options))
    with group_of_one(setting.device) as communicator:
        kind = type(communicator).__name__
        together = _parameters(
            _train(setting, store, "together", communicator=communicator, **options)
        )
        gradient = torch.randn(setting.size(1 << 22, 1 << 10), device=setting.device)
        times = setting.milliseconds(lambda: communicator.all_reduce_(gradient, "gradients"))
    setting.add(
        "one rank over NCCL",
        {"communicator": kind, "all_reduce_mib": gradient.nbytes / 2**20, **times},
        passed=_same(alone, together),
    )


@contextmanager
def group_of_one(device: torch.device) -> Generator[Communicator]:
    """A process group of this process alone, as a launcher would make it."""
    # Not above: pgti imports it late too, and this is a rank that a user's own code would open.
    import torch.distributed as dist  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    rank = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    on_gpu = device.type == "cuda"
    with mock.patch.dict(os.environ, {**address, **rank}):
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            rank=0,
            world_size=1,
            device_id=device if on_gpu else None,
        )
        try:
            with init_communicator(device) as communicator:
                yield communicator
        finally:
            dist.destroy_process_group()


def _epoch(setting: Setting, store: Path) -> None:
    """The rate of an epoch, its validation and the time until a run is written."""
    began = time.perf_counter()
    _train(
        setting,
        store,
        "epoch",
        model="dcrnn",
        epochs=1,
        batch_size=64,
        max_steps=setting.size(0, 3) or None,
    )
    seconds = time.perf_counter() - began
    metrics = setting.scratch / "epoch" / "metrics.jsonl"
    lines = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    epoch = next(line for line in lines if line["kind"] == "epoch")
    setting.add(
        "an epoch of dcrnn",
        {
            "seconds": seconds,
            "epoch_seconds": float(epoch["seconds"]),
            "peak_mib": setting.peak_mib(),
        },
    )
