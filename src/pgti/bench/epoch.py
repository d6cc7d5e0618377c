"""An epoch of training from end to end, with each batching, in processes of their own."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pgti.batching import BATCHINGS
from pgti.bench.contest import alternate
from pgti.bench.limited_run import run_limited
from pgti.bench.measured_commands import last_message, last_object, peak_pss_bytes
from pgti.bench.results import Machine, Spread
from pgti.errors import BenchError, ConfigError, require_whole_number

__all__ = ["BatchingEpochs", "EpochResult", "measure_epochs"]

_AUTO = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchingEpochs:
    """Epochs with one batching.

    Args:
        batching: its name.
        windows_per_second: that the training learnt from, validation left out.
        seconds: from the start of the command to its end, validation and test of one batch each
            included.
        seconds_to_first_step: from the start of the command to the end of its first step.
        peak_pss_bytes: the most memory of the process; None where the system does not tell.
    """

    batching: str
    windows_per_second: Spread
    seconds: Spread
    seconds_to_first_step: Spread
    peak_pss_bytes: Spread | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """Epochs of one store and model.

    Args:
        machine: where.
        store: the store.
        steps: optimiser steps of each epoch.
        epochs: by batching, in the order asked for; those that could not train are left out.
        left_out: which batchings those are and why, a line each.
    """

    machine: Machine
    store: Path
    steps: int
    epochs: tuple[BatchingEpochs, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Epoch:
    steps: int
    windows_per_second: float
    seconds: float
    seconds_to_first_step: float
    peak_pss_bytes: int | None


def measure_epochs(
    store: Path,
    options: Sequence[str],
    *,
    batchings: Sequence[str],
    rounds: int,
    log: Callable[[str], None] = lambda _: None,
) -> EpochResult:
    """Train with each batching in turn, `rounds` times, the order changing from round to round.

    Args:
        store: the store.
        options: of `pgti train`, but for the batching and the run.
        batchings: their names; auto is what the library would choose.
        rounds: epochs of each.
        log: told what is being done, a line each.

    Raises:
        ConfigError: there is no such batching, or `rounds` is no positive whole number.
        BenchError: no batching could train; the first one's reason is in the message.
    """
    require_whole_number("rounds", rounds, 1)
    known = (_AUTO, *BATCHINGS)
    for name in batchings:
        if name not in known:
            raise ConfigError(f"there is no batching {name!r}: it is one of {', '.join(known)}")
    if not batchings:
        raise ConfigError(f"no batching is named: give some of {', '.join(known)}")
    epochs: dict[str, list[_Epoch]] = {name: [] for name in batchings}
    problems: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:

        def train(batching: str) -> float:
            if batching in problems:
                return 0.0
            number = len(epochs[batching]) + 1
            log(f"epoch {number} of {rounds} with {batching} batches")
            run = Path(scratch) / f"{batching}-{number}"
            tokens = ("--batching", batching, "--run", str(run), *options)
            try:
                epochs[batching].append(_trained(store, tokens))
            except BenchError as error:
                problems[batching] = str(error)
                return 0.0
            return epochs[batching][-1].seconds

        alternate({name: partial(train, name) for name in epochs}, rounds, warmups=0)
    if len(problems) == len(epochs):
        raise BenchError(next(iter(problems.values())))
    measured = {name: runs for name, runs in epochs.items() if name not in problems}
    return EpochResult(
        machine=Machine.here(),
        store=store,
        steps=next(iter(measured.values()))[0].steps,
        epochs=tuple(_summary(name, runs) for name, runs in measured.items()),
        left_out=tuple(f"{name} batches: {problem}" for name, problem in problems.items()),
    )


def _trained(store: Path, tokens: Sequence[str]) -> _Epoch:
    """Train once, in a process of its own.

    Raises:
        BenchError: it did not train to the end.
    """
    command = [sys.executable, "-m", "pgti", "train", str(store), *tokens, "--json"]
    ended = run_limited(command, None)
    told = last_object(ended.output)
    if ended.exit_code != 0 or told.get("seconds_to_first_step") is None:
        why = last_message(ended.messages)
        if ended.exit_code < 0:
            why = f"signal {-ended.exit_code} killed it"
        raise BenchError(f"pgti train did not train to the end: {why}")
    return _Epoch(
        steps=told["steps"],
        windows_per_second=told["windows_per_second"],
        seconds=ended.seconds,
        seconds_to_first_step=told["seconds_to_first_step"],
        peak_pss_bytes=peak_pss_bytes(ended),
    )


def _summary(batching: str, epochs: Sequence[_Epoch]) -> BatchingEpochs:
    sizes = [each.peak_pss_bytes for each in epochs if each.peak_pss_bytes is not None]
    return BatchingEpochs(
        batching=batching,
        windows_per_second=Spread.of([each.windows_per_second for each in epochs]),
        seconds=Spread.of([each.seconds for each in epochs]),
        seconds_to_first_step=Spread.of([each.seconds_to_first_step for each in epochs]),
        peak_pss_bytes=Spread.of(sizes) if sizes else None,
    )
