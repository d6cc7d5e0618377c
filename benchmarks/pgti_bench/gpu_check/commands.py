"""The command line, as a user types it."""

import subprocess
import sys
import time

from pgti_bench.gpu_check.setting import Setting

__all__ = ["check"]

_LIMIT_SECONDS = 50


def check(setting: Setting) -> None:
    """Simulate, train, evaluate, predict; then the step benchmark."""
    store, run = setting.scratch / "commands", setting.scratch / "commands-run"
    sensors, steps = setting.size(("207", "2016"), ("12", "400"))
    device = setting.device.type
    few = ("--max-steps", "5", "--val-windows", "16", "--test-windows", "16")
    commands: list[tuple[str, ...]] = [
        ("pgti", "simulate", "--sensors", sensors, "--steps", steps, "--out", str(store)),
        ("pgti", "train", str(store), "--run", str(run), "--device", device, *few),
        ("pgti", "evaluate", str(run), "--device", device),
        ("pgti", "predict", str(run), "--device", device, "--out", str(run / "forecast.csv")),
        ("pgti_bench", "step", "--device", device, "--rounds", "1"),
    ]
    if not setting.on_gpu:
        commands[-1] += ("--nodes", "12", "--batch-size", "2")
    for module, *arguments in commands:
        name = f"{module.replace('_', '-')} {arguments[0]}"
        with setting.guard(name):
            began = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                capture_output=True,
                text=True,
                check=False,
                timeout=_LIMIT_SECONDS,
            )
            lines = ended.stderr.strip().splitlines()
            failure = lines[-1][:300] if ended.returncode and lines else ""
            setting.add(
                name,
                {"seconds": time.perf_counter() - began},
                passed=ended.returncode == 0,
                message=failure,
            )
