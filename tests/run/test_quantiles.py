"""Runs that forecast quantiles, and bounds of forecasts: from training to the forecasts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pgti
from pgti.cli.main import run_command
from pgti.errors import ConfigError, RunError
from pgti.run import Run, RunConfig
from pgti.run.loaders import RunLoaders
from pgti.training.bounds import bounds_of_targets

from .small_runs import make_series, make_store

LEVELS = (0.1, 0.25, 0.5, 0.9)
QUANTILE = {"kind": "quantile", "quantiles": LEVELS}
OPTIONS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "windows": {"input_steps": 3, "horizon": 2},
    "progress": False,
}
SMALL: dict[str, dict[str, Any]] = {
    "gru": {"hidden": 3},
    "dcrnn": {"hidden": 2, "layers": 1, "scheduled_sampling": True},
}


def trained(path: Path, *, model: str = "gru", exact: bool = False, **options: Any) -> Run:
    """A small run with two targets; its quantiles cross unless they are sorted."""
    values = make_series(2)
    store = make_store(path / "store", values, exact=exact)
    given = {"model": model, "model_options": SMALL[model], "loss": QUANTILE, **OPTIONS, **options}
    return pgti.train(store, path / "run", **given)


@pytest.mark.parametrize(("model", "exact"), [("gru", False), ("dcrnn", False), ("gru", True)])
def test_a_run_forecasts_quantiles(tmp_path: Path, model: str, exact: bool) -> None:
    """Each target Q times, in order; the median is the point forecast; reopened, the same."""
    run = trained(tmp_path, model=model, exact=exact)
    batch = next(iter(RunLoaders(run, run.splits.val).validation.epoch(0)))
    with torch.no_grad():
        found, point = run.forecaster.predict(batch), run.forecaster(batch)

    assert batch.y is not None
    assert found.quantiles is not None
    assert found.quantiles.shape == (*batch.y.shape, len(LEVELS))
    assert found.quantiles.dtype == batch.y.dtype
    assert (found.quantiles.diff(dim=-1) >= 0).all()
    assert torch.equal(found.quantiles[..., 2], point)
    assert torch.equal(found.point, point)
    # Quantiles of a target stand together: they have its scale, 50 and 5,000.
    scale = found.quantiles.double().mean(dim=(0, 1, 2)) / torch.tensor([[50.0], [5000.0]])
    assert ((scale > 0.9) & (scale < 1.1)).all()
    assert Run.open(run.directory.path).evaluate().mae == run.evaluate().mae


def test_the_quantiles_of_a_longer_training_are_calibrated(tmp_path: Path) -> None:
    """Of noise around 50 with deviation 1, about as many readings lie below as the level says."""
    run = trained(
        tmp_path,
        epochs=30,
        learning_rate=0.02,
        windows={"input_steps": 3, "horizon": 2, "targets": ("c0",)},
    )
    batch = next(iter(RunLoaders(run, run.splits.train).validation.epoch(0)))
    with torch.no_grad():
        quantiles = run.forecaster.predict(batch).quantiles
    assert quantiles is not None
    assert batch.y is not None
    below = (batch.y[..., None] <= quantiles).double().mean(dim=(0, 1, 2, 3))
    assert below.numpy() == pytest.approx(np.array(LEVELS), abs=0.12)


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_quantiles_train_in_lower_precision(tmp_path: Path, precision: str) -> None:
    """The loss and the order are those of float32."""
    run = trained(tmp_path, precision=precision)
    assert run.evaluate().mae is not None


def test_a_run_starts_from_one_with_the_same_quantiles(tmp_path: Path) -> None:
    """Its options are taken over; others are refused in one line, in both directions."""
    run = trained(tmp_path)
    again = pgti.train(run.store, tmp_path / "again", init_from=run, epochs=1, progress=False)
    assert again.config.training.quantiles == LEVELS
    for loss in ("mae", {"kind": "quantile", "quantiles": (0.1, 0.5)}):
        with pytest.raises(RunError, match="its own; leave loss and quantiles out"):
            pgti.train(run.store, tmp_path / "x", init_from=run, loss=loss, progress=False)
    with pytest.raises(RunError, match="resumed with"):
        pgti.train(run.store, run.directory.path, resume=True, loss="mae", progress=False)


def begin(tmp_path: Path, run: str) -> list[str]:
    """A command that trains a small network."""
    options = "--model linear --quiet --windows.input-steps 3 --windows.horizon 2"
    return ["train", str(tmp_path / "store"), "--run", str(tmp_path / run), *options.split()]


@pytest.mark.parametrize("levels", ["0.1,0.9", "0.5,0.1", "0,0.5", "0.5,1", "0.5,0.5", "0.1,nan"])
def test_quantiles_that_cannot_be(
    tmp_path: Path, levels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the rule, and nothing is written."""
    make_store(tmp_path / "store", make_series())
    code = run_command([*begin(tmp_path, "run"), "--loss", "quantile", "--quantiles", levels])
    assert code == 2
    assert "they must rise between 0 and 1, and have 0.5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_flag_has_two_names(tmp_path: Path) -> None:
    """`--quantiles`, and `--loss.quantiles` as the options of other losses are called."""
    make_store(tmp_path / "store", make_series())
    for flag in ("--quantiles", "--loss.quantiles"):
        code = run_command(
            [*begin(tmp_path, flag[2:]), "--loss", "quantile", flag, "0.2,0.5", "--epochs", "1"]
        )
        assert code == 0
        config = RunConfig.of_run(tmp_path / flag[2:] / "config.toml")
        assert config.training.quantiles == (0.2, 0.5)


