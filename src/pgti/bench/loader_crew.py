"""The processes that make batches: ours, PGT's, and one that copies memory."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pgti.bench.loader_options import LoaderOptions
from pgti.bench.peers import NO_PGT, PGT_VARIANTS, pgt_command
from pgti.bench.pgt_arrays import COPIES_HELD, num_readings, write_for_pgt
from pgti.bench.worker import Worker, thread_settings
from pgti.errors import BenchError
from pgti.memory.available import available_bytes
from pgti.store import SeriesStore

__all__ = ["LoaderCrew", "LoaderProcess"]

_PASS_BYTES = 2 << 30  # of batches made in a round, if an epoch has as many
_COPIED_BYTES = 1 << 30  # of memory that copies are taken from: more than any cache
_COMMAND = (sys.executable, "-m", "pgti.bench.loader_worker")


@dataclass(kw_only=True, slots=True)
class LoaderProcess:
    """A process that makes batches or copies, and what a round of it made."""

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
        """Seconds for so many batches."""
        reply = self.worker.ask(do=self.request, count=count)
        self.num_windows, self.num_bytes = reply["windows"], reply["bytes"]
        return float(reply["seconds"])


class LoaderCrew:
    """Starts the processes; the stack ends them."""

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
        self._say = log
        self._env = thread_settings(options.threads)

    def start_own(self) -> list[LoaderProcess]:
        """Every batching that fits.

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
            self._say(f"{name}: first batch")
            try:
                runners.append(self._started_own(name, *kind))
            except BenchError as error:
                self.left_out.append(str(error))
        if not runners:
            raise BenchError(f"no batching could be measured: {self.left_out[0]}")
        return runners

    def start_peers(self, pgt: Path | None, directory: Path) -> list[LoaderProcess]:
        """PGT's loader as its users run it and with freed memory kept, where it can run."""
        if pgt is None:
            self.left_out.append(NO_PGT)
            return []
        runners = []
        for name, keep_freed in PGT_VARIANTS.items():
            try:
                self._check_room(name)
                if not directory.exists():
                    self._say("writing the series as PGT reads it")
                    write_for_pgt(self._store, directory)
                self._say(f"{name}: first batch")
                runners.append(self._started_peer(name, pgt, directory, keep_freed=keep_freed))
            except BenchError as error:
                self.left_out.append(str(error))
        return runners

    def start_copies(self, batch_bytes: int) -> LoaderProcess:
        """Copies of as many bytes as a batch of ours has."""
        worker = self._stack.enter_context(Worker(_COMMAND, self._env, "memcpy"))
        worker.ask(do="prepare_copies", source_bytes=_COPIED_BYTES, batch_bytes=batch_bytes)
        return LoaderProcess(name="memcpy", worker=worker, request="copies")

    def num_batches(self, own: Sequence[LoaderProcess]) -> int:
        """Batches of a round."""
        wanted = self._options.batches or max(1, _PASS_BYTES // own[0].batch_bytes)
        return min(wanted, own[0].epoch_batches)

    def tell_round(self, done: int) -> None:
        """Say how far the rounds have come."""
        self._say(f"round {done} of {self._options.rounds} is done")

    def _started_own(
        self, name: str, batching: str, block_size: int, prefetch: bool
    ) -> LoaderProcess:
        with ExitStack() as failing:  # whoever cannot start ends at once, and holds no memory
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
        return LoaderProcess(
            name=name,
            worker=worker,
            epoch_batches=prepared["batches"],
            batch_bytes=prepared["batch_bytes"],
            threads=prepared["threads"],
        )

    def _started_peer(
        self, name: str, pgt: Path, directory: Path, *, keep_freed: bool
    ) -> LoaderProcess:
        with ExitStack() as failing:
            worker = failing.enter_context(Worker(pgt_command(pgt), self._env, name))
            prepared = worker.ask(
                do="prepare_loader",
                directory=str(directory),
                steps=self._options.window_steps,
                batch_size=self._options.batch_size,
                keep_freed=keep_freed,
            )
            if keep_freed and not prepared["kept"]:
                raise BenchError(f"{name}: its C library has no such setting")
            runner = LoaderProcess(name=name, worker=worker, versions=prepared["versions"])
            runner.run(1)
            self._stack.push(failing.pop_all())
        return runner

    def _check_room(self, name: str) -> None:
        """Refuse a loader that would not fit.

        Raises:
            BenchError: saying what it takes.
        """
        nodes = self._store.meta.num_nodes
        needed = COPIES_HELD * 4 * num_readings(self._store) + 4 * nodes**2
        free = available_bytes()
        if needed > free:
            raise BenchError(
                f"{name}: its loader holds {COPIES_HELD} copies of the series in float32, "
                f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are available"
            )
