"""The processes that take training steps: ours, those that run products alone, and PGT's."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgti.bench.own_step import INPUT_CHANNELS, LAYER, TARGET_CHANNELS, StepSpec
from pgti.bench.peers import NO_PGT, PGT_VARIANTS, pgt_command
from pgti.bench.products import ProductCount
from pgti.bench.results import to_json
from pgti.bench.step_options import StepOptions
from pgti.bench.worker import Worker, thread_settings
from pgti.errors import BenchError
from pgti.training.config import Precision

__all__ = ["OwnProcesses", "PeerProcess", "StepCrew"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnProcesses:
    """Two processes of ours that have each taken a step: one to go on, one for its products."""

    precision: Precision
    stepping: Worker
    multiplying: Worker
    parameters: int
    threads: int
    count: ProductCount

    @property
    def name(self) -> str:
        """What the step is called among the contenders."""
        return f"pgti {self.precision}"

    def contenders(self) -> dict[str, Callable[[], float]]:
        """By name: the step, and its dense and its sparse products alone."""
        return {
            self.name: lambda: _seconds(self.stepping.ask(do="step")),
            f"{self.name} dense": lambda: self._multiply("dense"),
            f"{self.name} sparse": lambda: self._multiply("sparse"),
        }

    def _multiply(self, kind: str) -> float:
        return _seconds(self.multiplying.ask(do="products", kind=kind))


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerProcess:
    """A process of a peer that has taken a step."""

    name: str
    worker: Worker
    versions: Mapping[str, str]
    parameters: int

    def step(self) -> float:
        """Seconds of a step."""
        return _seconds(self.worker.ask(do="step"))


class StepCrew:
    """Starts the processes; the stack ends them."""

    def __init__(
        self, options: StepOptions, graph: Path, stack: ExitStack, log: Callable[[str], None]
    ) -> None:
        self._options = options
        self._graph = graph
        self._stack = stack
        self._say = log
        self._env = thread_settings(options.threads)

    def start_own(self, precision: Precision) -> OwnProcesses:
        """Start both processes and let each take a step."""
        self._say(f"pgti {precision}: first step")
        stepping, prepared = self._prepared(precision, keep_freed=True)
        stepping.ask(do="step")
        multiplying, _ = self._prepared(precision, keep_freed=False)
        count = multiplying.ask(do="record")["count"]
        for kind in ("dense", "sparse"):
            multiplying.ask(do="products", kind=kind)
        return OwnProcesses(
            precision=precision,
            stepping=stepping,
            multiplying=multiplying,
            parameters=prepared["parameters"],
            threads=prepared["threads"],
            count=ProductCount(**count),
        )

    def start_peers(self, pgt: Path | None) -> tuple[list[PeerProcess], list[str]]:
        """PGT as its users run it and with freed memory kept; and why not, where it is not."""
        if self._options.model != LAYER:
            return [], [f"PGT: it has no counterpart of the model {self._options.model!r}"]
        if pgt is None:
            return [], [NO_PGT]
        peers, left_out = [], []
        for name, keep_freed in PGT_VARIANTS.items():
            self._say(f"{name}: first step")
            try:
                peers.append(self._started_peer(name, pgt, keep_freed=keep_freed))
            except BenchError as error:
                left_out.append(str(error))
        return peers, left_out

    def tell_round(self, done: int) -> None:
        """Say how far the rounds have come."""
        self._say(f"round {done} of {self._options.rounds} is done")

    def _prepared(self, precision: Precision, *, keep_freed: bool) -> tuple[Worker, dict[str, Any]]:
        command = (sys.executable, "-m", "pgti.bench.step_worker")
        worker = self._stack.enter_context(Worker(command, self._env, f"pgti {precision}"))
        options = self._options
        spec = StepSpec(
            model=options.model,
            options=options.model_options,
            steps=options.steps,
            batch_size=options.batch_size,
            precision=precision,
            activation_checkpointing=options.activation_checkpointing,
        )
        return worker, worker.ask(
            do="prepare",
            graph=str(self._graph),
            spec=to_json(spec),
            device=options.device,
            keep_freed=keep_freed,
        )

    def _started_peer(self, name: str, pgt: Path, *, keep_freed: bool) -> PeerProcess:
        """A peer that has taken a step.

        Raises:
            BenchError: if it cannot, or cannot keep freed memory.
        """
        options = self._options
        with ExitStack() as failing:  # whoever cannot start ends at once, and holds no memory
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
                keep_freed=keep_freed,
            )
            if keep_freed and not prepared["kept"]:
                raise BenchError(f"{name}: its C library has no such setting")
            worker.ask(do="step")
            self._stack.push(failing.pop_all())
        return PeerProcess(
            name=name,
            worker=worker,
            versions=prepared["versions"],
            parameters=prepared["parameters"],
        )


def _seconds(reply: Mapping[str, Any]) -> float:
    return float(reply["seconds"])
