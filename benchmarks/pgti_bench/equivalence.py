"""Test the paper's claim that index-batching changes no result, on any store, for any model.

The same training runs with materialised windows and with every other batching strategy, and
everything that it computes is compared bit for bit: the loss after each step, the validation
metrics, and the parameters and the optimizer's moments at the end.
"""

import hashlib
import json as json_text
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from torch import Tensor

from pgti.batching import BATCHINGS
from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.errors import ConfigError
from pgti.run.results import Machine, to_json
from pgti.store import SeriesStore
from pgti.training import RunDirectory
from pgti_bench.errors import BenchError, DifferenceError
from pgti_bench.limited_run import run_limited
from pgti_bench.output import finish

__all__ = [
    "ComparedTraining",
    "EquivalenceResult",
    "equivalence_command",
    "measure_equivalence",
]

STANDARD = "standard"
_TIMES = ("seconds", "windows_per_second")  # of a line of metrics: times, not results


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedTraining:
    """One model trained with one batching strategy, compared with standard batching.

    Attributes:
        model: its name.
        batching: how batches were made.
        steps: optimizer steps.
        first_loss: mean loss of the first step, in the target's unit; None if no target was
            observed.
        last_loss: mean loss over the last epoch after the last step.
        val_mae: of the last validation.
        equal_losses: number of steps after which the loss equals that of standard batching.
        equal_validations: whether all metrics of all validations are equal.
        equal_parameters: whether parameters, buffers and the optimizer's moments are equal.
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
        """Whether everything equals standard batching."""
        return self.equal_losses == self.steps and self.equal_validations and self.equal_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class EquivalenceResult:
    """All comparisons on one store.

    Attributes:
        machine: where they ran.
        store: the store.
        trainings: by model, standard batching first.
        failures: "MODEL with BATCHING batches" if only standard batching could train, and why.
        left_out: models that standard batching could not train, and why.
    """

    machine: Machine
    store: Path
    trainings: tuple[ComparedTraining, ...]
    failures: Mapping[str, str]
    left_out: tuple[str, ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """What differs from standard batching, one line each."""
        different = [each for each in self.trainings if not each.is_equal]
        return (
            *(f"{each.model} with {each.batching} batches" for each in different),
            *(f"{what}: {why}" for what, why in self.failures.items()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Results:
    """Results of a training, without times."""

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
    """Train each model with standard batching and with every other strategy, and compare.

    Args:
        store: the store.
        models: options of `pgti train` for each model, without `--batching` and `--run`.
        batchings: strategies to compare with standard batching.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: a batching is unknown.
        BenchError: nothing could be compared; the first reason is in the message.
    """
    for name in batchings:
        if name not in BATCHINGS or name == STANDARD:
            others = ", ".join(each for each in BATCHINGS if each != STANDARD)
            raise ConfigError(f"batching {name!r} cannot be compared: it is one of {others}")
    found: list[ComparedTraining] = []
    failures: dict[str, str] = {}
    left_out: list[str] = []
    for model, options in models.items():
        log(f"{model} with {STANDARD} batches")
        try:
            expected = _train(store, (*options, "--batching", STANDARD))
        except BenchError as error:
            left_out.append(f"{model}: {error}")
            continue
        found.append(_compare(model, STANDARD, expected, expected))
        for batching in batchings:
            log(f"{model} with {batching} batches")
            try:
                trained = _train(store, (*options, "--batching", batching))
            except BenchError as error:
                failures[f"{model} with {batching} batches"] = str(error)
                continue
            found.append(_compare(model, batching, trained, expected))
    if not found:
        raise BenchError(left_out[0] if left_out else "models is empty: name at least one")
    return EquivalenceResult(
        machine=Machine.here(),
        store=store,
        trainings=tuple(found),
        failures=failures,
        left_out=tuple(left_out),
    )


def _train(store: Path, options: Sequence[str]) -> _Results:
    """Train once, in a separate process, with a line of metrics for every step.

    Raises:
        BenchError: it did not train to the end.
    """
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        directory = Path(scratch) / "run"
        where = ["--log-every-steps", "1", "--run", str(directory)]
        command = [sys.executable, "-m", "pgti", "train", str(store), *options, *where]
        ended = run_limited(command, None)
        if ended.exit_code != 0:
            raise BenchError(f"pgti train did not train to the end: {ended.last_message}")
        run = RunDirectory(directory)
        lines = run.read_metrics()
        checkpoint = run.load_last()
    validations = [line for line in lines if line["kind"] == "epoch"]
    return _Results(
        losses=tuple(line["train_loss"] for line in lines if line["kind"] == "step"),
        validations=tuple(
            json_text.dumps({key: value for key, value in line.items() if key not in _TIMES})
            for line in validations
        ),
        val_mae=validations[-1]["val"]["mae"],
        parameters=_digest(checkpoint.network),
        state=_digest([checkpoint.network, checkpoint.optimizer]),
    )


def _compare(model: str, batching: str, one: _Results, other: _Results) -> ComparedTraining:
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


def equivalence_command(
    store: Path,
    /,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True)],
    models: tuple[str, ...] = ("dcrnn", "a3tgcn", "tgcn"),
    batching: tuple[str, ...] = ("index", "device"),
    json: bool = False,
) -> None:
    """Train models with materialised windows and with index-batching, and compare every bit.

    Compared are the loss after each step, the metrics of each validation, and the parameters and
    the optimizer's moments at the end. Options that are not listed here go to pgti train; one
    epoch of at most 20 steps is trained unless --epochs or --max-steps is given. Exit code 1 if
    anything differs, or a strategy fails where standard batching trains.

    Args:
        store: The store to train on.
        options: Options of pgti train, without --batching, --model and --run.
        models: Comma-separated models, with their default options; pgt:LAYER too.
        batching: Comma-separated strategies to compare with standard batching: index, device.
        json: Print one JSON object on standard output, and no tables.
    """
    defaults = {"--epochs": "1", "--test-windows": "1"}
    if "--epochs" not in options:
        defaults["--max-steps"] = "20"
    missing = [token for each in defaults.items() if each[0] not in options for token in each]
    result = measure_equivalence(
        SeriesStore.open(store).path.absolute(),
        {name: ("--model", name, *missing, *options) for name in models},
        batchings=batching,
        log=log_line,
    )
    print_results(to_json(result), _table(result), as_json=json)
    finish("Equivalence", result.machine, result.left_out)
    if result.differences:
        raise DifferenceError(f"results differ: {', '.join(result.differences)}")


def _table(result: EquivalenceResult) -> Table:
    table = Table(title="the same training with each batching strategy", title_justify="left")
    for title in ("model", "batching"):
        table.add_column(title, no_wrap=True)
    for title in ("first loss", "last loss", "val MAE", "equal losses", "validation", "parameters"):
        table.add_column(title, justify="right")
    for each in result.trainings:
        table.add_row(
            each.model,
            each.batching,
            *(_format(value) for value in (each.first_loss, each.last_loss, each.val_mae)),
            f"{each.equal_losses} of {each.steps}",
            "equal" if each.equal_validations else "DIFFERENT",
            f"{'equal' if each.equal_parameters else 'DIFFERENT'} {each.parameters_sha256[:12]}",
        )
    return table


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"
