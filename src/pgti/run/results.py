"""What typed results have in common: figures with their spread, the machine, and a JSON form."""

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import psutil
import torch

__all__ = ["Machine", "Spread", "to_json"]

_MEASURED_LIBRARIES = ("torch", "numpy", "scipy", "pgti")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Median and range of several values of one quantity.

    Attributes:
        median: in the unit of the field's name.
        minimum: of the values.
        maximum: of the values.
        runs: number of values.
    """

    median: float
    minimum: float
    maximum: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of at least one value.

        Raises:
            ValueError: there is no value.
        """
        if not values:
            raise ValueError("there is no measurement to summarize")
        return cls(
            median=statistics.median(values),
            minimum=min(values),
            maximum=max(values),
            runs=len(values),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where something was measured.

    Attributes:
        cpu: model of the processor.
        cores: cores that this process may use.
        threads: threads that torch computes with.
        memory_bytes: of the machine.
        system: name and release of the operating system.
        libc: C library and its version; empty if unknown.
        versions: of Python and of the libraries that determine the figures.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    system: str
    libc: str
    versions: Mapping[str, str]

    @classmethod
    def here(cls) -> Self:
        """This machine, as this process sees it."""
        return cls(
            cpu=_cpu(),
            cores=_cores(),
            threads=torch.get_num_threads(),
            memory_bytes=psutil.virtual_memory().total,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            libc=" ".join(platform.libc_ver()).strip(),
            versions={
                "python": platform.python_version(),
                **{library: version(library) for library in _MEASURED_LIBRARIES},
            },
        )

    @property
    def summary(self) -> str:
        """Processor, cores, threads and versions, in one line."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.cpu}, {self.cores} cores, {self.threads} threads; {versions}"


def to_json(result: object) -> Any:
    """A result as plain JSON values: dataclasses become objects, paths become text.

    Raises:
        TypeError: a value without a JSON form.
    """
    return json.loads(json.dumps(result, default=_encode))


def _encode(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} has no JSON form")


def _cpu() -> str:
    """The processor's model, from /proc on Linux, where `platform` knows its family only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
