"""A process with its own interpreter and environment that answers requests.

Measured code runs in such a process: it starts with a fresh heap, so its peak memory is its own,
and the interpreter of another library does not need pgti's dependencies. Both sides exchange lines
of JSON: requests on the worker's standard input, replies on its standard output. Anything else a
library prints goes to standard error, whose last line explains a failure.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from pgti_bench.errors import BenchError

__all__ = ["Worker", "thread_settings"]

_PATIENCE_SECONDS = 10.0  # for a worker to end after its standard input was closed
_TAIL_CHARACTERS = 2000


class Worker:
    """A persistent process that runs for the duration of the `with` block.

    Args:
        command: program and arguments.
        env: variables to set on top of this process's environment.
        name: what to call it in an error.

    Raises:
        BenchError: on entering, if the program cannot be started.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, name: str = "worker"
    ) -> None:
        self.name = name
        self._command = list(command)
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if shutil.which(self._command[0]) is None:
            raise BenchError(f"cannot start {self.name}: {self._command[0]} is not a program")
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=self._env,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._errors.close()
            raise BenchError(f"cannot start {self.name}: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process, at_once=error is not None)
        if self._errors is not None:
            self._errors.close()

    def ask(self, **request: object) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Raises:
            BenchError: the worker refused, failed or ended; the message contains the last line it
                wrote to standard error.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise BenchError(f"{self.name} is not running: use a `with` statement")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"{self.name} {_describe_end(process)}{self._last_words()}")
        try:
            reply = json.loads(line)
        except json.JSONDecodeError:
            reply = None
        if not isinstance(reply, dict):
            raise BenchError(f"{self.name} replied {line.strip()[:200]!r}: expected a JSON object")
        if "error" in reply:
            raise BenchError(f"{self.name} failed: {reply['error']}")
        return reply

    def _last_words(self) -> str:
        """The last line on standard error, as the end of a sentence."""
        if self._errors is None:
            return ""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TAIL_CHARACTERS))
        lines = self._errors.read().decode("utf-8", errors="replace").split("\n")
        return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")


def thread_settings(threads: int | None) -> dict[str, str]:
    """Environment variables that set a worker's number of threads; None sets nothing."""
    if threads is None:
        return {}
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _describe_end(process: subprocess.Popen[str]) -> str:
    """How a worker that no longer answers ended."""
    try:
        code = process.wait(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return "closed its output and is still running"
    if code == -9:
        return "was killed (signal 9), most likely because memory ran out"
    return f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"


def _end(process: subprocess.Popen[str], *, at_once: bool) -> None:
    """Close the process's input and wait for it to end, or kill it."""
    if at_once:
        process.kill()
    try:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=_PATIENCE_SECONDS)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()
