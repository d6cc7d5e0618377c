"""What users of Python meet: options, callbacks, own losses and metrics, progress, resuming."""

import inspect
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import pgti
from pgti import Callback, ConfigError, Run, RunError, SeriesStore, TrainingStatus

from .small_runs import Linear, make_series, make_store

SMALL: dict[str, Any] = {
    "model": "gru",
    "model_options": {"hidden": 2},
    "windows": {"input_steps": 3, "horizon": 2},
    "batch_size": 16,
    "epochs": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    return make_store(tmp_path_factory.mktemp("front") / "store", make_series())


# -- options --------------------------------------------------------------------------------------


def test_help_lists_every_option() -> None:
    text = inspect.getdoc(pgti.train) or ""
    parameters = inspect.signature(pgti.train).parameters
    for name in ("epochs", "schedule", "patience", "checkpoint_every_steps"):
        assert f"\n    {name}: " in text
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["epochs"].default == 30
    assert text.count("    loss: ") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epohcs": 1}, "epohcs is not an option; did you mean 'epochs'?"),
        (
            {"milestones": [3]},
            "milestones belongs to schedule: pass schedule={'kind': 'multistep',",
        ),
        ({"horizon": 3}, "horizon is an option of the windows: pass windows={'horizon': ...}"),
        ({"epochs": "3"}, "epochs is '3': it must be a whole number"),
        ({"windows": 12}, "windows is 12: it must be a table"),
        ({"windows": {"horizont": 3}}, "windows.horizont is not an option; did you mean 'horizon'"),
        ({"windows": {"profile": True}}, "windows.profile is windows.climatology now: use that"),
        ({"training": {"batch": 3}}, r"batch is not an option; did you mean 'batch_size'\?"),
        ({"training": 5}, "training is 5: it must be a TrainingConfig or a mapping"),
        ({"model": 3}, "model is 3: it must be the name of a model, or a class or function"),
        ({"model": "dcrn"}, "model 'dcrn' does not exist; did you mean 'dcrnn'?"),
        ({"model_options": {"hiden": 3}}, "model.hiden is not an option of gru; did you mean 'hid"),
        ({"batching": "standard", "placement": "partitioned"}, "leave batching out"),
        ({"device": "tpu"}, "there is no device 'tpu'"),
        ({"memory_budget": "2 loads"}, "memory_budget"),
        ({"loss": "mae2"}, "loss is 'mae2': it must be one of mae, huber, mse"),
        (
            {"callbacks": [print]},
            "callbacks is <built-in function print>: it must be a list of pgti",
        ),
        ({"callbacks": Callback()}, "callbacks is .* it must be a list of pgti.Callback"),
        ({"callbacks": None}, "callbacks is None: it must be a list of pgti.Callback"),
        ({"metrics": 3}, "metrics is 3: it must be functions by name"),
        ({"metrics": {"horizon": print}}, "metric 'horizon' is a name that the report has"),
        ({"communicator": 3}, "communicator is 3: it must be a Communicator"),
        ({"model_options": 3}, "model_options is 3: it must be options by name"),
        ({"windows": {3: 4}}, "windows.3 is not an option"),
        ({"loss": ["mae"]}, r"loss is \\['mae'\\]: it must be one of mae, huber, mse"),
        ({"overwrite": "no"}, "overwrite is 'no': it must be True or False"),
        ({"progress": 3}, "progress is 3: it must be True or False"),
        ({"metrics": {"mae": print}}, "metric 'mae' is a name that the report has already"),
        ({"metrics": {"a b": print}}, "metric 'a b': a name must be a word"),
        ({"metrics": {"wape": 3}}, "metric wape is 3: it must be a function"),
        ({"schedule": {"kind": "multistep", "milestone": [3]}}, "schedule.milestone is not an opt"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    store: SeriesStore, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?").replace("\\\\", "\\")) as got:
        pgti.train(store, tmp_path / "run", **{**SMALL, **options})
    assert "\n" not in str(got.value)
    assert "--" not in str(got.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (pd.DataFrame({"a": [1.0]}), "store is a DataFrame: .* pgti.ingest writes one"),
        (None, "store is a NoneType"),
    ],
)
def test_what_is_no_store_says_how_to_make_one(argument: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pgti.train(argument, "run")  # type: ignore[arg-type]


def test_a_run_needs_a_path(store: SeriesStore) -> None:
    with pytest.raises(ConfigError, match="run is 3: it must be a path"):
        pgti.train(store, 3)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(store: SeriesStore, tmp_path: Path) -> None:
    options = {**SMALL, "epochs": np.int64(1), "learning_rate": np.float32(0.01)}
    run = pgti.train(store, tmp_path / "run", **options)
    assert run.config.training.epochs == 1


# -- progress -------------------------------------------------------------------------------------


def test_training_shows_what_it_does_unless_silenced(
    store: SeriesStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pgti.train(store, tmp_path / "a", **{**SMALL, "progress": True})
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "epoch 1: train loss" in shown.err
    assert "pgti: memory: about" in shown.err
    pgti.train(store, tmp_path / "b", **SMALL)
    assert capfd.readouterr() == ("", "")


def test_a_run_shows_itself_in_a_few_lines(store: SeriesStore, tmp_path: Path) -> None:
    run = pgti.train(store, tmp_path / "run", **SMALL)
    lines = repr(run).splitlines()
    assert len(lines) <= 12
    assert lines[0] == f"Run {tmp_path / 'run'}"
    assert "2 epochs, the best is" in repr(run)
    assert "train 51, val 8, test 16" in repr(run) or "train" in repr(run)
    assert run._repr_html_().count("<tr") <= 12


def test_history_has_a_row_per_epoch(store: SeriesStore, tmp_path: Path) -> None:
    run = pgti.train(store, tmp_path / "run", **SMALL, metrics={"near": near})
    history = run.history
    assert list(history["epoch"]) == [1, 2]
    assert list(history.columns) == [
        "epoch", "step", "train_loss", "val_mae", "val_rmse", "val_mape", "val_near", "lr",
        "seconds", "windows_per_second",
    ]  # fmt: skip
    assert np.isfinite(history["val_mae"]).all()


# -- callbacks ------------------------------------------------------------------------------------


class Recorder(Callback):
    """Notes what it is told, and stops after a step or a validation if asked to."""

    def __init__(self, stop_step: int | None = None, stop_epoch: int | None = None) -> None:
        self.calls: list[str] = []
        self.stop_step, self.stop_epoch = stop_step, stop_epoch

    def on_begin(self, status: TrainingStatus) -> None:  # noqa: D102
        self.calls.append(f"begin {status.step}")
        assert (status.directory / "config.toml").is_file()
        assert isinstance(status.network, torch.nn.Module)

    def on_step(self, status: TrainingStatus) -> None:  # noqa: D102
        self.calls.append(f"step {status.step}")
        assert (status.read_loss() or 0) > 0
        assert status.learning_rate == pytest.approx(1e-3)
        if status.step == self.stop_step:
            status.stop()

    def on_validation(self, status: TrainingStatus, errors: Mapping[str, float | None]) -> None:  # noqa: D102
        self.calls.append(f"validation {status.epoch}")
        assert status.best_epoch >= 1
        assert status.best_val_mae <= (errors["mae"] or 0)
        if status.epoch == self.stop_epoch:
            status.stop()

    def on_end(self, status: TrainingStatus) -> None:  # noqa: D102
        self.calls.append("end")


def test_callbacks_follow_the_training(store: SeriesStore, tmp_path: Path) -> None:
    recorder = Recorder()
    plain = pgti.train(store, tmp_path / "plain", **SMALL)
    run = pgti.train(store, tmp_path / "run", **SMALL, callbacks=[recorder])
    steps = int(run.history["step"].iloc[-1])
    half = steps // 2
    assert recorder.calls == [
        "begin 0",
        *(f"step {step}" for step in range(1, half + 1)),
        "validation 1",
        *(f"step {step}" for step in range(half + 1, steps + 1)),
        "validation 2",
        "end",
    ]
    for name, tensor in plain.forecaster.network.state_dict().items():
        assert torch.equal(tensor, run.forecaster.network.state_dict()[name])


@pytest.mark.parametrize(("where", "steps", "epochs"), [("step", 3, 1), ("epoch", 4, 1)])
def test_a_callback_stops_the_training_for_good(
    store: SeriesStore, tmp_path: Path, where: str, steps: int, epochs: int
) -> None:
    recorder = Recorder(**{f"stop_{where}": 3 if where == "step" else 1})
    run = pgti.train(store, tmp_path / "run", **SMALL, callbacks=[recorder])
    assert recorder.calls[-2:] == ["validation 1", "end"]
    assert int(run.history["step"].iloc[-1]) == steps
    assert len(run.history) == epochs
    again = Recorder()
    resumed = pgti.train(store, tmp_path / "run", resume=True, progress=False, callbacks=[again])
    assert again.calls == []
    assert len(resumed.history) == epochs


def test_an_error_of_a_callback_leaves_a_run_to_resume(store: SeriesStore, tmp_path: Path) -> None:
    class Failing(Callback):
        def on_step(self, status: TrainingStatus) -> None:
            if status.step == 6:
                raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        pgti.train(store, tmp_path / "run", **SMALL, callbacks=[Failing()])
    resumed = pgti.train(store, tmp_path / "run", **SMALL, resume=True)
    plain = pgti.train(store, tmp_path / "plain", **SMALL)
    for name, tensor in plain.forecaster.network.state_dict().items():
        assert torch.equal(tensor, resumed.forecaster.network.state_dict()[name])


# -- own losses and metrics -----------------------------------------------------------------------


def squared(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The built-in mean squared error, by other means."""
    error = torch.where(mask, prediction - target, 0.0)
    return error.square().sum(), mask.sum()


def near(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Share of forecasts within 1 of the observation."""
    return (((prediction - target).abs() <= 1) & mask).sum(), mask.sum()


def test_an_own_loss_trains_like_the_built_in_one(store: SeriesStore, tmp_path: Path) -> None:
    ours = pgti.train(store, tmp_path / "ours", **SMALL, loss="mse")
    own = pgti.train(store, tmp_path / "own", **SMALL, loss=squared)
    for name, tensor in ours.forecaster.network.state_dict().items():
        assert torch.equal(tensor, own.forecaster.network.state_dict()[name])
    assert own.config.training.loss.kind == "custom"
    assert Run.open(tmp_path / "own").evaluate("val").mae == own.evaluate("val").mae


def test_the_count_of_an_own_loss_divides_it(store: SeriesStore, tmp_path: Path) -> None:
    """A loss and its count, both a thousand times as large, give the same gradients."""

    def scaled(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        total, count = squared(prediction, target, mask)
        return 1024 * total, 1024.0 * count

    options = {**SMALL, "epochs": 1}
    expected = pgti.train(store, tmp_path / "a", **options, loss=squared)
    found = pgti.train(store, tmp_path / "b", **options, loss=scaled)
    assert list(found.history["train_loss"]) == pytest.approx(
        list(expected.history["train_loss"]), rel=1e-6
    )
    for name, tensor in expected.forecaster.network.state_dict().items():
        torch.testing.assert_close(tensor, found.forecaster.network.state_dict()[name])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda *tensors: tensors[0].mean(), "loss returned Tensor: it must return .sum, count"),
        (lambda p, t, m: ((p - t).abs(), m.sum()), r"tensors of shapes \(1, 2, 3, 1\) and \(\)"),
        (lambda *_: (1.0, 2), "loss returned tuple"),
        (lambda p, t: (p - t).sum(), "loss failed: TypeError: .*takes 2 positional arguments"),
        (lambda *_: 1 / 0, "loss failed: ZeroDivisionError: division by zero .*test_front_door.py"),
        (lambda p, t, m: ((p - t).detach().sum(), m.sum()), "loss returned a sum without a grad"),
    ],
)
def test_a_loss_that_returns_something_else_is_refused_before_training(
    store: SeriesStore, tmp_path: Path, loss: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pgti.train(store, tmp_path / "run", **SMALL, loss=loss)
    assert not (tmp_path / "run").exists()


def test_a_run_with_an_own_loss_resumes_with_it_alone(store: SeriesStore, tmp_path: Path) -> None:
    options = {**SMALL, "max_steps": 5}
    pgti.train(store, tmp_path / "run", **options, loss=squared)
    with pytest.raises(ConfigError, match=r"has a loss of its own \(squared\): train it from Pyth"):
        pgti.train(store, tmp_path / "run", resume=True, max_steps=7, progress=False)
    run = pgti.train(
        store, tmp_path / "run", resume=True, max_steps=7, loss=squared, progress=False
    )
    assert int(run.history["step"].iloc[-1]) == 7


def test_own_metrics_stand_beside_ours(store: SeriesStore, tmp_path: Path) -> None:
    run = pgti.train(store, tmp_path / "run", **SMALL, metrics={"near": near})
    report = run.evaluate()
    frame = run.forecast(split="test").dropna()
    share = ((frame["forecast"] - frame["observed"]).abs() <= 1).mean()
    assert report.mean("near") == pytest.approx(share)
    steps = report.to_frame().query("forecaster == 'gru'")["near"]
    assert len(steps) == 2
    assert report.to_dict()["test"]["persistence"]["near"]["mean"] is not None
    assert "near" in repr(report)
    assert Run.open(tmp_path / "run").evaluate(metrics={"near": near}).mean("near") == share


# -- runs that exist ------------------------------------------------------------------------------


def test_a_resumed_run_has_its_own_options(store: SeriesStore, tmp_path: Path) -> None:
    """A bare resume=True continues as the run began; what is given overrides where it may."""
    options = {**SMALL, "epochs": 3, "learning_rate": 0.02, "loss": "huber"}
    whole = pgti.train(store, tmp_path / "whole", **options)
    pgti.train(store, tmp_path / "run", **{**options, "max_steps": 5})
    resumed = pgti.train(store, tmp_path / "run", resume=True, max_steps=10**6, progress=False)
    assert resumed.config.training.learning_rate == 0.02
    assert resumed.config.model.name == "gru"
    assert resumed.config.windows.horizon == 2
    for name, tensor in whole.forecaster.network.state_dict().items():
        assert torch.equal(tensor, resumed.forecaster.network.state_dict()[name])
    with pytest.raises(RunError, match=r"started with training.learning_rate = 0.02 and cannot be"):
        pgti.train(store, tmp_path / "run", resume=True, learning_rate=0.5, progress=False)


def test_a_finished_run_says_so_and_stays(
    store: SeriesStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pgti.train(store, tmp_path / "run", **SMALL)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    run = pgti.train(store, tmp_path / "run", resume=True)
    assert "is finished after 2 epochs: there is nothing to train" in capfd.readouterr().err
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert after == before
    assert len(run.history) == 2


def test_overwrite_replaces_a_run_and_nothing_else(store: SeriesStore, tmp_path: Path) -> None:
    path = tmp_path / "run"
    pgti.train(store, path, **SMALL)
    with pytest.raises(RunError, match=r"resume it with resume=True, replace it with overwrite=Tr"):
        pgti.train(store, path, **SMALL)
    with pytest.raises(ConfigError):  # nothing is lost
        pgti.train(store, path, **{**SMALL, "model": "nothing"}, overwrite=True)
    assert len(Run.open(path).history) == 2
    run = pgti.train(store, path, **{**SMALL, "epochs": 1}, overwrite=True)
    assert len(run.history) == 1
    with pytest.raises(ConfigError, match="resume and overwrite exclude each other"):
        pgti.train(store, path, resume=True, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="exists and is not a run"):
        pgti.train(store, other, **SMALL, overwrite=True)
    assert (other / "thesis.txt").exists()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".run")]


def test_an_interruption_is_no_error_of_ours(store: SeriesStore, tmp_path: Path) -> None:
    """`except PgtiError` and `except Exception` let it pass."""

    class Interrupting(Callback):
        def on_step(self, status: TrainingStatus) -> None:
            if status.step == 2:
                signal.raise_signal(signal.SIGINT)

    def train() -> None:
        try:
            pgti.train(store, tmp_path / "run", **SMALL, callbacks=[Interrupting()])
        except Exception:  # noqa: BLE001
            pytest.fail("caught as an error")

    with pytest.raises(KeyboardInterrupt, match=r"stopped by SIGINT after step 3; .*resume=True"):
        train()
    assert pgti.train(store, tmp_path / "run", **SMALL, resume=True).history["epoch"].max() == 2


def test_a_finished_run_with_an_own_loss_needs_no_loss(store: SeriesStore, tmp_path: Path) -> None:
    pgti.train(store, tmp_path / "run", **SMALL, loss=squared)
    assert len(pgti.train(store, tmp_path / "run", resume=True, progress=False).history) == 2


def test_a_metric_that_is_no_number_is_named(store: SeriesStore, tmp_path: Path) -> None:
    run = pgti.train(store, tmp_path / "run", **SMALL)
    with pytest.raises(RunError, match="metric bad returned a sum or a count that is not finite"):
        run.evaluate(
            metrics={"bad": lambda *parts: (parts[0].sum() * float("nan"), parts[2].sum())}
        )


def test_a_class_of_ours_stands_for_its_name(store: SeriesStore, tmp_path: Path) -> None:
    run = pgti.train(store, tmp_path / "run", **{**SMALL, "model": pgti.GRU})
    assert run.config.model.name == "gru"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.evaluate(3), "splits is 3: it must be a split, a list of them, or newer"),
        (lambda run: run.evaluate([]), "splits is empty: name train, val or test"),
        (lambda run: run.evaluate(metrics=3), "metrics is 3"),
        (lambda run: run.evaluate(max_windows=0), "max_windows is 0"),
        (
            lambda run: run.forecast(3),
            "readings is 3: it must be a frame, an array, a store or",
        ),
        (
            lambda run: run.forecast("newer.csv", options=["missing"]),
            "options is .* it must be an IngestOptions, or options by name",
        ),
        (
            lambda run: run.forecast(between="2025-10-25"),
            "between is '2025-10-25': it must be two t",
        ),
        (lambda run: run.forecast(between=("x",)), "between is .* it must be two times"),
        (lambda run: run.plot(step="1"), "step is '1': it must be a whole number"),
        (lambda _: Run.open(3), "path is 3: it must be a path"),
        (lambda _: SeriesStore.open(3), "path is 3: it must be the path of a store"),
        (lambda _: pgti.ingest([1], "s"), r"source is 1: it must be the path of a file, a Dat"),
        (
            lambda _: pgti.ingest(pd.DataFrame(), "s", {"a": 1}),
            "options is .* it must be IngestOpt",
        ),
    ],
)
def test_a_wrong_type_is_one_clear_line_everywhere(
    store: SeriesStore, tmp_path_factory: pytest.TempPathFactory, call: Any, message: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "wrong-types"
    run = Run.open(path) if path.exists() else pgti.train(store, path, **SMALL)
    with pytest.raises(ConfigError, match=message) as caught:
        call(run)
    assert "\n" not in str(caught.value)


def test_own_networks_need_no_name(store: SeriesStore, tmp_path: Path) -> None:
    run = pgti.train(store, tmp_path / "run", **{**SMALL, "model": Linear, "model_options": None})
    assert run.evaluate("val").mae == Run.open(tmp_path / "run", model=Linear).evaluate("val").mae
