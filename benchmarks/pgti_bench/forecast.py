"""Time a forecast from a table in memory, and what the network takes of it.

An opened run forecasts the steps after the newest rows of a DataFrame, as a service does every few
minutes. The goal is less than 50 ms beside the network, for 303 sensors. The series is random; the
time does not depend on its values.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

import pgti
from pgti.cli.output import print_results
from pgti.errors import require_whole_number
from pgti.run.results import Machine, Spread, to_json
from pgti_bench.output import finish, number
from pgti_bench.synthetic_stores import scratch_directory

__all__ = ["ForecastResult", "forecast_command", "measure_forecast"]

_GOAL = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastResult:
    """The result of `measure_forecast`.

    Attributes:
        machine: where it was measured.
        model: that forecasts.
        sensors: columns of the table.
        own_milliseconds: of a forecast without its network.
        network_milliseconds: of the network in it.
        reaches_goal: whether our own median is less than 50 ms.
    """

    machine: Machine
    model: str
    sensors: int
    own_milliseconds: Spread
    network_milliseconds: Spread
    reaches_goal: bool


def measure_forecast(workdir: Path, *, model: str, sensors: int, rounds: int) -> ForecastResult:
    """Measure forecasts from a table of 24 rows.

    Args:
        workdir: where the store and the run are written.
        model: by name; it trains for one step.
        sensors: columns of the table.
        rounds: forecasts.

    Raises:
        ConfigError: a number is less than 1, or there is no such model.
    """
    require_whole_number("sensors", sensors, 1)
    require_whole_number("rounds", rounds, 1)
    times = pd.date_range("2025-10-01", periods=600, freq="5min", tz="America/Los_Angeles")
    speeds = np.random.default_rng(0).normal(60, 5, (len(times), sensors)).round(1)
    frame = pd.DataFrame(speeds, index=times, columns=[f"s{each}" for each in range(sensors)])
    road = pgti.SensorGraph.from_edges(sensors, np.arange(sensors - 1), np.arange(1, sensors))
    pgti.ingest(frame, workdir / "store", graph=road)
    run = pgti.train(workdir / "store", workdir / "run", model=model, max_steps=1, progress=False)
    newer = frame.iloc[-24:]
    network, spent, own = run.forecaster.network, list[float](), list[float]()
    began = 0.0

    def begin(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    network.register_forward_pre_hook(begin)
    network.register_forward_hook(lambda *_: spent.append(time.perf_counter() - began))
    for _ in range(3):
        run.forecast(newer)
    spent.clear()
    for place in range(rounds):
        start = time.perf_counter()
        run.forecast(newer)
        own.append(time.perf_counter() - start - spent[place])
    own_spread, network_spread = (
        Spread.of([1e3 * each for each in seconds]) for seconds in (own, spent)
    )
    return ForecastResult(
        machine=Machine.here(),
        model=model,
        sensors=sensors,
        own_milliseconds=own_spread,
        network_milliseconds=network_spread,
        reaches_goal=own_spread.median < _GOAL,
    )


def forecast_command(
    *,
    model: str = "stid",
    sensors: int = 303,
    rounds: int = 100,
    workdir: Path | None = None,
    json: bool = False,
) -> None:
    """Time a forecast from a table in memory, and what the network takes of it.

    Args:
        model: Model that forecasts; it trains for one step.
        sensors: Columns of the table.
        rounds: Forecasts.
        workdir: Directory for temporary files.
        json: Print one JSON object on standard output, and no tables.
    """
    with scratch_directory(workdir) as scratch:
        result = measure_forecast(Path(scratch), model=model, sensors=sensors, rounds=rounds)
    goal = "reached" if result.reaches_goal else "not reached"
    table = Table(
        title=f"a forecast of {sensors:,} sensors; the goal of {_GOAL:.0f} ms is {goal}",
        title_justify="left",
    )
    table.add_column("part")
    table.add_column("ms", justify="right")
    table.add_row("pgti", number(result.own_milliseconds))
    table.add_row(f"the network, {model}", number(result.network_milliseconds))
    print_results(to_json(result), table, as_json=json)
    finish("Forecast", result.machine, ())
