"""Run a command in a memory-limited control group and watch the memory that it takes.

If no group can be created, the command runs without a limit, its PSS is still measured, and the
result says why there was no limit.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Any

import psutil

from pgti.memory.process import pss_bytes
from pgti_bench.cgroup import MemoryGroup
from pgti_bench.errors import BenchError

__all__ = ["LimitedRun", "run_limited", "session_pss_bytes"]

_POLL_SECONDS = 0.2  # between measurements of the processes' memory
_LARGEST_FRACTION = 0.02  # of the time: reading PSS walks all pages and blocks the processes
_GATE = 'read -r _ && exec "$@" </dev/null'  # the command starts once it is in its group
_LOG_PREFIX = "pgti: "  # of each line that a pgti command logs


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitedRun:
    """How a command ended, and the memory that it took.

    Attributes:
        exit_code: of the command; negative for the signal that ended it.
        seconds: from its start to its end.
        limit_bytes: memory limit of its control group; None without one.
        was_oom_killed: whether the group's limit killed the command or one of its children.
        group_peak_bytes: peak memory charged to the group, page cache included; None without a
            group.
        peak_pss_bytes: peak memory observed of the command and its children, shared pages counted
            proportionally; None where the system does not report it.
        no_limit_because: why no limit was set although one was requested; else empty.
        output: its standard output.
        messages: its standard error.
    """

    exit_code: int
    seconds: float
    limit_bytes: int | None
    was_oom_killed: bool
    group_peak_bytes: int | None
    peak_pss_bytes: int | None
    no_limit_because: str
    output: str
    messages: str

    @property
    def report(self) -> Mapping[str, Any]:
        """The JSON object on the last line of its output; empty if there is none."""
        lines = self.output.strip().splitlines()
        try:
            content = json.loads(lines[-1]) if lines else {}
        except json.JSONDecodeError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def notes(self) -> tuple[str, ...]:
        """The lines that a pgti command logged."""
        lines = (line.strip() for line in self.messages.splitlines())
        return tuple(
            line.removeprefix(_LOG_PREFIX) for line in lines if line.startswith(_LOG_PREFIX)
        )

    @property
    def last_message(self) -> str:
        """The last line of its standard error; empty if there is none."""
        lines = self.messages.strip().splitlines()
        return lines[-1].removeprefix(_LOG_PREFIX).removeprefix("error: ") if lines else ""

    @property
    def outcome(self) -> str:
        """ "done", or why it is not; and why there was no limit."""
        outcome = "done" if self.exit_code == 0 else self.last_message
        if self.was_oom_killed:
            outcome = "killed by its limit"
        if self.no_limit_because:
            outcome += f" (without a limit: {self.no_limit_because})"
        return outcome

    @property
    def peak_bytes(self) -> int | None:
        """Peak PSS observed from outside or reported by the command itself, whichever is larger."""
        seen = (self.peak_pss_bytes, self.report.get("peak_pss_bytes"))
        return max((size for size in seen if size is not None), default=None)


def run_limited(
    command: Sequence[str],
    limit_bytes: int | None,
    *,
    env: Mapping[str, str] | None = None,
    group: MemoryGroup | None = None,
) -> LimitedRun:
    """Run a command to its end in its own control group and watch its memory.

    The command has no standard input, runs in its own session, and is killed with all its children
    if this call is interrupted.

    Args:
        command: program and arguments.
        limit_bytes: memory limit of the group; None runs the command without one.
        env: variables to set on top of this process's environment.
        group: the control group to enter, in place of a new one of this system.

    Returns:
        How it ended. A program that fails or is killed is a result, not an error.

    Raises:
        BenchError: the shell that starts the command does not exist.
    """
    with ExitStack() as stack:
        output = stack.enter_context(tempfile.TemporaryFile())
        messages = stack.enter_context(tempfile.TemporaryFile())
        limited, refusal = None, ""
        if limit_bytes is not None:
            try:
                limited = stack.enter_context(group or MemoryGroup(limit_bytes))
            except BenchError as error:
                refusal = str(error)
        began = time.perf_counter()
        try:
            process = stack.enter_context(
                subprocess.Popen(
                    ["/bin/sh", "-c", _GATE, "sh", *command],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=messages,
                    env={**os.environ, **(env or {})},
                    start_new_session=True,
                )
            )
        except OSError as error:
            raise BenchError(f"cannot start {command[0]}: {error}") from error
        stack.callback(_kill_session, process)
        if limited is not None:
            try:
                limited.add(process.pid)
            except BenchError as error:
                limited, refusal = None, str(error)
        peak_pss = _watch(process, limited)
        return LimitedRun(
            exit_code=process.returncode,
            seconds=time.perf_counter() - began,
            limit_bytes=None if limited is None else limit_bytes,
            was_oom_killed=limited is not None and limited.has_killed(),
            group_peak_bytes=None if limited is None else limited.peak_bytes(),
            peak_pss_bytes=peak_pss,
            no_limit_because=refusal,
            output=_read(output),
            messages=_read(messages),
        )


def session_pss_bytes(session: int) -> int | None:
    """Proportional set size of all processes of a session; None where it is not reported."""
    sizes = [size for size in map(pss_bytes, _session_processes(session)) if size is not None]
    return sum(sizes) if sizes else None


def _session_processes(session: int) -> list[int]:
    """The process that began a session, and all its descendants that are still in it."""
    found = []
    for process in psutil.pids():
        with suppress(OSError):
            if os.getsid(process) == session:
                found.append(process)
    return found


def _watch(process: subprocess.Popen[bytes], group: MemoryGroup | None) -> int | None:
    """Start the command, wait for its end, and return the peak PSS observed meanwhile."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it is dead already
            process.stdin.write(b"\n")
            process.stdin.close()
    peak: int | None = None
    while True:
        began = time.perf_counter()
        seen = session_pss_bytes(process.pid)
        took = time.perf_counter() - began
        if seen is not None:
            peak = max(seen, peak or 0)
        if group is not None:
            group.peak_bytes()
        try:
            process.wait(timeout=max(_POLL_SECONDS, took / _LARGEST_FRACTION))
        except subprocess.TimeoutExpired:
            continue
        return peak


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever remains of a command and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")