# -- bounds ---------------------------------------------------------------------------------------


def test_forecasts_stay_within_bounds(tmp_path: Path) -> None:
    """Points and quantiles, of the target that is named; training does not see them."""
    free, bound = (
        trained(tmp_path / name, bounds=bounds)
        for name, bounds in (("free", ""), ("bound", "c1=5020,"))
    )
    assert bound.config.training.bounds == "c1=5020,"
    batch = next(iter(RunLoaders(free, free.splits.val).validation.epoch(0)))
    with torch.no_grad():
        one, two = (run.forecaster.predict(batch).quantiles for run in (free, bound))
        seen = [run.forecaster.outputs(batch, step=0) for run in (free, bound)]
    assert one is not None
    assert two is not None
    assert (one[..., 1, :] < 5020).any()
    assert torch.equal(two[..., 1, :], one[..., 1, :].clamp(min=5020))
    assert torch.equal(two[..., 0, :], one[..., 0, :])
    assert torch.equal(*seen)
    frame = Run.open(bound.directory.path).forecast(split="test")
    assert frame.loc[frame["channel"] == "c1", "forecast"].min() == 5020


def test_bounds_as_text() -> None:
    """One pair for every target, or one for each that is named."""
    targets, infinite = ("flow", "speed"), float("inf")
    assert bounds_of_targets("", targets) == ()
    assert bounds_of_targets("0,", targets) == ((0, infinite), (0, infinite))
    assert bounds_of_targets("flow=-1.5,2", targets) == ((-1.5, 2), (-infinite, infinite))
    assert bounds_of_targets("flow=0,; speed=,99", targets) == ((0, infinite), (-infinite, 99))
    for text in ("0", "3,2", "a,b", "0,nan", "flow=0,;flow=1,", "0,;flow=1,", "1,2,3"):
        with pytest.raises(ConfigError, match="bounds are"):
            bounds_of_targets(text, targets)
    with pytest.raises(ConfigError, match="bounds name 'flwo': the targets of this run are flow"):
        bounds_of_targets("flwo=0,", targets)


def test_a_backtest_scores_quantiles(tmp_path: Path) -> None:
    """Its folds train them, and the sums of all folds have their scores."""
    store = make_store(tmp_path / "store", make_series(num_steps=120))
    result = pgti.backtest(
        store, tmp_path / "backtest", folds=2, model="linear", loss=QUANTILE, **OPTIONS
    )
    coverage = result.errors["coverage_80"]["mean"]
    assert 0.3 < coverage <= 1
    frame = result.to_frame().set_index(["fold", "forecaster"])
    assert frame.loc[("all", "linear"), "coverage_80"] == coverage
    assert np.isnan(frame.loc[("all", "persistence"), "crps"])
