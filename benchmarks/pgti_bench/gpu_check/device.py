"""What the device can do at most: bandwidth, products by precision, the cost of a launch."""

import time

import torch

from pgti.nn.numerics import float32_products
from pgti_bench.devices import synchronize
from pgti_bench.gpu_check.setting import Setting

__all__ = ["check"]

_LAUNCHES = 2000


def check(setting: Setting) -> None:
    """Measure the ceilings that other figures are to be compared with."""
    with setting.guard("copies"):
        _copies(setting)
    for precision in ("float32", "tf32", "bfloat16"):
        with setting.guard(f"product in {precision}"):
            _product(setting, precision)
    with setting.guard("launches"):
        x = torch.ones(8, device=setting.device)
        x.add_(1)
        synchronize(setting.device)
        began = time.perf_counter()
        for _ in range(_LAUNCHES):
            x.add_(1)
        seconds = time.perf_counter() - began
        setting.add("host time of a launch", {"us": 1e6 * seconds / _LAUNCHES})


def _copies(setting: Setting) -> None:
    size = setting.size(1 << 30, 1 << 22)
    there = torch.zeros(size, dtype=torch.uint8, device=setting.device)
    copy = torch.empty_like(there)
    times = setting.milliseconds(lambda: copy.copy_(there))
    setting.add("copy on the device", {"gb_per_s": _rate(2 * size, times["ms"]), **times})
    if not setting.on_gpu:
        return
    part = there[: size // 4]
    for name, is_pinned in (("pinned", True), ("pageable", False)):
        host = torch.zeros(len(part), dtype=torch.uint8, pin_memory=is_pinned)
        times = setting.milliseconds(lambda: part.copy_(host, non_blocking=True))  # noqa: B023
        rate = _rate(len(part), times["ms"])
        setting.add(f"copy from {name} memory", {"gb_per_s": rate, **times})


def _product(setting: Setting, precision: str) -> None:
    size = setting.size(8192, 256)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    x, y = (torch.randn(size, size, device=setting.device).to(dtype) for _ in range(2))
    with float32_products(setting.device, tf32=precision == "tf32" and setting.on_gpu):
        times = setting.milliseconds(lambda: x @ y)
    rate = 2 * size**3 / (times["ms"] * 1e9)
    setting.add(f"product of {size} x {size} in {precision}", {"tflop_per_s": rate, **times})


def _rate(num_bytes: int, milliseconds: float) -> float:
    return num_bytes / (milliseconds * 1e6)
