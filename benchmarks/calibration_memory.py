"""Memory and time of calibrating intervals, by the number of validation windows.

    python benchmarks/calibration_memory.py --sensors 8600 --horizon 12 --windows 400 1600 4800

Residuals are random numbers: no network runs, so the time is that of writing, reading and sorting.
Each number of windows has a process of its own, whose largest resident memory is shown beside that
at the beginning.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import torch

from pgti.batching import Batch
from pgti.forecasting.calibration import calibrate
from pgti.forecasting.forecaster import Prediction

BATCH = 8
LEVELS = (0.8, 0.95)


class Zero:
    """Forecasts zero."""

    quantile_levels: tuple[float, ...] = ()

    def predict(self, batch: Batch) -> Prediction:
        """Zeros of the targets' shape."""
        assert batch.y is not None
        return Prediction(torch.zeros_like(batch.y))


def random_batches(num_windows: int, horizon: int, num_nodes: int) -> Iterator[Batch]:
    """Standard normal targets."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, num_windows, BATCH):
        y = torch.randn(BATCH, horizon, num_nodes, 1, generator=generator)
        yield Batch(
            x=torch.zeros(BATCH, 1, 1, 1),
            x_mask=torch.ones(BATCH, 1, 1, 1, dtype=torch.bool),
            y=y,
            y_mask=torch.ones_like(y, dtype=torch.bool),
            calendar=torch.zeros(BATCH, 1, 0),
            starts=np.arange(first, first + BATCH),
        )


def measure(num_windows: int, horizon: int, num_nodes: int) -> None:
    """Calibrate once, and print what it took."""
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    forecaster: Any = Zero()
    calibrate(forecaster, random_batches(num_windows, horizon, num_nodes), LEVELS)
    seconds = time.perf_counter() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = 4 * num_windows * horizon * num_nodes
    print(
        f"{num_windows:,} windows: {seconds:.1f} s, memory {before / 2**20:.0f} MiB before and "
        f"{peak / 2**20:.0f} MiB at most, file {file / 2**30:.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Measure each number of windows in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sensors", type=int, default=8600)
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--windows", type=int, nargs="+", default=[400, 1600, 4800])
    options = parser.parse_args()
    if len(options.windows) == 1:
        measure(options.windows[0], options.horizon, options.sensors)
        return
    sizes = ["--sensors", str(options.sensors), "--horizon", str(options.horizon)]
    for number in options.windows:
        command = [sys.executable, __file__, *sizes, "--windows", str(number)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
