"""Backtests: what a fold knows, what its errors are, how a backtest goes on."""

import json
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

import pgti
from pgti.cli.main import run_command
from pgti.errors import ConfigError, Interrupted, PgtiError, RunError
from pgti.forecasting import (
    BASELINES,
    AbstractForecaster,
    HistoricalAverageForecaster,
    Observer,
    build_baselines,
)
from pgti.graph import SensorGraph
from pgti.run import Run, RunConfig, rolling
from pgti.run.arguments import RunArguments
from pgti.run.backtest_result import BacktestResult
from pgti.run.rolling import BacktestOptions, Refit, run_backtest
from pgti.storage import file_lock
from pgti.store import Scaler, SeriesStore, StoreWriter
from pgti.windows import Fold

NUM_STEPS, NUM_NODES = 160, 3
WINDOWS = {"input_steps": 4, "horizon": 2}
OPTIONS: dict[str, Any] = {
    "model": "gru",
    "model_options": {"hidden": 3},
    "windows": WINDOWS,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.02,
    "device": "cpu",
    "progress": False,
}


def make_values(seed: int = 0) -> np.ndarray:
    """A daily course with a drift, a few missing."""
    random = np.random.default_rng(seed)
    hours = np.arange(NUM_STEPS)[:, None, None]
    values = 50 + 10 * np.sin(hours * 2 * np.pi / 24) + hours / 20
    values = values + random.normal(size=(NUM_STEPS, NUM_NODES, 1))
    values[random.random(values.shape) < 0.05] = np.nan
    return values.round(1).astype(np.float32)


def make_store(path: Path, values: np.ndarray | None = None) -> SeriesStore:
    graph = SensorGraph.from_edges(NUM_NODES, np.array([0, 1]), np.array([1, 2]))
    with StoreWriter(path, node_ids=("a", "b", "c"), channels=("speed",), graph=graph) as writer:
        writer.append(make_values() if values is None else values)
        writer.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=3600)
    return SeriesStore.open(path)


