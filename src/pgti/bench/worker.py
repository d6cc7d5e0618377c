"""`Worker`: a process of its own, with its own interpreter and environment, that answers requests.

What is measured runs in such a process: it starts with a fresh heap, so that its peak memory is
its own, and another library's interpreter need not have pgti's dependencies. Both sides speak
lines of JSON: a request on the worker's standard input, a reply on its standard output. Whatever
else a library prints goes to standard error, the end of which explains a failure.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from pgti.errors import BenchError

__all__ = ["Worker", "thread_settings"]

_PATIENCE_SECONDS = 10.0  # for a worker that was told to end
_TAIL_CHARACTERS = 2000


class Worker:
    """A persistent process; it runs while the `with` block does.

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
            raise BenchError(f"{self.name} cannot be started: {self._command[0]} is no program")
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
            raise BenchError(f"{self.name} cannot be started: {error}") from error
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
            BenchError: the worker refused, failed or ended; the last line that it wrote to
                standard error is in the message.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise BenchError(f"{self.name} does not run: use a `with` statement")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"{self.name} {_ending(process)}{self._last_words()}")
        try:
            reply = json.loads(line)
        except json.JSONDecodeError:
            reply = None
        if not isinstance(reply, dict):
            raise BenchError(f"{self.name} replied {line.strip()[:200]!r}: that is no JSON object")
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
    """Variables that let a worker compute with so many threads; None leaves it the choice."""
    if threads is None:
        return {}
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _ending(process: subprocess.Popen[str]) -> str:
    """How a worker that no longer answers came to its end."""
    try:
        code = process.wait(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return "closed its output and still runs"
    if code == -9:
        return "was killed (signal 9), most likely for want of memory"
    return f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"


def _end(process: subprocess.Popen[str], *, at_once: bool) -> None:
    """Let the process finish at the end of its input, or kill it."""
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
