"""Runs whose windows have history: in training, forecasts, evaluation and backtests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pgti
from pgti import ConfigError, SensorGraph
from pgti.batching import build_batcher
from pgti.distributed import SingleProcess
from pgti.models import MODELS, RecallHead
from pgti.run import Run, RunConfig, memory_plan
from pgti.run.loaders import RunLoaders
from pgti.run.prepare import prepare
from pgti.store import SeriesStore
from pgti.training import RunDirectory
from pgti.windows import ModelShape

from .small_runs import make_series

IDS = ("a", "b", "c")
ROAD = SensorGraph.from_edges(3, np.array([0, 1]), np.array([1, 2]))
WINDOWS: dict[str, Any] = {"input_steps": 3, "horizon": 2, "history": "1d"}
TINY: dict[str, Any] = {"epochs": 1, "batch_size": 16, "seed": 3, "progress": False}
STEPS = 120


def readings(num_steps: int = STEPS) -> pd.DataFrame:
    """Hourly readings around 50 of a, b and c, some of them missing."""
    index = pd.date_range("2025-10-01", periods=num_steps, freq="h")
    values = make_series(num_steps=num_steps)[..., 0].round(1)
    values[7::13, 1] = np.nan
    return pd.DataFrame(values, index=index, columns=list(IDS))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("history")
    pgti.ingest(readings(), path / "store", graph=ROAD)
    return pgti.train(path / "store", path / "run", model="linear", windows=WINDOWS, **TINY)


def forecast(run: Run, *arguments: Any, **options: Any) -> tuple[pd.DataFrame, str]:
    """The forecasts, and the lines of the log as one text."""
    lines: list[str] = []
    return run.forecast(*arguments, log=lines.append, **options), "\n".join(lines)


def test_a_run_remembers_its_history(run: Run) -> None:
    """Opened again it forecasts the same, and says what it looks back on."""
    again = Run.open(run.directory.path)
    assert again.config.windows.history == ("1d",)
    assert again.source.spec.history == (range(-21, 0),)
    pd.testing.assert_frame_equal(forecast(again)[0], forecast(run)[0])
    assert "2 out, history 1d" in again.describe()[1]["windows"]


def test_newer_readings_are_completed_from_the_store_of_the_run(run: Run) -> None:
    """Five hours are enough to forecast from: the day before them is in the store."""
    frame = readings()
    times = (frame.index[60].isoformat(), frame.index[60].isoformat())
    expected, _ = forecast(run, between=times)
    found, lines = forecast(run, frame.iloc[55:60])
    pd.testing.assert_frame_equal(found.drop(columns="observed"), expected.drop(columns="observed"))
    assert "history" not in lines
    # Of two forecasts from newer readings, each looks back a day.
    between = (frame.index[58].isoformat(), frame.index[60].isoformat())
    found, _ = forecast(run, frame.iloc[55:62], between=between)
    expected, _ = forecast(run, between=between)
    pd.testing.assert_frame_equal(found, expected)


def test_what_no_store_has_is_missing_with_a_note(run: Run) -> None:
    """Rows before the run's own, and between it and newer readings."""
    frame = readings(140).iloc[130:]
    _, lines = forecast(run, frame)
    # 21 hours before the last three inputs are 14 before the readings, 10 of them after the run's.
    assert "71% of the 14 rows of history before the readings are missing" in lines
    frame.index += pd.Timedelta(days=300)
    _, lines = forecast(run, frame)
    assert "100% of the 14 rows of history" in lines
    assert "has no rows at these times" in lines


def test_a_run_without_its_store_forecasts_with_less(run: Run, tmp_path: Path) -> None:
    """What is typical of the times stands in, and the log says so."""
    moved = tmp_path / "run"
    moved.mkdir()
    for path in run.directory.path.rglob("*"):
        if path.is_file():
            target = moved / path.relative_to(run.directory.path)
            target.parent.mkdir(exist_ok=True, parents=True)
            text = path.read_bytes()
            target.write_bytes(text.replace(b"/store", b"/nowhere"))
    alone = Run.open(moved)
    found, lines = forecast(alone, readings().iloc[-5:])
    assert "100% of the 19 rows of history" in lines
    assert np.isfinite(found["forecast"]).all()
    whole, lines = forecast(alone, readings())
    assert "history" not in lines
    pd.testing.assert_frame_equal(whole, forecast(run)[0])


def test_newer_readings_are_evaluated_with_history(run: Run) -> None:
    """The windows of the readings alone, each with the day before it."""
    frame = readings()
    found = run.evaluate(frame.iloc[70:90]).to_dict()["newer"]
    assert found["windows"] == 20 - 4
    between = (frame.index[73].isoformat(), frame.index[88].isoformat())
    expected = run.evaluate(between=between).to_dict()["between"]
    assert found["windows"] == expected["windows"]
    assert found["mae"]["mean"] == pytest.approx(expected["mae"]["mean"], rel=1e-6)


def test_a_grown_store_has_the_history_of_its_end(tmp_path: Path) -> None:
    """Rows that were appended are forecast from, and looked back on."""
    pgti.ingest(readings(100), tmp_path / "store", graph=ROAD)
    run = pgti.train(tmp_path / "store", tmp_path / "run", model="linear", windows=WINDOWS, **TINY)
    SeriesStore.open(tmp_path / "store").append(readings().iloc[100:])
    grown, _ = forecast(run)
    alone, _ = forecast(run, readings())
    pd.testing.assert_frame_equal(grown, alone)


