"""What every measurement says: figures with their spread, the machine, and what was left out."""

import dataclasses
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch

__all__ = ["Machine", "Spread", "to_json"]

_MEASURED_LIBRARIES = ("torch", "numpy", "scipy", "pgti")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Median and extremes of several runs of one measurement.

    Args:
        median: in the unit that the field's name says.
        minimum: of the runs.
        maximum: of the runs.
        runs: how many there were.
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
            raise ValueError("there is no measurement to summarise")
        return cls(
            median=statistics.median(values),
            minimum=min(values),
            maximum=max(values),
            runs=len(values),
        )

    @classmethod
    def of_ratios(cls, values: Sequence[float], others: Sequence[float]) -> Self:
        """The spread of the ratios value / other of each round: slow drifts of a machine cancel.

        Raises:
            ValueError: there is no value, or not one of the others for each.
        """
        return cls.of([value / other for value, other in zip(values, others, strict=True)])

    def scaled(self, factor: float) -> Self:
        """The same in another unit, one of which is 1 / factor of this one; factor is positive."""
        return dataclasses.replace(
            self,
            median=self.median * factor,
            minimum=self.minimum * factor,
            maximum=self.maximum * factor,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where something was measured.

    Args:
        cpu: model of the processor.
        cores: cores that this process may use.
        threads: threads that torch computes with.
        memory_bytes: of the machine; None where the system does not tell.
        system: name and release of the operating system.
        libc: C library and its version; empty where there is no such notion.
        versions: of Python and of the libraries that decide the figures.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int | None
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
            memory_bytes=_memory_bytes(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            libc=" ".join(platform.libc_ver()).strip(),
            versions={
                "python": platform.python_version(),
                **{library: version(library) for library in _MEASURED_LIBRARIES},
            },
        )


def to_json(result: object) -> Any:
    """A result as `json.dumps` takes it: dataclasses and mappings as objects, paths as text.

    None stands for what was left out; `left_out` of the result says why.

    Raises:
        TypeError: a value that JSON has no form for.
    """
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {
            field.name: to_json(getattr(result, field.name)) for field in dataclasses.fields(result)
        }
    if isinstance(result, Mapping):
        return {str(key): to_json(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [to_json(value) for value in result]
    if isinstance(result, Path):
        return str(result)
    if result is None or isinstance(result, bool | int | float | str):
        return result
    raise TypeError(f"{result!r} of a benchmark's result has no form in JSON")


def _cpu() -> str:
    """The processor's model; /proc says it on Linux, where `platform` gives its family alone."""
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


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system has these names
        return None
