"""Trains the tiny setting in child processes, to be killed: `worker.py STORE RUN`.

For every line on standard input a child is forked that trains from wherever the run stands. Its
process id is written to standard output, and when it has ended its exit status. Forking spares
each life the seconds that importing torch takes.
"""

import os
import sys
from pathlib import Path

import torch
from tiny_training import SLOW_CONFIG, SampledNet, Setting, make_source, open_run, resume_trainer

from pgti.store import SeriesStore

PAUSE_SECONDS = 0.003
"""Added to every forward pass, so that a step takes about as long as writing its checkpoint."""


def train(store: Path, run: Path) -> None:
    """Train to the end."""
    SampledNet.pause_seconds = PAUSE_SECONDS
    setting = Setting(source=make_source(SeriesStore.open(store)), config=SLOW_CONFIG)
    resume_trainer(setting, open_run(run, SLOW_CONFIG)).fit()


def main(store: Path, run: Path) -> None:
    """Live and let die."""
    # The first optimiser of a process imports torch's compiler, which takes a second or two.
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            train(store, run)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
