"""A small run on a server in this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastapi.testclient import TestClient

import pgti
from pgti.serve.app import build_app
from pgti.serve.metrics import ServeMetrics
from pgti.serve.options import ServeOptions
from pgti.serve.state import ServedRun

IDS = ("a", "<b>", "c&amp;")
TIMES = pd.date_range("2025-10-01", periods=240, freq="15min", tz="Europe/Berlin")
SPEEDS = pd.DataFrame(
    np.random.default_rng(0).normal(60, 5, (240, 3)).round(1), index=TIMES, columns=list(IDS)
)
NEWER = SPEEDS.iloc[-6:]


def train(directory: Path) -> Path:
    """A run of one step on three sensors."""
    road = pgti.SensorGraph.from_edges(3, np.array([0, 1]), np.array([1, 2]))

    pgti.ingest(SPEEDS, directory / "store", graph=road, channels=("speed",), units=("mph",))
    windows = {"input_steps": 4, "horizon": 2}
    path = directory / "run"
    pgti.train(directory / "store", path, model="gru", windows=windows, max_steps=1, progress=False)
    return path


class Served:
    """A server: its client, its run and what it logged."""

    def __init__(self, client: TestClient, run: ServedRun, lines: list[str]) -> None:
        self.client, self.run, self.lines = client, run, lines

    def post(self, **arguments: Any) -> Any:
        """Ask for a forecast."""
        return self.client.post("/v1/forecast", **arguments)

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = self.client.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


@contextmanager
def serve(path: Path, **options: Any) -> Iterator[Served]:
    """A server of a run that is ready."""
    lines: list[str] = []
    chosen = ServeOptions(**{"intervals": (0.8,), "reload_seconds": 3600.0} | options)
    metrics = ServeMetrics()
    run = ServedRun(path, intervals=chosen.intervals, metrics=metrics, log=lines.append)
    client = TestClient(build_app(run, chosen, metrics), "http://localhost")
    with client:
        ends = time.monotonic() + 30
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < ends
            time.sleep(0.01)
        yield Served(client, run, lines)


def records(frame: pd.DataFrame = NEWER) -> list[dict[str, Any]]:
    """Readings as JSON records."""
    return [
        {"time": time.isoformat(), "sensor": sensor, "value": value}
        for time, row in frame.iterrows()
        for sensor, value in row.items()
    ]
