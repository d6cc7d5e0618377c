"""Gradients that travel as those of several ranks do, where there is one GPU."""

import torch
from torch import Tensor

from pgti.distributed import Communicator
from pgti.training import TrainingConfig, TrainStep
from pgti.training.capture import WARM_UP_STEPS
from pgti.training.gradients import GradientReducer
from pgti_bench.gpu_check.setting import Setting
from pgti_bench.gpu_check.training import group_of_one, watch_waits
from pgti_bench.gpu_check.windows import build_step_inputs

__all__ = ["check"]

_STEPS, _PREPARING = WARM_UP_STEPS + 6, WARM_UP_STEPS + 3
_ASKS_TO_STOP = _STEPS - 2
_SMALL_BUCKET = 1 << 12


def check(setting: Setting) -> None:
    """Take steps of a rank that is told of another one, and has none.

    The sum over one rank is the gradient itself, so parameters are those of a process, to the bit:
    with one message, whose steps are recorded, and with buckets sent during the backward pass.
    A request to stop arrives, on a GPU a step late.
    """
    alone, _, _ = _train(setting, None)
    with group_of_one(setting.device) as communicator:
        communicator.world_size = 2
        for name, bucket_bytes in (("one message", None), ("buckets", _SMALL_BUCKET)):
            with setting.guard(f"gradients in {name}"):
                found, stops, waits = _train(setting, communicator, bucket_bytes)
                is_same = torch.equal(found, alone)
                setting.add(
                    f"gradients in {name}",
                    {"bitwise": is_same, "waits": waits, "stop_arrived": str(stops)},
                    passed=is_same and stops == [_ASKS_TO_STOP + setting.on_gpu] and not waits,
                )


def _train(
    setting: Setting, communicator: Communicator | None, bucket_bytes: int | None = None
) -> tuple[Tensor, list[int], int]:
    """Parameters after some steps, the steps at which a request to stop arrived, and waits."""
    forecaster, batch = build_step_inputs(
        "dcrnn",
        {"hidden": 16},
        num_nodes=setting.size(207, 8),
        batch_size=setting.size(16, 2),
        device=setting.device,
    )
    config = TrainingConfig(
        deterministic=True, cuda_graphs="auto" if bucket_bytes is None else "off"
    )
    step = TrainStep.from_config(forecaster.train(), config, communicator)
    if communicator is not None and bucket_bytes is not None:
        step._reducer = GradientReducer(step.parameters, communicator, bucket_bytes=bucket_bytes)
    stops, waits = [], 0
    for number in range(_STEPS):
        asked = int(number == _ASKS_TO_STOP)

        def take(number: int = number, asked: int = asked) -> int:
            return step([batch], step=number, num_batches=1, stop=lambda: asked)

        if number < _PREPARING:
            stopping = take()
        else:
            with watch_waits(setting.device) as found:
                stopping = take()
            waits += found.total()
        if stopping:
            stops.append(number)
    return torch.cat([each.detach().flatten() for each in step.parameters]), stops, waits
