"""Compare training on one rank and on two: the time of an epoch, or private memory."""

import json as json_text
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
from cyclopts import Parameter

from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.run.results import Machine, Spread, to_json
from pgti_bench.errors import BenchError
from pgti_bench.interleave import interleave, spread_of_ratios
from pgti_bench.output import finish
from pgti_bench.worker import thread_settings

__all__ = ["RankMemory", "RanksResult", "measure_rank_memory", "measure_ranks", "ranks_command"]

_DEFAULTS = ("--epochs", "1", "--test-windows", "64", "--val-windows", "64", "--seed", "0")
_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class RanksResult:
    """The result of `measure_ranks`.

    Attributes:
        machine: where it was measured.
        seconds: of the optimizer steps of an epoch, start-up and validation left out, by number of
            ranks.
        speedup: of two ranks over one.
    """

    machine: Machine
    seconds: dict[int, Spread]
    speedup: Spread


@dataclass(frozen=True, kw_only=True, slots=True)
class RankMemory:
    """Memory of the ranks of one training.

    Attributes:
        ranks: number of ranks.
        private_bytes: peak of each rank's pages that no other process maps.
        cached_fraction: of the series file in the page cache afterwards.
    """

    ranks: int
    private_bytes: tuple[int, ...]
    cached_fraction: float


def measure_ranks(store: Path, options: Sequence[str], rounds: int) -> RanksResult:
    """Time the steps of an epoch on one rank and on two, interleaved, each rank with one thread.

    Args:
        store: to train on.
        options: of `pgti train`.
        rounds: epochs at each number of ranks.

    Raises:
        BenchError: a training failed.
    """
    contenders: dict[str, Callable[[], float]] = {
        "1": lambda: _epoch_seconds(store, 1, options),
        "2": lambda: _epoch_seconds(store, 2, options),
    }
    seconds = interleave(contenders, rounds, warmups=0)
    return RanksResult(
        machine=Machine.here(),
        seconds={int(ranks): Spread.of(values) for ranks, values in seconds.items()},
        speedup=spread_of_ratios(seconds["1"], seconds["2"]),
    )


def measure_rank_memory(store: Path, ranks: int, options: Sequence[str]) -> RankMemory:
    """Measure the private memory of the ranks of a training.

    Args:
        store: to train on.
        ranks: number of ranks.
        options: of `pgti train`.

    Raises:
        BenchError: the training failed.
    """
    series = store / "series.npy"
    peaks: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        process = _start(store, Path(directory) / "run", ranks, options)
        while process.poll() is None:
            with suppress(psutil.Error):
                for child in psutil.Process(process.pid).children():
                    private = child.memory_full_info().uss
                    peaks[child.pid] = max(peaks.get(child.pid, 0), private)
            time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise BenchError(f"training on {ranks} ranks failed with exit code {process.returncode}")
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(series)]
    cached = subprocess.run(command, capture_output=True, text=True, check=True)
    return RankMemory(
        ranks=ranks,
        private_bytes=tuple(peaks.values()),
        cached_fraction=int(cached.stdout) / series.stat().st_size,
    )


def _start(store: Path, run: Path, ranks: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a training on ranks of one thread each."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(ranks), "-m", "pgti", "train", str(store)),
        *("--run-dir", str(run), *_DEFAULTS, *options),
    ]
    env = {**os.environ, **thread_settings(1)}
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)


def _epoch_seconds(store: Path, ranks: int, options: Sequence[str]) -> float:
    """Seconds of the epoch's steps, without start-up and validation."""
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        code = _start(store, run, ranks, options).wait()
        if code:
            raise BenchError(f"training on {ranks} ranks failed with exit code {code}")
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epoch = next(line for line in map(json_text.loads, lines) if line["kind"] == "epoch")
    return float(epoch["seconds"])


def ranks_command(
    store: Path,
    /,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True)],
    rounds: int = 3,
    memory: bool = False,
    json: bool = False,
) -> None:
    """Compare training on one rank and on two, each with one thread: speed, or private memory.

    Options that are not listed here go to pgti train.

    Args:
        store: The store to train on.
        options: Options of pgti train.
        rounds: Epochs at each number of ranks, interleaved.
        memory: Measure the private memory of the ranks and the cached part of the series instead.
        json: Print one JSON object on standard output, and no tables.
    """
    if memory:
        found = [measure_rank_memory(store, ranks, options) for ranks in (1, 2)]
        for each in found:
            sizes = ", ".join(f"{size / 2**20:.0f} MiB" for size in each.private_bytes)
            log_line(
                f"{each.ranks} ranks: {sum(each.private_bytes) / 2**20:.0f} MiB of private memory "
                f"({sizes}); {each.cached_fraction:.3f} of the series is in the page cache"
            )
        print_results({"memory": to_json(found)}, as_json=json)
        return
    result = measure_ranks(store, options, rounds)
    for ranks, seconds in result.seconds.items():
        log_line(
            f"{ranks} ranks: {seconds.median:.1f} s ({seconds.minimum:.1f} to "
            f"{seconds.maximum:.1f})"
        )
    speedup = result.speedup
    log_line(
        f"two ranks are {speedup.median:.3f} times as fast as one ({speedup.minimum:.3f} to "
        f"{speedup.maximum:.3f})"
    )
    print_results(to_json(result), as_json=json)
    finish("Ranks", result.machine, ())
