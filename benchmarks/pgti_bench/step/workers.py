"""The processes that take training steps: pgti's, those that run its products alone, and PGT's."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgti.run.results import to_json
from pgti.training.config import Precision
from pgti_bench.errors import BenchError
from pgti_bench.pgt_environment import NO_PGT, PGT_VARIANTS, pgt_command
from pgti_bench.step.network import INPUT_CHANNELS, LAYER, TARGET_CHANNELS, StepSpec
from pgti_bench.step.options import StepOptions
from pgti_bench.step.products import ProductCount
from pgti_bench.worker import Worker, thread_settings

__all__ = ["OwnWorkers", "PeerWorker", "StepWorkers"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnWorkers:
    """Processes of pgti, past their first step: they take steps, or run products alone.

    Attributes:
        precision: float32 or bfloat16.
        stepping: takes steps.
        multiplying: runs the matrix products of a step.
        compiled: takes compiled steps; None if they are not measured.
        compile_seconds: of its first step, which compiles; None as well.
        parameters: number of trainable parameters.
        threads: of each process.
        count: the products of a step.
    """

    precision: Precision
    stepping: Worker
    multiplying: Worker
    compiled: Worker | None
    compile_seconds: float | None
    parameters: int
    threads: int
    count: ProductCount

    @property
    def name(self) -> str:
        """The step's name among the contenders."""
        return f"pgti {self.precision}"

    def contenders(self) -> dict[str, Callable[[], float]]:
        """By name: the step, compiled too, its dense products alone, and its sparse ones."""
        contenders = {self.name: lambda: _seconds(self.stepping.ask(do="step"))}
        compiled = self.compiled
        if compiled is not None:
            contenders[f"{self.name} compiled"] = lambda: _seconds(compiled.ask(do="step"))
        contenders[f"{self.name} dense"] = lambda: self._multiply("dense")
        contenders[f"{self.name} sparse"] = lambda: self._multiply("sparse")
        return contenders

    def _multiply(self, kind: str) -> float:
        return _seconds(self.multiplying.ask(do="products", kind=kind))


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerWorker:
    """A process of PGT, past its first step.

    Attributes:
        name: how PGT is run.
        worker: the process.
        versions: of its libraries.
        parameters: number of trainable parameters.
    """

    name: str
    worker: Worker
    versions: Mapping[str, str]
    parameters: int

    def step(self) -> float:
        """Take a step; its seconds."""
        return _seconds(self.worker.ask(do="step"))


class StepWorkers:
    """Starts the processes; the stack ends them.

    Args:
        options: what to measure.
        graph: file of the graph.
        stack: owns the processes.
        log: receives one line for each thing that is done.
    """

    def __init__(
        self, options: StepOptions, graph: Path, stack: ExitStack, log: Callable[[str], None]
    ) -> None:
        self._options = options
        self._graph = graph
        self._stack = stack
        self._log = log
        self._env = thread_settings(options.threads)

    def start_own(self, precision: Precision) -> OwnWorkers:
        """Start the processes and let each take a step; a compiled one takes two."""
        self._log(f"pgti {precision}: first step")
        stepping, prepared = self._start(precision, retain_freed=True)
        stepping.ask(do="step")
        multiplying, _ = self._start(precision, retain_freed=False)
        count = multiplying.ask(do="record")["count"]
        for kind in ("dense", "sparse"):
            multiplying.ask(do="products", kind=kind)
        compiled = compile_seconds = None
        if self._options.compile:
            self._log(f"pgti {precision}: first compiled step")
            compiled, _ = self._start(precision, retain_freed=True, compile=True)
            compile_seconds = _seconds(compiled.ask(do="step"))
            compiled.ask(do="step")
        return OwnWorkers(
            precision=precision,
            stepping=stepping,
            multiplying=multiplying,
            compiled=compiled,
            compile_seconds=compile_seconds,
            parameters=prepared["parameters"],
            threads=prepared["threads"],
            count=ProductCount(**count),
        )

    def start_peers(self, pgt: Path | None) -> tuple[list[PeerWorker], list[str]]:
        """Start PGT in each of its variants; the second list says which were left out and why."""
        if self._options.model != LAYER:
            return [], [f"PGT: it has no counterpart of the model {self._options.model!r}"]
        if pgt is None:
            return [], [NO_PGT]
        peers, left_out = [], []
        for name, retain_freed in PGT_VARIANTS.items():
            self._log(f"{name}: first step")
            try:
                peers.append(self._start_peer(name, pgt, retain_freed=retain_freed))
            except BenchError as error:
                left_out.append(str(error))
        return peers, left_out

    def log_round(self, done: int) -> None:
        """Log how many rounds are done."""
        self._log(f"round {done} of {self._options.rounds} is done")

    def _start(
        self, precision: Precision, *, retain_freed: bool, compile: bool = False
    ) -> tuple[Worker, dict[str, Any]]:
        command = (sys.executable, "-m", "pgti_bench.step.worker")
        worker = self._stack.enter_context(Worker(command, self._env, f"pgti {precision}"))
        options = self._options
        spec = StepSpec(
            model=options.model,
            options=options.model_options,
            steps=options.steps,
            batch_size=options.batch_size,
            precision=precision,
            activation_checkpointing=options.activation_checkpointing,
            compile=compile,
        )
        return worker, worker.ask(
            do="prepare",
            graph=str(self._graph),
            spec=to_json(spec),
            device=options.device,
            retain_freed=retain_freed,
        )

    def _start_peer(self, name: str, pgt: Path, *, retain_freed: bool) -> PeerWorker:
        """Start PGT and let it take a step.

        Raises:
            BenchError: if it fails, or its malloc cannot retain freed memory.
        """
        options = self._options
        with ExitStack() as failing:  # a process that fails ends at once and frees its memory
            worker = failing.enter_context(Worker(pgt_command(pgt), self._env, name))
            prepared = worker.ask(
                do="prepare_step",
                graph=str(self._graph),
                hidden=options.model_options["hidden"],
                hops=options.model_options["hops"],
                steps=options.steps,
                batch_size=options.batch_size,
                channels=[INPUT_CHANNELS, TARGET_CHANNELS],
                device=options.device,
                retain_freed=retain_freed,
            )
            if retain_freed and not prepared["retains"]:
                raise BenchError(f"{name}: its C library has no such setting")
            worker.ask(do="step")
            self._stack.push(failing.pop_all())
        return PeerWorker(
            name=name,
            worker=worker,
            versions=prepared["versions"],
            parameters=prepared["parameters"],
        )


def _seconds(reply: Mapping[str, Any]) -> float:
    return float(reply["seconds"])