def tensors(run: Path, name: str = "best.pt") -> dict[str, Any]:
    """Parameters and scaler of a checkpoint."""
    state = torch.load(run / "checkpoints" / name, weights_only=True)
    return state["network"] | {
        f"scaler {key}": torch.tensor(value, dtype=torch.float64)
        for key, value in state["scaler"].items()
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


# -- what a fold knows ----------------------------------------------------------------------------


def run_and_watch(
    store: SeriesStore, out: Path, refit: Refit
) -> tuple[BacktestResult, list[torch.Tensor]]:
    """A backtest of three folds, and the table of the historical average of each."""
    tables = []

    def watch(*args: Any, **options: Any) -> dict[str, AbstractForecaster]:
        baselines = build_baselines(*args, **options)
        average = baselines["historical-average"]
        assert isinstance(average, HistoricalAverageForecaster)
        tables.append(average.table)
        return baselines

    with patch.object(rolling, "build_baselines", watch):
        result = pgti.backtest(store, out, folds=3, refit=refit, **OPTIONS)
    return result, tables


def assert_blind(tmp_path: Path, refit: Refit) -> None:
    """The second of three folds does not change with anything from its first target on.

    Raises:
        AssertionError: if its weights, scaler, baseline or first forecast change.
    """
    store = make_store(tmp_path / "store")
    result, tables = run_and_watch(store, tmp_path / "out", refit)
    first_row = result.folds[1].first_row
    values = make_values()
    values[first_row:] = np.random.default_rng(9).normal(200, 60, values[first_row:].shape)
    changed = make_store(tmp_path / "changed", values)
    others, other_tables = run_and_watch(changed, tmp_path / "other", refit)
    assert others.folds[1].errors["mae"] != result.folds[1].errors["mae"]
    assert torch.equal(tables[1], other_tables[1])
    assert_same(tensors(tmp_path / "other" / "fold-2"), tensors(tmp_path / "out" / "fold-2"))
    forecasts = []
    for series, out in ((store, "out"), (changed, "other")):
        known = series.prefix(first_row)
        run = Run.open(tmp_path / out / "fold-2", store=known)
        forecasts.append(run.forecast(known)["forecast"])
    np.testing.assert_array_equal(*forecasts)


@pytest.mark.parametrize("refit", ["every", "warm"])
def test_a_fold_is_blind_to_all_that_follows(refit: Refit, tmp_path: Path) -> None:
    """Bit for bit: weights, scaler and forecasts."""
    assert_blind(tmp_path, refit)


def test_a_planted_leak_of_rows_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that trains on its own rows, too."""

    def leak(store: SeriesStore, fold: Fold) -> SeriesStore:
        return store.prefix(min(store.meta.num_steps, fold.first_row + 10))

    monkeypatch.setattr(rolling, "_training_store", leak)
    with pytest.raises(AssertionError):
        assert_blind(tmp_path, "every")


def test_a_planted_leak_of_the_scaler_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scaler that is fitted on the whole series."""
    fit = Scaler.fit

    def leak(store: SeriesStore, _: range) -> Scaler:
        whole = SeriesStore.open(store.path)
        return fit(whole, range(whole.meta.num_steps))

    monkeypatch.setattr(Scaler, "fit", leak)
    with pytest.raises(AssertionError):
        assert_blind(tmp_path, "every")


# -- the errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("refit", ["every", "never", "warm"])
def test_errors_are_those_of_the_forecasts(refit: Refit, tmp_path: Path) -> None:
    """Computed window by window, from the run of each fold."""
    store = make_store(tmp_path / "store")
    result = pgti.backtest(store, tmp_path / "out", folds=3, refit=refit, **OPTIONS)
    values = store.read(0, NUM_STEPS)
    rows = [80, 106, 132, 159]
    total, count = 0.0, 0
    for fold, begin, end in zip(result.folds, rows, rows[1:], strict=False):
        number = 1 if refit == "never" else fold.number
        of_run = result.folds[number - 1].first_row
        run = Run.open(tmp_path / "out" / f"fold-{number}", store=store.prefix(of_run))
        assert (fold.first_row, fold.windows) == (begin, end - begin)
        errors = []
        for row in range(begin, end):
            readings = store.prefix(row)
            forecast = run.forecast(readings)["forecast"].to_numpy().reshape(2, NUM_NODES)
            errors.append(np.abs(forecast - values[row : row + 2, :, 0]))
        found = np.concatenate(errors).astype(np.float64)
        assert fold.errors["mae"]["mean"] == pytest.approx(np.nanmean(found), rel=1e-5)
        assert fold.errors["count"] == np.isfinite(found).sum()
        total, count = total + np.nansum(found), count + np.isfinite(found).sum()
    assert result.mae == pytest.approx(total / count, rel=1e-5)
    assert result.errors["count"] == count


def test_sums_are_pooled_exactly(tmp_path: Path) -> None:
    """The error over all is that of all targets; the average of the folds' errors is another."""
    store = make_store(tmp_path / "store")
    result = pgti.backtest(
        store, tmp_path / "out", folds=2, fold_steps=20, first_from="2025-10-05T00:00",
        metrics={"within_5": lambda p, t, m: ((((p - t).abs() < 5) & m).sum(), m.sum())},
        **OPTIONS,
    )  # fmt: skip
    for name, power in (("mae", 1), ("rmse", 2), ("within_5", 1)):
        for errors in (lambda e: e, lambda e: e["persistence"]):
            parts = [(errors(fold.errors)[name]["mean"], errors(fold.errors)["count"])
                     for fold in result.folds]  # fmt: skip
            count = sum(n for _, n in parts)
            pooled = (sum(n * error**power for error, n in parts) / count) ** (1 / power)
            assert errors(result.errors)[name]["mean"] == pytest.approx(pooled, rel=1e-12)
    assert [fold.begins for fold in result.folds] == ["2025-10-05 00:00:00", "2025-10-05 20:00:00"]


def test_baselines_know_the_same_whatever_the_refit(tmp_path: Path) -> None:
    """They are fitted before each fold, so that the refits compare."""
    store = make_store(tmp_path / "store")
    results = {
        refit: pgti.backtest(store, tmp_path / refit, folds=3, refit=refit, **OPTIONS)
        for refit in ("every", "never", "warm")
    }
    for name in BASELINES[:2]:
        of_folds = [
            [fold.errors[name]["mae"]["mean"] for fold in result.folds]
            for result in results.values()
        ]
        np.testing.assert_allclose(of_folds[1:], of_folds[:1] * 2, rtol=1e-6)
        assert len(set(of_folds[0])) == 3
    assert_same(tensors(tmp_path / "never" / "fold-1"), tensors(tmp_path / "every" / "fold-1"))
    assert_same(tensors(tmp_path / "warm" / "fold-1"), tensors(tmp_path / "every" / "fold-1"))
    mae = {refit: [fold.errors["mae"]["mean"] for fold in r.folds] for refit, r in results.items()}
    assert mae["every"][0] == mae["never"][0] == mae["warm"][0]
    assert len({each[2] for each in mae.values()}) == 3


def test_models_of_the_folds(tmp_path: Path) -> None:
    """One for all, one each, or one that goes on from the last."""
    store = make_store(tmp_path / "store")
    warm = pgti.backtest(store, tmp_path / "warm", folds=3, refit="warm", warm_epochs=1, **OPTIONS)
    assert [fold.epochs for fold in warm.folds] == [2, 1, 1]
    info = json.loads((tmp_path / "warm" / "fold-3" / "run.json").read_text())
    assert info["started_from"]["path"] == str(tmp_path / "warm" / "fold-2")
    assert info["started_from"]["rows"] == warm.folds[1].first_row
    never = pgti.backtest(store, tmp_path / "never", folds=3, refit="never", **OPTIONS)
    assert [fold.epochs for fold in never.folds] == [2, 0, 0]
    assert not (tmp_path / "never" / "fold-2").exists()
    assert len({fold.train_windows for fold in never.folds}) == 1
    assert [fold.train_windows for fold in warm.folds] == sorted(
        {fold.train_windows for fold in warm.folds}
    )


def test_what_a_result_shows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    result = pgti.backtest(store, tmp_path / "out", folds=2, **OPTIONS)
    frame = result.to_frame()
    assert list(frame.columns[:6]) == [
        "fold", "from", "to", "train_windows", "forecaster", "channel"
    ]  # fmt: skip
    assert list(frame["fold"].unique()) == ["1", "2", "all"]
    assert set(frame["forecaster"]) == {"gru", *BASELINES}
    every = frame[(frame["fold"] == "all") & (frame["forecaster"] == "gru")]
    assert every["mae"].item() == result.mae
    steps = result.to_frame(by_horizon=True)
    assert sorted(steps["horizon"].unique()) == [1, 2]
    assert "gru, 2 folds, refit every, 79 windows" in repr(result)
    assert "2025-10-04 08:00:00" in repr(result)
    assert "<table" in result._repr_html_()
    json.dumps(result.to_dict(), allow_nan=False)


def test_several_targets_are_shown_apart(tmp_path: Path) -> None:
    """Their units differ: no row mixes them."""
    values = np.concatenate([make_values(), 100 * make_values(1)], axis=2)
    graph = SensorGraph.empty(NUM_NODES)
    with StoreWriter(
        tmp_path / "store", node_ids=("a", "b", "c"), channels=("speed", "flow"), graph=graph
    ) as writer:
        writer.append(values)
        writer.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=3600)
    result = pgti.backtest(tmp_path / "store", tmp_path / "out", folds=2, **OPTIONS)
    summary = result.summary()
    assert list(summary["target"]) == ["speed", "flow"] * 3
    frame = result.to_frame()
    for target in ("speed", "flow"):
        rows = frame[(frame["channel"] == target) & (frame["forecaster"] == "gru")]
        assert list(summary[summary["target"] == target]["MAE"]) == rows["mae"].tolist()
    assert "flow" in repr(result)


