"""What the parts of the check share: the device, sizes, where results go, how calls are timed."""

import gc
import json
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

from pgti.run.results import to_json
from pgti_bench.devices import synchronize
from pgti_bench.errors import BenchError
from pgti_bench.gpu_check.results import Check, Figure

__all__ = ["Setting", "relative_error"]

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Setting:
    """A part of the check, in a process of its own.

    Attributes:
        part: its name.
        device: cuda:0, or the CPU in a rehearsal.
        results: file to which it appends a line of JSON for each check.
        scratch: directory for stores and runs.
        began: seconds of the clock when it began.
    """

    part: str
    device: torch.device
    results: Path
    scratch: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        """Whether it is no rehearsal."""
        return self.device.type == "cuda"

    def size(self, full: T, rehearsed: T) -> T:
        """A size on a GPU, and in a rehearsal."""
        return full if self.on_gpu else rehearsed

    def add(
        self,
        name: str,
        figures: Mapping[str, Figure] | None = None,
        *,
        passed: bool | None = None,
        message: str = "",
    ) -> None:
        """Record a check, or without `passed` a measurement."""
        check = Check(
            part=self.part, name=name, passed=passed, figures=figures or {}, message=message
        )
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(to_json(check)) + "\n")

    @contextmanager
    def guard(self, name: str) -> Generator[None]:
        """Record an error of the block as a failure, and let the part go on.

        Raises:
            BenchError: the error has left the GPU unusable.
        """
        try:
            yield
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            places = [
                f"{Path(frame.filename).name}:{frame.lineno}"
                for frame in traceback.extract_tb(error.__traceback__)[-3:]
            ]
            message = f"{type(error).__name__}: {text} ({', '.join(places)})"
            self.add(name, passed=False, message=message)
            if not self._is_usable():
                raise BenchError(f"{name} left the GPU unusable: {text}") from error
        self.free()

    def _is_usable(self) -> bool:
        """Whether the device still computes: few of CUDA's errors are the end of a process."""
        try:
            torch.zeros(1, device=self.device)
            synchronize(self.device)
        except RuntimeError:
            return False
        return True

    def free(self) -> None:
        """Free what nothing refers to, and measure peaks anew."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_mib(self) -> float | None:
        """Peak memory of tensors on the GPU since `free`; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if self.on_gpu else None

    def milliseconds(
        self,
        call: Callable[[], object],
        *,
        repeats: int = 10,
        warmups: int = 3,
        limit_seconds: float = 4.0,
    ) -> dict[str, float]:
        """Median, minimum and maximum of a call's time, and the median that the host was busy.

        Args:
            call: what to time.
            repeats: the most calls that count.
            warmups: calls before them.
            limit_seconds: after which no further call is begun.
        """
        for _ in range(warmups):
            call()
        whole: list[float] = []
        host: list[float] = []
        began = time.perf_counter()
        while len(whole) < repeats and (not whole or time.perf_counter() - began < limit_seconds):
            synchronize(self.device)
            start = time.perf_counter()
            call()
            host.append(time.perf_counter() - start)
            synchronize(self.device)
            whole.append(time.perf_counter() - start)
        return {
            "ms": 1e3 * median(whole),
            "min_ms": 1e3 * min(whole),
            "max_ms": 1e3 * max(whole),
            "host_ms": 1e3 * median(host),
            "runs": len(whole),
        }


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Euclidean norm of the difference, divided by that of what is expected, in float64."""
    exact = expected.detach().double().cpu()
    difference = found.detach().double().cpu() - exact
    return float(difference.norm() / exact.norm().clamp(min=1e-300))
