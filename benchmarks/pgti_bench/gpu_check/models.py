"""One forward and backward pass of every model, on the GPU against the CPU."""

from typing import Literal

import torch
from torch import Tensor

from pgti.batching import Batch
from pgti.forecasting import NetworkForecaster
from pgti.models import MODELS, AbstractModel
from pgti.training import TrainingConfig, TrainStep
from pgti.training.config import Precision
from pgti_bench.gpu_check.setting import Setting, relative_error
from pgti_bench.gpu_check.windows import COMPARED_OPTIONS, build_step_inputs

__all__ = ["check"]

_LARGEST_FORECAST_ERROR, _LARGEST_GRADIENT_ERROR = 1e-5, 1e-4
"""Of float32, relative: another order of sums. The second also bounds recomputed activations."""
_LARGEST_TF32_ERROR, _LARGEST_BFLOAT16_ERROR = 0.05, 0.25
"""Of gradients: TF32 has 10 bits of mantissa, bfloat16 has 7. On a CPU stgcn has 0.14."""

_RECORDED_STEPS = 8
_SPARSE_NODES = 1500
_SPARSE_MODELS = ("dcrnn", "graph-wavenet", "tgcn")


def check(setting: Setting) -> None:
    """Compare forecasts and gradients of each model, in each precision and mode.

    At METR-LA's size a GPU multiplies with dense powers of the walks, and the CPU with sparse
    operators, so that one is compared with the other; larger graphs are sparse on both.
    """
    nodes, windows = setting.size((207, 8), (12, 2))
    for name, entry in MODELS.items():
        if entry.library:
            continue
        with setting.guard(name):
            _compare(setting, name, name, nodes, windows)
        if setting.on_gpu:
            with setting.guard(f"{name}, recorded"):
                _compare_recorded(setting, name, nodes, windows)
    for name in setting.size(_SPARSE_MODELS, ()):
        label = f"{name}, {_SPARSE_NODES:,} nodes"
        with setting.guard(label):
            _compare(setting, label, name, _SPARSE_NODES, 2)


def _compare(setting: Setting, label: str, name: str, num_nodes: int, num_windows: int) -> None:
    def found(
        device: torch.device, precision: Precision = "float32", *, checkpointing: bool = False
    ) -> tuple[Tensor, Tensor]:
        forecaster, batch = build_step_inputs(
            name,
            COMPARED_OPTIONS.get(name, {}),
            num_nodes=num_nodes,
            batch_size=num_windows,
            device=device,
        )
        return _forecasts_and_gradients(forecaster, batch, precision, checkpointing=checkpointing)

    forecasts, gradients = found(torch.device("cpu"))
    exact = found(setting.device)
    again = found(setting.device)
    recomputed = found(setting.device, checkpointing=True)
    rounded = found(setting.device, "bfloat16")
    in_tf32 = found(setting.device, "tf32") if setting.on_gpu else exact
    figures = {
        "forecasts": relative_error(exact[0], forecasts),
        "gradients": relative_error(exact[1], gradients),
        "recomputed": relative_error(recomputed[1], gradients),
        "tf32": relative_error(in_tf32[1], gradients),
        "bfloat16": relative_error(rounded[1], gradients),
    }
    passed = (
        figures["forecasts"] < _LARGEST_FORECAST_ERROR
        and max(figures["gradients"], figures["recomputed"]) < _LARGEST_GRADIENT_ERROR
        and figures["tf32"] < _LARGEST_TF32_ERROR
        and figures["bfloat16"] < _LARGEST_BFLOAT16_ERROR
    )
    repeats = torch.equal(exact[0], again[0]) and torch.equal(exact[1], again[1])
    setting.add(label, {**figures, "repeats_bitwise": repeats}, passed=passed)


def _compare_recorded(setting: Setting, name: str, num_nodes: int, num_windows: int) -> None:
    """Steps that are recorded as CUDA graphs against those that are not: the same bits."""

    def train(cuda_graphs: Literal["auto", "off"]) -> tuple[Tensor, list[str]]:
        forecaster, batch = build_step_inputs(
            name,
            COMPARED_OPTIONS.get(name, {}),
            num_nodes=num_nodes,
            batch_size=num_windows,
            device=setting.device,
        )
        config = TrainingConfig(cuda_graphs=cuda_graphs, deterministic=True)
        step = TrainStep.from_config(forecaster.train(), config)
        reasons: list[str] = []
        step.explain_to(reasons.append)
        for number in range(_RECORDED_STEPS):
            rate = 1e-3 / (1 + number)  # which a recorded step has to follow
            step([batch], step=number, num_batches=1, learning_rate=rate)
        return torch.cat([each.detach().flatten() for each in step.parameters]), reasons

    usual, _ = train("off")
    again, _ = train("off")
    recorded, reasons = train("auto")
    repeats = torch.equal(usual, again)
    error = relative_error(recorded, usual)
    setting.add(
        f"{name}, recorded",
        {"parameters": error, "bitwise": torch.equal(recorded, usual), "usual_repeats": repeats},
        passed=not reasons and (torch.equal(recorded, usual) if repeats else error < 1e-5),
        message="; ".join(reasons),
    )


def _forecasts_and_gradients(
    forecaster: NetworkForecaster, batch: Batch, precision: Precision, *, checkpointing: bool
) -> tuple[Tensor, Tensor]:
    """Of the initial parameters; gradients as one vector."""
    network = forecaster.network
    assert isinstance(network, AbstractModel)
    network.activation_checkpointing = checkpointing and network.can_checkpoint_activations
    config = TrainingConfig(precision=precision, cuda_graphs="off")
    step = TrainStep.from_config(forecaster.train(), config)
    step.seed(0)
    step.differentiate(batch)
    with torch.no_grad():
        forecasts = forecaster.eval()(batch)
    gradients = [each.grad.flatten() for each in step.parameters if each.grad is not None]
    return forecasts, torch.cat(gradients)