# -- going on -------------------------------------------------------------------------------------


class DeathInFold(Observer):
    """Ends the process, as far as Python can, at a step of one of several trainings."""

    def __init__(self, step: int) -> None:
        self.step = step

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """Nothing."""

    def advance(self, num_windows: int, loss: object = None) -> None:
        """Count, and die at zero."""
        self.step -= 1
        if self.step == 0:
            raise KeyboardInterrupt

    def record(self, record: object) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Stop(pgti.Callback):
    """Sends the process the signal of Ctrl-C at the first step."""

    def on_step(self, status: pgti.TrainingStatus) -> None:
        """Press it once: a second time ends the process at once."""
        if status.step == 1:
            signal.raise_signal(signal.SIGINT)


def test_a_backtest_that_is_stopped_says_how_it_resumes(tmp_path: Path) -> None:
    """It has no option --resume, which the message of a training names."""
    store = make_store(tmp_path / "store")
    arguments = RunArguments.of(
        model="gru", model_options={"hidden": 2}, windows=WINDOWS, training={"epochs": 2},
        training_options={}, loss=None, metrics=None, callbacks=[Stop()], others={"device": "cpu"},
    )  # fmt: skip
    with pytest.raises(Interrupted, match=r"^stopped by SIGINT; the backtest .*out resumes if"):
        run_backtest(arguments.configure(store), tmp_path / "out", BacktestOptions(folds=2),
                     store=store, extensions=arguments.extensions)  # fmt: skip
    file = tmp_path / "out" / "backtest.json"  # as an earlier version wrote it
    settings = json.loads(file.read_text())
    settings["windows"]["profile"] = settings["windows"].pop("climatology")
    file.write_text(json.dumps(settings))
    result = run_backtest(arguments.configure(store), tmp_path / "out", BacktestOptions(folds=2),
                          store=store)  # fmt: skip
    assert [fold.epochs for fold in result.folds] == [2, 2]


