"""Workers of the benchmarks in this process: the same requests and replies, without the wait."""

import importlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch

from pgti_bench.errors import BenchError
from pgti_bench.loader.worker import LoaderHandlers
from pgti_bench.step.worker import StepHandlers
from pgti_bench.worker import Worker

__all__ = ["InProcessWorker", "in_process_or_real"]


class InProcessWorker:
    """Stands in for `Worker`, for pgti's own processes.

    Attributes:
        started: names and environments of those that were entered.
        ended: names of those that were left, in that order, and whether an error ended them.
    """

    started: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 - emptied by each test
    ended: list[tuple[str, bool]] = []  # noqa: RUF012 - emptied by each test

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, name: str = "worker"
    ) -> None:
        self.name = name
        self._module = importlib.import_module(command[-1])
        self._env = dict(env or {})
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.started.append((self.name, self._env))
        is_step = self._module.__name__.startswith("pgti_bench.step")
        self._handlers: Any = StepHandlers(self._stack) if is_step else LoaderHandlers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended.append((self.name, error is not None))
        self._stack.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Answer as the process would, what is sent and replied being JSON."""
        sent = json.loads(json.dumps(request))
        try:
            reply = getattr(self._handlers, sent.pop("do"))(**sent)
        except Exception as error:
            raise BenchError(f"{self.name} failed: {type(error).__name__}: {error}") from error
        content: dict[str, Any] = json.loads(json.dumps(reply))
        return content


def in_process_or_real(
    command: Sequence[str], env: Mapping[str, str] | None = None, name: str = "worker"
) -> InProcessWorker | Worker:
    """An in-process worker for pgti's own commands, a process for PGT's."""
    kind = InProcessWorker if command[-1].startswith("pgti_bench.") else Worker
    return kind(command, env, name)


torch.set_num_threads(1)
