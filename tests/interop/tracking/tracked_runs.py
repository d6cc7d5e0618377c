"""A run of two epochs of four steps that each test tracks."""

from pathlib import Path
from typing import Any

import pgti
from pgti.store import SeriesStore

from ...run.small_runs import WINDOWS, make_series, make_store

METRICS = {"train/loss", "lr", "epoch", "windows_per_second"}


class StoppedError(Exception):
    """What ends a training in the middle of an epoch."""


class StopAt(pgti.Callback):
    """Raises after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, status: pgti.TrainingStatus) -> None:
        """Raise."""
        if status.step == self.step:
            raise StoppedError


def open_store(path: Path) -> SeriesStore:
    """The store of the tests."""
    return make_store(path / "store", make_series())


def train(store: SeriesStore, run: Path, track: Any, **options: Any) -> pgti.Run:
    """Train; a line every second step, a checkpoint every four."""
    options = {"epochs": 2, "checkpoint_every_steps": 4, "log_every_steps": 2, **options}
    return pgti.train(
        store, run, model="linear", windows=WINDOWS, batch_size=16, seed=3, track=track, **options
    )