@pytest.mark.parametrize("refit", ["every", "warm"])
@pytest.mark.parametrize("died_at", [3, 12])
def test_a_backtest_that_dies_goes_on_bit_for_bit(
    refit: Refit, died_at: int, tmp_path: Path
) -> None:
    """The fold that was interrupted resumes, those that are finished stay."""
    store = make_store(tmp_path / "store")
    options = BacktestOptions(folds=3, refit=refit)
    given = {name: each for name, each in OPTIONS.items() if name != "progress"}
    arguments = RunArguments.of(
        model=given["model"], model_options=given["model_options"], windows=WINDOWS,
        training={"epochs": 2, "batch_size": 16, "learning_rate": 0.02,
                  "checkpoint_every_steps": 2},
        training_options={}, loss=None, metrics=None, callbacks=(), others={"device": "cpu"},
    )  # fmt: skip
    config: RunConfig = arguments.configure(store)
    whole = run_backtest(config, tmp_path / "whole", options, store=store)
    death = DeathInFold(died_at + 10)
    with pytest.raises(KeyboardInterrupt):
        run_backtest(config, tmp_path / "out", options, store=store, observers=lambda _: [death])
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("fold-*.json")}
    assert len(finished) < 3
    again = run_backtest(config, tmp_path / "out", options, store=store)
    assert again.errors == whole.errors
    for path, written in finished.items():
        assert path.stat().st_mtime_ns == written
    for number in (1, 2, 3):
        for name in ("best.pt", "last.pt"):
            assert_same(
                tensors(tmp_path / "out" / f"fold-{number}", name),
                tensors(tmp_path / "whole" / f"fold-{number}", name),
            )
    assert not (tmp_path / "out" / "lock").exists()


def test_a_finished_backtest_is_read(tmp_path: Path) -> None:
    """Also where its runs are gone, and the store has grown; another store is refused."""
    store = make_store(tmp_path / "store")
    result = pgti.backtest(store, tmp_path / "out", folds=2, **OPTIONS)
    (tmp_path / "out" / "fold-1" / "config.toml").unlink()
    again = pgti.backtest(store, tmp_path / "out", folds=2, **OPTIONS)
    assert again == result
    values = make_values()
    grown = make_store(tmp_path / "grown", np.concatenate([values, values[:10]]))
    later = pgti.backtest(grown, tmp_path / "out", folds=2, **OPTIONS)
    assert later.errors == result.errors
    values[3] += 1
    other = make_store(tmp_path / "other", values)
    with pytest.raises(RunError, match=r"store = .* and cannot be resumed with"):
        pgti.backtest(other, tmp_path / "out", folds=2, **OPTIONS)


