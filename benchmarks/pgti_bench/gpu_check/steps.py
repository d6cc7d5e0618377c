"""Time and memory of a training step of each model, in each precision."""

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
        for precision in get_args(Precision):
            if precision == "tf32" and not setting.on_gpu:
                continue
            with setting.guard(f"{case.name} in {precision}"):
                times, peak = _measure(setting, case, TrainingConfig(precision=precision))
                figures |= {
                    f"{precision}_ms": times["ms"],
                    f"{precision}_host_ms": times["host_ms"],
                    f"{precision}_mib": peak,
                }
        if setting.on_gpu:
            with setting.guard(f"{case.name} without CUDA graphs"):
                times, peak = _measure(setting, case, TrainingConfig(cuda_graphs="off"))
                figures |= {"usual_ms": times["ms"], "usual_mib": peak}
        setting.add(case.name, figures)


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

    times = setting.milliseconds(take, repeats=8, warmups=WARM_UP_STEPS + 1, limit_seconds=0.8)
    return times, setting.peak_mib()
