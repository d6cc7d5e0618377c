"""Running a command in a memory-limited control group, and watching the memory that it takes.

Where no group can be had, the command runs without a limit, its PSS is measured all the same, and
the result says why.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pgti.bench.cgroup import MemoryGroup
from pgti.errors import BenchError
from pgti.memory.process import pss_bytes

__all__ = ["LimitedRun", "run_limited", "tree_pss_bytes"]

_PROC = Path("/proc")
_LOOK_SECONDS = 0.2  # between looks at the processes' memory
_LARGEST_SHARE = 0.02  # of the time: a look walks through all pages, and they wait for it
_SESSION_FIELD = 3  # of /proc/PID/stat behind the name: state, parent, process group, session
_GATE = 'read -r _ && exec "$@" </dev/null'  # the command starts once it is in its group


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitedRun:
    """How a command ended, and the memory that it took.

    Args:
        exit_code: of the command; negative for the signal that ended it.
        seconds: from its start to its end.
        limit_bytes: of its group; None where there was none.
        was_oom_killed: whether the group's limit was what killed it, or one of its children.
        group_peak_bytes: the most that the group was charged with, page cache and all; None
            where there was no group.
        peak_pss_bytes: the most memory that the command and its children were seen to have, pages
            that they share with others counted in parts; None where the system does not tell.
        no_limit_because: why there was no limit although one was asked for; else empty.
        output: what it wrote to standard output.
        messages: what it wrote to standard error.
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


def run_limited(
    command: Sequence[str],
    limit_bytes: int | None,
    *,
    env: Mapping[str, str] | None = None,
    group: MemoryGroup | None = None,
) -> LimitedRun:
    """Run a command to its end in a control group of its own, and watch its memory.

    It reads nothing from standard input, is a session of its own, and is killed with all its
    children if this call is interrupted.

    Args:
        command: program and arguments.
        limit_bytes: of the group; None runs the command without one.
        env: variables to set on top of this process's environment.
        group: makes the group, if not the one that this system offers; not yet entered.

    Returns:
        How it ended. A program that fails or is killed is a result, not an error.

    Raises:
        BenchError: the shell that starts the command is not there.
    """
    with ExitStack() as held:
        output = held.enter_context(tempfile.TemporaryFile())
        messages = held.enter_context(tempfile.TemporaryFile())
        limited, refusal = None, ""
        if limit_bytes is not None:
            try:
                limited = held.enter_context(group or MemoryGroup(limit_bytes))
            except BenchError as error:
                refusal = str(error)
        began = time.perf_counter()
        try:
            process = held.enter_context(
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
            raise BenchError(f"{command[0]} cannot be started: {error}") from error
        held.callback(_kill_session, process)
        if limited is not None:
            try:
                limited.add(process.pid)
            except BenchError as error:
                limited, refusal = None, str(error)
        peak_pss = _watched(process, limited)
        return LimitedRun(
            exit_code=process.returncode,
            seconds=time.perf_counter() - began,
            limit_bytes=None if limited is None else limit_bytes,
            was_oom_killed=limited is not None and limited.has_killed(),
            group_peak_bytes=None if limited is None else limited.peak_bytes(),
            peak_pss_bytes=peak_pss,
            no_limit_because=refusal,
            output=_text(output),
            messages=_text(messages),
        )


def tree_pss_bytes(session: int) -> int | None:
    """Proportional set size of all processes of a session, in bytes; None where nothing tells."""
    sizes = [size for size in map(pss_bytes, _session_processes(session)) if size is not None]
    return sum(sizes) if sizes else None


def _watched(process: subprocess.Popen[bytes], group: MemoryGroup | None) -> int | None:
    """Let the command run to its end; the most PSS that was seen of it and its children."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it is dead already
            process.stdin.write(b"\n")
            process.stdin.close()
    peak: int | None = None
    while True:
        began = time.perf_counter()
        seen = tree_pss_bytes(process.pid)
        took = time.perf_counter() - began
        if seen is not None:
            peak = max(seen, peak or 0)
        if group is not None:
            group.peak_bytes()
        try:
            process.wait(timeout=max(_LOOK_SECONDS, took / _LARGEST_SHARE))
        except subprocess.TimeoutExpired:
            continue
        return peak


def _session_processes(session: int) -> list[int]:
    """The process that began a session, and all its children that are still in it."""
    found = []
    for directory in _PROC.glob("[0-9]*"):
        with suppress(OSError, IndexError):
            stat = (directory / "stat").read_text(encoding="utf-8", errors="replace")
            if int(stat.rpartition(")")[2].split()[_SESSION_FIELD]) == session:
                found.append(int(directory.name))
    return found


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and its children, whatever is left of them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")
