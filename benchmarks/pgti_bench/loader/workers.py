"""The processes that make batches: pgti's, PGT's, and one that copies memory."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pgti.memory.available import available_bytes
from pgti.store import SeriesStore
from pgti_bench.errors import BenchError
from pgti_bench.loader.options import LoaderOptions
from pgti_bench.pgt_environment import (
    COPIES_HELD,
    NO_PGT,
    PGT_VARIANTS,
    pgt_command,
    series_bytes,
    write_for_pgt,
)
from pgti_bench.worker import Worker, thread_settings

__all__ = ["LoaderWorker", "LoaderWorkers"]

_COMMAND = (sys.executable, "-m", "pgti_bench.loader.worker")


@dataclass(kw_only=True, slots=True)
class LoaderWorker:
    """A process that makes batches or copies memory.

    Attributes:
        name: among the contenders.
        worker: the process.
        request: what it is asked for in each round.
        epoch_batches: batches of an epoch.
        batch_bytes: of a batch.
        threads: that it computes with.
        versions: of PGT's libraries.
        num_windows: windows of the last round.
        num_bytes: bytes of the last round.
    """

    name: str
    worker: Worker
    request: str = "batches"
    epoch_batches: int = 0
    batch_bytes: int = 0
    threads: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    num_windows: int = 0
    num_bytes: int = 0

    def run(self, count: int) -> float:
        """Seconds for `count` batches."""
        reply = self.worker.ask(do=self.request, count=count)
        self.num_windows, self.num_bytes = reply["windows"], reply["bytes"]
        return float(reply["seconds"])


class LoaderWorkers:
    """Starts the processes; the stack ends them.

    Args:
        options: what to measure.
        store: whose windows.
        stack: owns the processes.
        log: receives one line for each thing that is done.

    Attributes:
        left_out: which contenders could not start and why, one line each.
    """

    def __init__(
        self,
        options: LoaderOptions,
        store: SeriesStore,
        stack: ExitStack,
        log: Callable[[str], None],
    ) -> None:
        self.left_out: list[str] = []
        self._options = options
        self._store = store
        self._stack = stack
        self._log = log
        self._env = thread_settings(options.threads)

    def start_own(self) -> list[LoaderWorker]:
        """Start a process for every batching strategy that fits in memory.

        Raises:
            BenchError: if none does.
        """
        blocks = self._options.block_size
        kinds = {
            "index": ("index", 1, True),
            "index, not prefetched": ("index", 1, False),
            f"index, blocks of {blocks}": ("index", blocks, True),
            "device": ("device", 1, True),
            "standard": ("standard", 1, True),
        }
        runners = []
        for name, kind in kinds.items():
            self._log(f"{name}: first batch")
            try:
                runners.append(self._start_own(name, *kind))
            except BenchError as error:
                self.left_out.append(str(error))
        if not runners:
            raise BenchError(f"no batching could be measured: {self.left_out[0]}")
        return runners

    def start_peers(self, pgt: Path | None, directory: Path) -> list[LoaderWorker]:
        """Start PGT's loader in each of its variants, if it fits in memory."""
        if pgt is None:
            self.left_out.append(NO_PGT)
            return []
        runners = []
        for name, retain_freed in PGT_VARIANTS.items():
            try:
                self._check_memory(name)
                if not directory.exists():
                    self._log("writing the series in PGT's format")
                    write_for_pgt(self._store, directory)
                self._log(f"{name}: first batch")
                runners.append(self._start_peer(name, pgt, directory, retain_freed=retain_freed))
            except BenchError as error:
                self.left_out.append(str(error))
        return runners

    def start_copies(self, batch_bytes: int) -> LoaderWorker:
        """Start a process that copies as many bytes as a batch of pgti has."""
        worker = self._stack.enter_context(Worker(_COMMAND, self._env, "memcpy"))
        worker.ask(
            do="prepare_copies", source_bytes=self._options.copied_bytes, batch_bytes=batch_bytes
        )
        return LoaderWorker(name="memcpy", worker=worker, request="copies")

    def num_batches(self, own: Sequence[LoaderWorker]) -> int:
        """Batches per round."""
        wanted = self._options.batches or max(1, self._options.round_bytes // own[0].batch_bytes)
        return min(wanted, own[0].epoch_batches)

    def log_round(self, done: int) -> None:
        """Log how many rounds are done."""
        self._log(f"round {done} of {self._options.rounds} is done")

    def _start_own(self, name: str, batching: str, block_size: int, prefetch: bool) -> LoaderWorker:
        with ExitStack() as failing:  # a process that fails ends at once and frees its memory
            worker = failing.enter_context(Worker(_COMMAND, self._env, name))
            prepared = worker.ask(
                do="prepare",
                store=str(self._store.path),
                batching=batching,
                block_size=block_size,
                prefetch=prefetch,
                steps=self._options.window_steps,
                batch_size=self._options.batch_size,
                device=self._options.device,
            )
            self._stack.push(failing.pop_all())
        return LoaderWorker(
            name=name,
            worker=worker,
            epoch_batches=prepared["batches"],
            batch_bytes=prepared["batch_bytes"],
            threads=prepared["threads"],
        )

    def _start_peer(
        self, name: str, pgt: Path, directory: Path, *, retain_freed: bool
    ) -> LoaderWorker:
        with ExitStack() as failing:
            worker = failing.enter_context(Worker(pgt_command(pgt), self._env, name))
            prepared = worker.ask(
                do="prepare_loader",
                directory=str(directory),
                steps=self._options.window_steps,
                batch_size=self._options.batch_size,
                retain_freed=retain_freed,
            )
            if retain_freed and not prepared["retains"]:
                raise BenchError(f"{name}: its C library has no such setting")
            runner = LoaderWorker(name=name, worker=worker, versions=prepared["versions"])
            runner.run(1)
            self._stack.push(failing.pop_all())
        return runner

    def _check_memory(self, name: str) -> None:
        """Refuse PGT's loader if it does not fit.

        Raises:
            BenchError: with the bytes it needs.
        """
        needed = COPIES_HELD * series_bytes(self._store) + 4 * self._store.meta.num_nodes**2
        free = available_bytes()
        if needed > free:
            raise BenchError(
                f"{name}: its loader holds {COPIES_HELD} copies of the series in float32, "
                f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are available"
            )
