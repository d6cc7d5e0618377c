"""Runs the parts of the check one after the other, and collects what they found."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from pgti.errors import ConfigError
from pgti.run.results import Machine
from pgti_bench.gpu_check.parts import PARTS
from pgti_bench.gpu_check.results import Check, GpuCheckResult
from pgti_bench.synthetic_stores import scratch_directory

__all__ = ["TOTAL_SECONDS", "run_check"]

TOTAL_SECONDS = 470
"""Of the whole check: a part that has less than `_LEAST_SECONDS` of it left is left out."""
_LEAST_SECONDS = 10
_REHEARSED = 3
"""How many times its limit a part has in a rehearsal, whose CPU may be busy."""


def run_check(
    names: Sequence[str],
    *,
    is_rehearsal: bool,
    scratch: Path | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> GpuCheckResult:
    """Run parts of the check, each in a process that ends at its limit.

    Args:
        names: of parts.
        is_rehearsal: run on the CPU, at small sizes.
        scratch: directory for stores and runs, for 6 GB; a temporary one if not given.
        log: receives one line for each part.

    Raises:
        ConfigError: there is no such part, or no GPU and it is no rehearsal.
    """
    for name in names:
        if name not in PARTS:
            raise ConfigError(f"there is no part {name!r}: it is one of {', '.join(PARTS)}")
    if not is_rehearsal and not torch.cuda.is_available():
        raise ConfigError(
            "gpu-check needs a GPU and this machine has no usable one: use --rehearse to run its "
            "parts on the CPU, at sizes at which they say nothing about speed"
        )
    began, checks = time.monotonic(), []
    with scratch_directory(scratch) as directory:
        for name in names:
            left = TOTAL_SECONDS - (time.monotonic() - began)
            checks += _run_part(name, left, Path(directory), is_rehearsal=is_rehearsal, log=log)
    return GpuCheckResult(
        date=datetime.now(UTC).date().isoformat(),
        device=Machine.here().cpu if is_rehearsal else torch.cuda.get_device_name(0),
        driver="" if is_rehearsal else _driver(),
        is_rehearsal=is_rehearsal,
        machine=Machine.here(),
        seconds=time.monotonic() - began,
        checks=tuple(checks),
    )


def _run_part(
    name: str,
    seconds_left: float,
    directory: Path,
    *,
    is_rehearsal: bool,
    log: Callable[[str], None],
) -> list[Check]:
    part = PARTS[name]
    if seconds_left < _LEAST_SECONDS:
        log(f"{name} is left out: the check has {seconds_left:.0f} s left")
        message = f"left out: {seconds_left:.0f} s were left"
        return [Check(part=name, name=part.what, passed=False, message=message)]
    limit = min(part.limit_seconds * (_REHEARSED if is_rehearsal else 1), seconds_left)
    log(f"{name}: {part.what} (at most {limit:.0f} s)")
    results, messages = directory / f"{name}.jsonl", directory / f"{name}.txt"
    command = [sys.executable, "-m", "pgti_bench.gpu_check", name, str(results), str(directory)]
    if is_rehearsal:
        command.append("--rehearse")
    began = time.monotonic()
    with messages.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(limit)
            problem = "" if code == 0 else f"ended with exit code {code}: {_last_line(messages)}"
        except subprocess.TimeoutExpired:
            problem = f"ended at its limit of {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    checks = _read(results)
    failed = sum(check.passed is False for check in checks)
    log(f"{name}: {len(checks)} results, {failed} failed, {time.monotonic() - began:.0f} s")
    if problem:
        checks.append(Check(part=name, name=part.what, passed=False, message=problem))
    return checks


def _read(results: Path) -> list[Check]:
    if not results.exists():
        return []
    lines = results.read_text(encoding="utf-8").splitlines()
    return [Check(**json.loads(line)) for line in lines]


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _driver() -> str:
    """Versions of the driver and of CUDA."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        driver = f"driver {answer.stdout.strip()}, "
    except (OSError, subprocess.SubprocessError):
        driver = ""
    return f"{driver}CUDA {torch.version.cuda}"
