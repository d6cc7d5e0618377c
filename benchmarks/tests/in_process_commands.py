"""Commands that benchmarks start, run in this process: the same options and checks, faster."""

import contextlib
import io
from collections.abc import Sequence
from unittest import mock

from pgti.cli.main import run_command
from pgti_bench.limited_run import LimitedRun

__all__ = ["PEAK_BYTES", "InProcessCommands"]

PEAK_BYTES = 300 << 20


class InProcessCommands:
    """Stands in for `run_limited`: runs commands in this process, with invented peaks.

    Args:
        killed: commands with one of these words are killed instead of run.
        peaks: PSS of the commands in their order, in place of ever growing ones.

    Attributes:
        ran: the commands, without the interpreter.
    """

    def __init__(self, killed: Sequence[str] = (), peaks: Sequence[int | None] = ()) -> None:
        self.ran: list[list[str]] = []
        self._killed = killed
        self._peaks = peaks

    def __call__(self, command: Sequence[str], limit_bytes: int | None) -> LimitedRun:
        """As `run_limited`."""
        self.ran.append(list(command)[3:])
        output, messages = io.StringIO(), io.StringIO()
        is_killed = any(word in command for word in self._killed)
        code = -9
        if not is_killed:
            with (
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(messages),
                mock.patch("pgti.memory.process.pss_bytes", return_value=None),
            ):
                is_pgti = list(command[1:3]) == ["-m", "pgti"]
                code = run_command(list(command[3:])) if is_pgti else 0
        return LimitedRun(
            exit_code=code,
            seconds=2.0,
            limit_bytes=limit_bytes,
            was_oom_killed=is_killed,
            group_peak_bytes=None if limit_bytes is None else limit_bytes // 2,
            peak_pss_bytes=self._peak(),
            no_limit_because="",
            output=output.getvalue(),
            messages=messages.getvalue(),
        )

    def _peak(self) -> int | None:
        if self._peaks:
            return self._peaks[len(self.ran) - 1]
        return PEAK_BYTES + len(self.ran)
