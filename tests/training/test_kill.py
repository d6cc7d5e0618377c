"""A process that is killed with SIGKILL, again and again, ends as if it never had been."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from .assertions import assert_same_run
from .tiny_training import (
    SLOW_CONFIG,
    Setting,
    make_series,
    make_source,
    make_store,
    make_trainer,
    open_run,
)

WORKER = Path(__file__).with_name("worker.py")
LONGEST_LIFE_SECONDS = 1.0
MAX_LIVES = 100


class Lives:
    """The lives of one training, in processes of their own."""

    def __init__(self, store: Path, run: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(store), str(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def live(self, seconds: float) -> int:
        """Train for so long at most; gives the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):  # it may have come to its end
            os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())

    def end(self) -> None:
        """No more lives."""
        self.process.communicate()


def test_kill_9_at_random_moments_changes_nothing(tmp_path: Path) -> None:
    """Killed from the making of its directory to its last checkpoint, at least ten times."""
    store = make_store(tmp_path / "store", make_series())
    unbroken = open_run(tmp_path / "unbroken", SLOW_CONFIG)
    setting = Setting(source=make_source(store), config=SLOW_CONFIG)
    make_trainer(setting, unbroken).fit()
    killed = tmp_path / "killed"

    chance = random.Random(2)
    lives, exit_codes = Lives(store.path, killed), []
    while 0 not in exit_codes and len(exit_codes) < MAX_LIVES:
        # The first lives are the shortest, so that the making of the directory is met too.
        longest = LONGEST_LIFE_SECONDS * min(1.0, 0.03 * len(exit_codes))
        exit_codes.append(lives.live(chance.uniform(0, longest)))
    lives.end()

    assert exit_codes[-1] == 0
    assert set(exit_codes[:-1]) == {-signal.SIGKILL}
    assert len(exit_codes) > 10
    assert_same_run(unbroken, open_run(killed, SLOW_CONFIG))
    assert not list(killed.rglob("*.partial"))
