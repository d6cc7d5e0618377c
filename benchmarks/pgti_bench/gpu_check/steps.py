"""Time and memory of a training step of each model, in each precision and without CUDA graphs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pgti.models import MODELS
from pgti.training import TrainingConfig, TrainStep
from pgti.training.capture import WARM_UP_STEPS
from pgti.training.config import Precision
from pgti_bench.gpu_check.results import Figure
from pgti_bench.gpu_check.setting import Setting
from pgti_bench.gpu_check.windows import PEMS_NODES, build_step_inputs

__all__ = ["check"]


_WARMUPS = WARM_UP_STEPS + 3
"""Steps before those that count: the passes of a batch and the update are recorded after some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """A model at a size."""

    model: str
    num_nodes: int
    batch_size: int
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        return f"{self.model}{options}, {self.num_nodes:,} nodes, batch {self.batch_size}"


def check(setting: Setting) -> None:
    """Models at METR-LA's size with 64 windows, then at California's with 16."""
    for case in _cases(setting):
        figures: dict[str, Figure] = {}
        for label, training in _trainings(setting).items():
            with setting.guard(f"{case.name}, {label}"):
                times, peak = _measure(setting, case, training)
                figures |= {
                    f"{label}_ms": times["ms"],
                    f"{label}_host_ms": times["host_ms"],
                    f"{label}_mib": peak,
                }
        setting.add(case.name, figures)


def _trainings(setting: Setting) -> dict[str, TrainingConfig]:
    """Precisions, as users train; then float32 without CUDA graphs."""
    trainings = {name: TrainingConfig(precision=name) for name in get_args(Precision)}
    if not setting.on_gpu:
        return {"float32": trainings["float32"], "bfloat16": trainings["bfloat16"]}
    return {**trainings, "no_graphs": TrainingConfig(cuda_graphs="off")}


def _cases(setting: Setting) -> list[_Case]:
    nodes, batch = setting.size((207, 64), (12, 2))
    names = [name for name, entry in MODELS.items() if not entry.library]
    cases = [_case(name, nodes, batch) for name in setting.size(names, ["linear", "dcrnn"])]
    if setting.on_gpu:
        cases.insert(0, _case("dcrnn", nodes, batch, hidden=64))  # as published
        large = ("dcrnn", "graph-wavenet", "mtgnn", "agcrn", "stgcn", "stid", "linear")
        cases += [_case(name, PEMS_NODES, 16) for name in large]
    return cases


def _case(model: str, num_nodes: int, batch_size: int, **options: Any) -> _Case:
    return _Case(model=model, num_nodes=num_nodes, batch_size=batch_size, options=options)


def _measure(
    setting: Setting, case: _Case, training: TrainingConfig
) -> tuple[dict[str, float], float | None]:
    """Times of steps, and the peak memory of them in MiB."""
    forecaster, batch = build_step_inputs(
        case.model,
        case.options,
        num_nodes=case.num_nodes,
        batch_size=case.batch_size,
        device=setting.device,
    )
    step = TrainStep.from_config(forecaster.train(), training)
    number = 0

    def take() -> None:
        nonlocal number
        step([batch], step=number, num_batches=1)
        number += 1

    times = setting.milliseconds(take, repeats=8, warmups=_WARMUPS, limit_seconds=0.6)
    return times, setting.peak_mib()
