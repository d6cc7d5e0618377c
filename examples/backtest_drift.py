"""A model on a year that changes: how it forecasts if it stays, and if it is trained further.

    python examples/backtest_drift.py

The year is synthetic: hourly speeds of twenty sensors with two rush hours on working days, which
begin later and later (by four hours in a year) while one of two sensors slows down. Six folds over
its second half are forecast by a small GRU that is trained once (never), anew before each fold
(every), or further before each fold (warm). It prints the mean absolute errors of each fold. This
takes a few minutes on one core; finished folds are not repeated.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import pgti

WINDOWS = {"input_steps": 12, "horizon": 12}
REFITS = ("never", "every", "warm")


def make_readings(num_days: int, num_sensors: int = 20, seed: int = 0) -> pd.DataFrame:
    """Hourly speeds in mph, a column per sensor, whose rush hours drift."""
    random = np.random.default_rng(seed)
    hours = np.arange(24 * num_days)
    year = hours / (24 * 365)
    times = pd.date_range("2025-01-01", periods=len(hours), freq="h")
    working = np.asarray(times.day_of_week < 5)
    of_day = hours % 24
    depth = random.uniform(10, 25, num_sensors)
    slowing = np.where(np.arange(num_sensors) % 2, 8.0, 0.0)
    speeds = 65 - year[:, None] * slowing
    for peak in (7.0, 16.0):
        distance = of_day - (peak + 4 * year)
        dip = np.exp(-0.5 * (distance / 1.2) ** 2) * working
        speeds = speeds - dip[:, None] * depth
    noise = random.normal(0, 1.5, speeds.shape)
    sensors = [f"s{sensor:02}" for sensor in range(num_sensors)]
    return pd.DataFrame((speeds + noise).round(1), index=times, columns=sensors)


def main(arguments: Sequence[str] | None = None) -> None:
    """Backtest the same model three times; print a table of errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("build/backtest-drift"))
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--folds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--warm-epochs", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = options.out / "store"
    if path.exists():
        store = pgti.SeriesStore.open(path)
    else:
        store = pgti.ingest(make_readings(options.days), path, channels=("speed",), units=("mph",))
    columns: dict[str, list[float | None]] = {}
    for refit in REFITS:
        more: dict[str, Any] = {"warm_epochs": options.warm_epochs} if refit == "warm" else {}
        result = pgti.backtest(
            store,
            options.out / refit,
            folds=options.folds,
            refit=refit,
            model="gru",
            model_options={"hidden": 16, "layers": 1},
            windows=WINDOWS,
            epochs=options.epochs,
            learning_rate=0.005,
            device="cpu",
            progress=False,
            **more,
        )
        frame = result.to_frame()
        columns[refit] = frame[frame["forecaster"] == "gru"]["mae"].tolist()
        seconds = sum(fold.seconds for fold in result.folds)
        print(f"{refit}: {sum(fold.epochs for fold in result.folds)} epochs, {seconds:.0f} s")
    average = frame[frame["forecaster"] == "historical-average"]
    columns["historical average"] = average["mae"].tolist()
    begins = [
        "all" if fold == "all" else time[:10]
        for fold, time in zip(average["fold"], average["from"], strict=True)
    ]
    table = pd.DataFrame(columns, index=begins)
    print(table.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
