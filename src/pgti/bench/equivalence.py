"""The paper's claim that index-batching changes no result, on any store, for any model.

The same training is run with materialised windows and with each other batching, and everything
that it computed is compared bit for bit: the loss after every step, the errors of validation, and
the parameters and moments of the optimiser at the end.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pgti.batching import BATCHINGS
from pgti.bench.limited_run import run_limited
from pgti.bench.measured_commands import last_message
from pgti.bench.results import Machine
from pgti.errors import BenchError, ConfigError
from pgti.training import RunDirectory

__all__ = ["ComparedTraining", "EquivalenceResult", "measure_equivalence"]

STANDARD = "standard"
_TIMES = ("seconds", "windows_per_second")  # of a line of metrics: not what was computed


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedTraining:
    """One model trained with one batching, beside standard batching.

    Args:
        model: its name.
        batching: how batches were made.
        steps: optimiser steps.
        first_loss: mean loss of the first step, in the target's unit; None where nothing was
            observed.
        last_loss: mean loss over the last epoch, as it stood after the last step.
        val_mae: of the last validation.
        equal_losses: steps after which the loss was that of standard batching, to the bit.
        equal_validations: whether all errors of all validations were.
        equal_parameters: whether parameters, buffers and moments of the optimiser were.
        parameters_sha256: of all parameters and buffers.
    """

    model: str
    batching: str
    steps: int
    first_loss: float | None
    last_loss: float | None
    val_mae: float
    equal_losses: int
    equal_validations: bool
    equal_parameters: bool
    parameters_sha256: str

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs from standard batching."""
        return self.equal_losses == self.steps and self.equal_validations and self.equal_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class EquivalenceResult:
    """All comparisons on one store.

    Args:
        machine: where.
        store: the store.
        trainings: by model, standard batching first.
        failures: "MODEL with BATCHING batches" where standard batching alone could train, and why.
        left_out: models that standard batching could not train, and why.
    """

    machine: Machine
    store: Path
    trainings: tuple[ComparedTraining, ...]
    failures: Mapping[str, str]
    left_out: tuple[str, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """What is not as with standard batching, a line each."""
        different = [each for each in self.trainings if not each.is_equal]
        return (
            *(f"{each.model} with {each.batching} batches" for each in different),
            *(f"{what}: {why}" for what, why in self.failures.items()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trained:
    """What a training computed, without its times."""

    losses: tuple[float | None, ...]
    validations: tuple[str, ...]
    val_mae: float
    parameters: str
    state: str


def measure_equivalence(
    store: Path,
    models: Mapping[str, Sequence[str]],
    *,
    batchings: Sequence[str],
    log: Callable[[str], None] = lambda _: None,
) -> EquivalenceResult:
    """Train each model with standard batching and with each other one, and compare.

    Args:
        store: the store.
        models: options of `pgti train` for each model, but for the batching and the run.
        batchings: what to compare with standard batching.
        log: told what is being done, a line each.

    Raises:
        ConfigError: there is no such batching.
        BenchError: nothing could be compared; the first reason is in the message.
    """
    for name in batchings:
        if name not in BATCHINGS or name == STANDARD:
            others = ", ".join(each for each in BATCHINGS if each != STANDARD)
            raise ConfigError(f"batching {name!r} is not compared: it is one of {others}")
    found: list[ComparedTraining] = []
    failures: dict[str, str] = {}
    left_out: list[str] = []
    for model, options in models.items():
        log(f"{model} with {STANDARD} batches")
        try:
            expected = _trained(store, (*options, "--batching", STANDARD))
        except BenchError as error:
            left_out.append(f"{model}: {error}")
            continue
        found.append(_compared(model, STANDARD, expected, expected))
        for batching in batchings:
            log(f"{model} with {batching} batches")
            try:
                trained = _trained(store, (*options, "--batching", batching))
            except BenchError as error:
                failures[f"{model} with {batching} batches"] = str(error)
                continue
            found.append(_compared(model, batching, trained, expected))
    if not found:
        raise BenchError(left_out[0] if left_out else "no model is named")
    return EquivalenceResult(
        machine=Machine.here(),
        store=store,
        trainings=tuple(found),
        failures=failures,
        left_out=tuple(left_out),
    )


def _trained(store: Path, options: Sequence[str]) -> _Trained:
    """Train once, in a process of its own, with a line of metrics for every step.

    Raises:
        BenchError: it did not train to the end.
    """
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        directory = Path(scratch) / "run"
        where = ["--log-every-steps", "1", "--run", str(directory)]
        command = [sys.executable, "-m", "pgti", "train", str(store), *options, *where]
        ended = run_limited(command, None)
        if ended.exit_code != 0:
            raise BenchError(f"pgti train did not train to the end: {last_message(ended.messages)}")
        run = RunDirectory(directory)
        lines = run.read_metrics()
        checkpoint = run.load_last()
    validations = [line for line in lines if line["kind"] == "epoch"]
    return _Trained(
        losses=tuple(line["train_loss"] for line in lines if line["kind"] == "step"),
        validations=tuple(
            json.dumps({key: value for key, value in line.items() if key not in _TIMES})
            for line in validations
        ),
        val_mae=validations[-1]["val"]["mae"],
        parameters=_digest(checkpoint.network),
        state=_digest([checkpoint.network, checkpoint.optimizer]),
    )


def _compared(model: str, batching: str, one: _Trained, other: _Trained) -> ComparedTraining:
    equal = sum(a == b for a, b in zip(one.losses, other.losses, strict=True))
    return ComparedTraining(
        model=model,
        batching=batching,
        steps=len(one.losses),
        first_loss=one.losses[0],
        last_loss=one.losses[-1],
        val_mae=one.val_mae,
        equal_losses=equal,
        equal_validations=one.validations == other.validations,
        equal_parameters=one.state == other.state,
        parameters_sha256=one.parameters,
    )


def _digest(state: Any) -> str:
    """SHA-256 of every bit of a nested state."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for each in value:
                add(each)
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().cpu().numpy().tobytes())
        else:
            digest.update(repr(value).encode())

    add(state)
    return digest.hexdigest()
