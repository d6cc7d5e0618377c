"""Train every model on a graph as large as California's within a memory limit.

Each model trains two steps of two windows with its default options, then validates and tests on two
windows, as `pgti train` in its own control group: its memory, page cache included, cannot exceed
the limit.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.errors import ConfigError
from pgti.memory.available import parse_bytes
from pgti.models import MODELS
from pgti.run.results import Machine, to_json
from pgti_bench.limited_run import LimitedRun, run_limited
from pgti_bench.output import binary_size, finish

__all__ = ["ModelMemory", "ModelsResult", "measure_models", "models_command"]

_BATCH_SIZE, _STEPS, _WINDOWS = 2, 2, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMemory:
    """One model, trained within the limit.

    Attributes:
        model: its name.
        parameters: number of trainable parameters; None if it did not train to the end.
        peak_pss_bytes: peak memory of its process; None where it is not reported.
        group_peak_bytes: peak memory charged to its control group; None without a group.
        is_checkpointed: whether it recomputed its activations.
        seconds_per_step: None if it did not train to the end.
        outcome: done, or why it is not.
    """

    model: str
    parameters: int | None
    peak_pss_bytes: int | None
    group_peak_bytes: int | None
    is_checkpointed: bool
    seconds_per_step: float | None
    outcome: str

    @classmethod
    def of(cls, model: str, ended: LimitedRun) -> "ModelMemory":
        """What a finished training says."""
        report = ended.report
        return cls(
            model=model,
            parameters=report.get("parameters"),
            peak_pss_bytes=ended.peak_pss_bytes,
            group_peak_bytes=ended.group_peak_bytes,
            is_checkpointed=any("activation checkpointing on" in note for note in ended.notes),
            seconds_per_step=_BATCH_SIZE / report["windows_per_second"] if report else None,
            outcome=ended.outcome,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelsResult:
    """The result of `measure_models`.

    Attributes:
        machine: where it was measured.
        limit_bytes: of each training.
        models: in the given order.
    """

    machine: Machine
    limit_bytes: int
    models: tuple[ModelMemory, ...]


def measure_models(
    store: Path,
    models: Sequence[str],
    limit_bytes: int,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> ModelsResult:
    """Train models within a memory limit, one after the other.

    Args:
        store: to train on.
        models: their names.
        limit_bytes: of each training.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: there is no such model.
    """
    for name in models:
        if name not in MODELS:
            raise ConfigError(f"there is no model {name!r}: it is one of {', '.join(MODELS)}")
    found = []
    for name in models:
        log(f"training {name}")
        with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
            command = [sys.executable, "-m", "pgti", "train", str(store), "--model", name]
            command += ["--batch-size", str(_BATCH_SIZE), "--max-steps", str(_STEPS)]
            command += ["--val-windows", str(_WINDOWS), "--test-windows", str(_WINDOWS)]
            command += ["--memory-budget", str(limit_bytes), "--run", f"{scratch}/run", "--json"]
            found.append(ModelMemory.of(name, run_limited(command, limit_bytes)))
    return ModelsResult(machine=Machine.here(), limit_bytes=limit_bytes, models=tuple(found))


def models_command(
    store: Path,
    /,
    *,
    limit: str = "4GiB",
    models: tuple[str, ...] = ("all",),
    json: bool = False,
) -> None:
    """Train every model for two steps within a memory limit, and report memory and time.

    Args:
        store: The store to train on.
        limit: Memory limit of each training's control group, page cache included.
        models: Comma-separated models; all takes every one.
        json: Print one JSON object on standard output, and no tables.
    """
    names = sorted(MODELS) if models == ("all",) else models
    result = measure_models(store, names, parse_bytes("limit", limit), log=log_line)
    table = Table(title=f"within {binary_size(result.limit_bytes)}", title_justify="left")
    table.add_column("model", no_wrap=True)
    for title in ("parameters", "peak PSS", "peak of the group", "checkpointed", "s per step"):
        table.add_column(title, justify="right")
    table.add_column("ended")
    for each in result.models:
        table.add_row(
            each.model,
            "-" if each.parameters is None else f"{each.parameters:,}",
            binary_size(each.peak_pss_bytes),
            binary_size(each.group_peak_bytes),
            "yes" if each.is_checkpointed else "no",
            "-" if each.seconds_per_step is None else f"{each.seconds_per_step:,.1f}",
            each.outcome,
        )
    print_results(to_json(result), table, as_json=json)
    finish("Models", result.machine, ())