def test_a_fold_sees_nothing_after_its_first_target(tmp_path: Path) -> None:
    """Changed readings from there on change no error of the folds before."""
    errors = []
    for name in ("one", "other"):
        frame = readings(160)
        if name == "other":
            frame.iloc[131:] += 30  # the first fold has its targets before
        pgti.ingest(frame, tmp_path / name, graph=ROAD)
        found = pgti.backtest(
            tmp_path / name,
            tmp_path / f"{name}-out",
            folds=2,
            fold_steps=30,
            model="linear",
            windows=WINDOWS,
            **TINY,
        )
        errors.append([fold.errors["mae"]["mean"] for fold in found.folds])
    assert errors[0][0] == errors[1][0]
    assert errors[0][1] != errors[1][1]


@pytest.mark.parametrize("model", ["dcrnn", "gru"])
def test_a_model_that_sees_whole_days_alone(run: Run, tmp_path: Path, model: str) -> None:
    """A history without one is refused in one line that names the models that read any."""
    with pytest.raises(ConfigError) as error:
        pgti.train(run.store, tmp_path / "run", model=model, windows=WINDOWS, **TINY)
    message = str(error.value)
    assert message.startswith(f"the windows have a history of 21 rows, and the model {model} sees")
    named = message.partition("or use ")[2].partition(", which read")[0].split(", ")
    assert {"linear", "stid"} <= set(named) <= set(MODELS)
    assert "\n" not in message


class OfInputs(torch.nn.Module):
    """A map of the window, and of nothing beside it."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.steps = torch.nn.Linear(shape.input_steps, shape.horizon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, H, N, 1]."""
        forecast: torch.Tensor = self.steps(x[..., 0].transpose(1, 2))
        return forecast.transpose(1, 2).unsqueeze(3)


class OfAnything(OfInputs):
    """The same, called with x and the operators alone: nothing shows what it takes."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """[B, H, N, 1]."""
        return super().forward(inputs[0])


@pytest.mark.parametrize("network", [OfInputs, OfAnything])
def test_a_network_of_the_users_own_that_sees_whole_days_alone(
    run: Run, tmp_path: Path, network: type[torch.nn.Module]
) -> None:
    """Rows that nothing would look at are refused for it as well."""
    with pytest.raises(ConfigError, match="sees whole earlier days alone"):
        pgti.train(run.store, tmp_path / "run", model=network, windows=WINDOWS, **TINY)


def test_any_model_sees_earlier_days(run: Run, tmp_path: Path) -> None:
    """Through a head, which trains, is in the checkpoint, and changes its forecasts."""
    windows = {**WINDOWS, "history": "1d..2d"}
    trained = pgti.train(run.store, tmp_path / "run", model="gru", windows=windows, **TINY)
    opened = Run.open(tmp_path / "run")
    (head,) = opened.forecaster.heads
    assert isinstance(head, RecallHead)
    assert head.last.weight.any()
    again, _ = forecast(opened)
    pd.testing.assert_frame_equal(again, forecast(trained)[0])
    head.last.bias.data += 1
    changed, _ = forecast(opened)
    assert (changed["forecast"] != again["forecast"]).all()


def prepared_loaders(run: Run, **changes: Any) -> tuple[RunLoaders, Any]:
    config: RunConfig = replace(run.config, **changes)
    prepared = prepare(
        config,
        RunDirectory(Path("never/written")),
        SeriesStore.open(run.config.store),
        None,
        None,
        SingleProcess(),
    )
    return prepared.loaders, prepared.plan_memory()


def test_the_memory_plan_counts_history(run: Run) -> None:
    """Decoded once, and stored for each batch in progress; windows that share rows take less."""
    _, plan = prepared_loaders(run)
    source = run.source
    batcher = build_batcher("index", source, run.device, budget_bytes=0)
    batch = batcher.gather(np.arange(30, 78, 3))  # 16 windows of 21 rows
    assert batch.history is not None
    assert batch.history_mask is not None
    decoded = batch.history.nbytes + batch.history_mask.nbytes
    assert decoded == 16 * source.history_bytes
    places = 16 * 21 * (8 + 8 + 1)
    stored = 16 * 21 * source.stored_row_bytes
    assert plan.estimate.history == decoded + 3 * (stored + places)
    assert ", history 27.6 KiB" in str(plan.estimate)
    plain = replace(run.config.windows, history=())
    _, without = prepared_loaders(run, windows=plain)
    assert without.estimate.history == 0
    assert "history" not in str(without.estimate)
    assert without.estimate.batches == plan.estimate.batches
    assert plan.estimate.needed - without.estimate.needed >= plan.estimate.history


def test_a_history_that_does_not_fit_is_to_be_shorter(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names it."""
    _, plan = prepared_loaders(run)
    monkeypatch.setattr(memory_plan, "pss_bytes", lambda: 0)
    with pytest.raises(ConfigError, match=r"shorten windows\.history"):
        prepared_loaders(run, memory_budget=plan.estimate.needed // 9)