def test_two_processes_do_not_share_a_backtest(tmp_path: Path) -> None:
    """The second is refused while the first works on it."""
    store = make_store(tmp_path / "store")
    pgti.backtest(store, tmp_path / "out", folds=2, **OPTIONS)
    with (
        file_lock(tmp_path / "out" / "lock", on_busy=lambda: None),
        pytest.raises(RunError, match="another process works on the backtest"),
    ):
        pgti.backtest(store, tmp_path / "out", folds=2, **OPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 4}, "folds = 3 and cannot be resumed with 4"),
        ({"refit": "never"}, "refit = 'every' and cannot be resumed with 'never'"),
        ({"epochs": 3}, r"training\.epochs = 2 and cannot be resumed with 3"),
        ({"model_options": {"hidden": 4}}, r"model\.hidden = 3"),
    ],
)
def test_changed_options_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    pgti.backtest(store, tmp_path / "out", folds=3, **OPTIONS)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=message) as caught:
        pgti.backtest(store, tmp_path / "out", **{"folds": 3, **OPTIONS, **change})
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 0}, "folds is 0"),
        ({"refit": "often"}, "refit is 'often': it must be one of every, never, warm"),
        ({"warm_epochs": 2}, r"warm_epochs is 2 and refit is every: it belongs to refit='warm'"),
        ({"first_from": "2030-01-01"}, "folds of equal steps from row 160 do not fit"),
        ({"folds": 80}, "fold 1 of 80 has no window"),
        ({"windows": {**WINDOWS, "fractions": (0.8, 0.0, 0.2)}}, "needs validation windows"),
        ({"model": "grub"}, "did you mean 'gru'"),
        ({"input_steps": 3}, "input_steps is an option of the windows"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with pytest.raises(PgtiError, match=message) as caught:
        pgti.backtest(store, tmp_path / "out", **{**OPTIONS, **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_directory_is_left_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with pytest.raises(RunError, match="exists and is not a backtest"):
        pgti.backtest(store, store.path, folds=3, **OPTIONS)
    assert isinstance(SeriesStore.open(store.path), SeriesStore)
    with pytest.raises(ConfigError, match="out is 3"):
        pgti.backtest(store, 3, **OPTIONS)  # type: ignore[arg-type]


def test_the_command_line_backtests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the options of a file; the split by dates in it does not count, and that is said."""
    make_store(tmp_path / "store")
    file = tmp_path / "run.toml"
    file.write_text(
        '[windows]\ninput_steps = 4\nhorizon = 2\nval_from = "2025-10-05"\n'
        'test_from = "2025-10-06"\n[model]\nname = "gru"\nhidden = 3\n'
        "[training]\nepochs = 1\nbatch_size = 16\n"
    )
    command = ["backtest", tmp_path / "store", "--config", file, "--out", tmp_path / "out",
               "--folds", "2", "--refit", "warm"]  # fmt: skip
    assert run_command([*map(str, command), "--json"]) == 0
    output = capsys.readouterr()
    content = json.loads(output.out)
    assert [fold["fold"] for fold in content["folds"]] == [1, 2]
    assert content["all"]["mae"]["mean"] > 0
    assert content["all"]["persistence"]["mae"]["mean"] > 0
    assert "the split by dates of the configuration does not count" in output.err
    assert "fold 2 of 2: 40 windows from" in output.err
    assert run_command(list(map(str, command))) == 0
    assert "MAE persistence" in capsys.readouterr().out
    assert run_command([*map(str, command[:-3]), "3"]) == 2
    assert "folds = 2 and cannot be resumed with 3" in capsys.readouterr().err
