"""Training that starts from a run: what it takes over, what it refuses, how it resumes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pgti
from pgti.cli.main import run_command
from pgti.errors import ConfigError, PgtiError, RunError
from pgti.run import Run
from pgti.store import SeriesStore
from pgti.training import Callback, TrainingStatus

from .small_runs import make_series, make_store

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "seed": 3, "progress": False}
GRU = {"hidden": 3, "dropout": 0.2}
WINDOWS = {"input_steps": 3, "horizon": 2}


def store_of(path: Path, num_channels: int = 1, num_steps: int = 80, seed: int = 0) -> SeriesStore:
    return make_store(path, make_series(num_channels, num_steps, seed))


def first_run(tmp_path: Path, **options: Any) -> Run:
    """A small GRU."""
    given = {**OPTIONS, "model": "gru", "model_options": GRU, "windows": WINDOWS, **options}
    return pgti.train(store_of(tmp_path / "store"), tmp_path / "first", **given)


def tensors(run: Path, name: str = "best.pt") -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint."""
    state = torch.load(run / "checkpoints" / name, weights_only=True)
    network: dict[str, torch.Tensor] = state["network"]
    return network


def records(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    clock = {"seconds", "windows_per_second"}
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


class Death(Callback):
    """Ends the training as a kill would, after a step; several can be survived."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, status: TrainingStatus) -> None:
        """Die once."""
        if status.step == self.step:
            raise KeyboardInterrupt


def test_it_starts_from_the_best_weights_with_the_same_options(tmp_path: Path) -> None:
    """The epoch before the first has the validation error of the run; the scaler is the run's."""
    run = first_run(tmp_path)
    newer = store_of(tmp_path / "newer", num_steps=120, seed=1)
    warm = pgti.train(newer, tmp_path / "warm", init_from=run, epochs=1, progress=False)
    again = pgti.train(newer, tmp_path / "again", init_from=tmp_path / "first", epochs=1,
                       progress=False)  # fmt: skip
    assert_same(tensors(warm.directory.path), tensors(again.directory.path))
    assert warm.source.scaler == run.source.scaler
    assert warm.config.model == run.config.model
    assert warm.config.windows.spec == run.config.windows.spec
    assert warm.config.training.batch_size == 16
    zeroth = records(tmp_path / "warm")[0]
    assert (zeroth["kind"], zeroth["epoch"], zeroth["step"]) == ("epoch", 0, 0)
    # The same windows as those of a run that is not trained further.
    taken = pgti.train(newer, tmp_path / "taken", init_from=run, epochs=0, progress=False)
    assert_same(tensors(tmp_path / "taken"), tensors(tmp_path / "first"))
    assert zeroth["val"]["mae"] == taken.evaluate("val").mae
    started = json.loads((tmp_path / "warm" / "run.json").read_text())["started_from"]
    assert started == {
        "path": str(tmp_path / "first"),
        "fingerprint": run.store.fingerprint,
        "rows": 80,
        "refit_scaler": False,
    }
    assert Run.open(tmp_path / "warm").source.scaler == run.source.scaler


@pytest.mark.parametrize(
    ("num_steps", "line"),
    [
        (120, "40 of the 120 rows are new since then"),
        (80, "its rows are the same"),
        (70, "on another store: 3 of its 3 sensors are those of the run"),
    ],
)
def test_it_says_what_is_new_since_the_run(
    num_steps: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that has grown is the same store up to the rows that it had."""
    values = make_series(num_steps=120)
    run = pgti.train(make_store(tmp_path / "old", values[:80]), tmp_path / "first", model="gru",
                     windows=WINDOWS, **OPTIONS)  # fmt: skip
    store = make_store(tmp_path / "new", values[:num_steps])
    capsys.readouterr()
    pgti.train(store, tmp_path / "warm", init_from=run, epochs=0)
    assert line in capsys.readouterr().err


def test_the_store_of_the_run_may_be_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run holds what is needed, also to say how many rows are new."""
    values = make_series(num_steps=120)
    run = pgti.train(make_store(tmp_path / "old", values[:80]), tmp_path / "first", model="gru",
                     windows=WINDOWS, **OPTIONS)  # fmt: skip
    store = make_store(tmp_path / "new", values)
    expected = pgti.train(store, tmp_path / "warm", init_from=run, epochs=1, progress=False)
    shutil.rmtree(tmp_path / "old")
    gone = tmp_path / "gone"
    pgti.train(store, gone, init_from=tmp_path / "first", epochs=1)
    assert "40 of the 120 rows are new since then" in capsys.readouterr().err
    assert_same(tensors(gone), tensors(expected.directory.path))


def test_a_run_on_a_store_that_has_grown_resumes_on_its_own_rows(tmp_path: Path) -> None:
    """Rows that came after it began are for a run that starts from it."""
    values = make_series(num_steps=120)
    store = make_store(tmp_path / "store", values[:80])
    options = {"model": "gru", "windows": WINDOWS, **OPTIONS}
    pgti.train(store, tmp_path / "whole", **{**options, "epochs": 3})
    pgti.train(store, tmp_path / "first", **options)
    shutil.rmtree(tmp_path / "store")
    grown = make_store(tmp_path / "store", values)
    pgti.train(grown, tmp_path / "first", resume=True, epochs=3, progress=False)
    assert_same(tensors(tmp_path / "first", "last.pt"), tensors(tmp_path / "whole", "last.pt"))


def test_it_trains_on_from_the_weights(tmp_path: Path) -> None:
    """A step of plain gradient descent, computed by hand from the run's weights."""
    run = first_run(tmp_path, model_options={"hidden": 3})
    options: dict[str, Any] = {"epochs": 1, "max_steps": 1, "learning_rate": 0.01}
    warm = pgti.train(run.store, tmp_path / "warm", init_from=run, progress=False, **options)
    before, after = tensors(tmp_path / "first"), tensors(warm.directory.path, "last.pt")
    # Adam's first step has the length of the learning rate, whatever the gradient.
    moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    assert moved.max() <= 0.01 * 1.001
    assert moved.median() > 0.009


def test_the_last_weights_are_another_start(tmp_path: Path) -> None:
    """Those of `Run.open(path, checkpoint="last")`, and of the flag."""
    first_run(tmp_path, epochs=3, learning_rate=5.0)
    path = tmp_path / "first"
    best, last = tensors(path), tensors(path, "last.pt")
    assert any(not torch.equal(best[name], last[name]) for name in best)
    run = Run.open(path, checkpoint="last")
    assert run.epoch == 3
    best_epoch = 1 + int(run.history["val_mae"].argmin())
    assert Run.open(path).epoch == best_epoch < 3
    pgti.train(run.store, tmp_path / "warm", init_from=run, epochs=0, progress=False)
    assert_same(tensors(tmp_path / "warm"), last)
    command = ["train", tmp_path / "store", "--run", tmp_path / "flag", "--from", path,
               "--from-checkpoint", "last", "--epochs", "0"]  # fmt: skip
    assert run_command([str(each) for each in command]) == 0
    assert_same(tensors(tmp_path / "flag"), last)


def test_the_scaler_is_refitted_on_request(tmp_path: Path) -> None:
    """On the new training rows; the run remembers it when it is resumed."""
    run = first_run(tmp_path)
    newer = make_store(tmp_path / "newer", make_series(num_steps=90, seed=4) * 3)
    options: dict[str, Any] = {"init_from": run, "refit_scaler": True, "progress": False}
    warm = pgti.train(newer, tmp_path / "warm", epochs=1, **options)
    cold = pgti.train(newer, tmp_path / "cold", windows=WINDOWS, model="gru", **OPTIONS)
    assert warm.source.scaler == cold.source.scaler != run.source.scaler
    resumed = pgti.train(newer, tmp_path / "warm", resume=True, epochs=2, progress=False)
    assert resumed.source.scaler == cold.source.scaler
    with pytest.raises(ConfigError, match="refit_scaler belongs to init_from"):
        pgti.train(newer, tmp_path / "none", refit_scaler=True, progress=False)


@pytest.mark.parametrize("died_at", [1, 4, 6])
def test_a_run_that_dies_resumes_bit_for_bit(tmp_path: Path, died_at: int) -> None:
    """Before its first own checkpoint too, and although the run that it started from is gone."""
    run = first_run(tmp_path)
    newer = store_of(tmp_path / "newer", num_steps=120, seed=1)
    options: dict[str, Any] = {"epochs": 3, "checkpoint_every_steps": 3, "learning_rate": 0.02}
    for name in ("whole", "broken"):
        callbacks = [Death(died_at)] if name == "broken" else []
        try:
            pgti.train(newer, tmp_path / name, init_from=run, callbacks=callbacks, progress=False,
                       **options)  # fmt: skip
        except KeyboardInterrupt:
            assert name == "broken"
    (tmp_path / "first" / "checkpoints" / "best.pt").unlink()
    (tmp_path / "first" / "config.toml").unlink()
    pgti.train(newer, tmp_path / "broken", resume=True, progress=False)
    for name in ("best.pt", "last.pt"):
        assert_same(tensors(tmp_path / "broken", name), tensors(tmp_path / "whole", name))
    assert records(tmp_path / "broken") == records(tmp_path / "whole")
    info = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert info["started_from"]["path"] == str(tmp_path / "first")


def test_a_run_that_dies_at_once_resumes_from_the_start_weights(tmp_path: Path) -> None:
    """Its directory appears with them: the validation before the first step is repeated."""
    run = first_run(tmp_path)

    class DeathAtOnce(Callback):
        def on_begin(self, status: TrainingStatus) -> None:
            raise KeyboardInterrupt

    warm = tmp_path / "warm"
    with pytest.raises(KeyboardInterrupt):
        pgti.train(run.store, warm, init_from=run, callbacks=[DeathAtOnce()], progress=False)
    assert_same(tensors(warm, "last.pt"), tensors(tmp_path / "first"))
    assert not (warm / "checkpoints" / "best.pt").exists()
    pgti.train(run.store, warm, resume=True, progress=False)
    pgti.train(run.store, tmp_path / "whole", init_from=run, progress=False)
    assert_same(tensors(warm), tensors(tmp_path / "whole"))


def test_a_failure_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    """As for a run with new weights."""
    run = first_run(tmp_path)

    class Failure(Callback):
        def on_step(self, status: TrainingStatus) -> None:
            raise RunError("it failed")

    with pytest.raises(RunError, match="it failed"):
        pgti.train(run.store, tmp_path / "warm", init_from=run, callbacks=[Failure()],
                   progress=False)  # fmt: skip
    assert not (tmp_path / "warm").exists()


def test_the_start_stays_the_best_where_training_makes_it_worse(tmp_path: Path) -> None:
    """Epoch 0 counts among the epochs."""
    run = first_run(tmp_path)
    warm = pgti.train(run.store, tmp_path / "warm", init_from=run, epochs=1, learning_rate=5.0,
                      progress=False)  # fmt: skip
    assert_same(tensors(tmp_path / "warm"), tensors(tmp_path / "first"))
    assert "the best is 0" in repr(warm)
    assert list(warm.history["epoch"]) == [0, 1]


def test_the_resumed_run_is_the_one_that_it_was_started_from(tmp_path: Path) -> None:
    run = first_run(tmp_path)
    pgti.train(run.store, tmp_path / "warm", init_from=run, epochs=1, progress=False)
    pgti.train(run.store, tmp_path / "warm", init_from=run, epochs=2, resume=True, progress=False)
    other = pgti.train(run.store, tmp_path / "other", init_from=run, epochs=1, progress=False)
    with pytest.raises(RunError, match=r"was started from .*first and cannot be resumed from .*ot"):
        pgti.train(run.store, tmp_path / "warm", init_from=other, resume=True, progress=False)
    with pytest.raises(RunError, match="was started from new weights and cannot be resumed"):
        pgti.train(run.store, tmp_path / "first", init_from=other, resume=True, progress=False)


# -- what cannot be taken over --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "stid"}, "was trained with the model gru: leave model out"),
        ({"model_options": {"hidden": 4}}, r"model\.hidden 3 there, 4 here\): .* is \["),
        ({"windows": {"horizon": 4}}, r"windows\.horizon 2 there, 4 here\)"),
        ({"windows": {"calendar": ("day-of-week",)}}, r"calendar \('time-of-day',\) and the new"),
        ({"windows": {"calendar": ()}}, r"leave windows\.calendar out"),
        ({"windows": {"climatology": True}}, r"climatology False and the new one True"),
        ({"freeze": "gru.*"}, r"freeze is 'gru\.\*', which names no parameter .*encoder\.0"),
        ({"freeze": "*"}, "freeze leaves no parameter to train"),
    ],
)
def test_what_does_not_fit_is_one_line(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """What differs, both values, and what to do; nothing is written."""
    run = first_run(tmp_path)
    with pytest.raises(PgtiError, match=message) as caught:
        pgti.train(run.store, tmp_path / "warm", init_from=run, progress=False, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "warm").exists()


def test_another_store_must_have_the_same_channels_and_interval(tmp_path: Path) -> None:
    """By name, and in one order: a network knows its inputs by position."""
    run = first_run(tmp_path)
    more = store_of(tmp_path / "more", num_channels=2)
    with pytest.raises(RunError, match=r"has channels c0 and the store .*more c0, c1"):
        pgti.train(more, tmp_path / "warm", init_from=run, progress=False)
    frame = pgti.Run.open(tmp_path / "first").forecast(split="test")
    table = frame[frame["horizon"] == 1].pivot_table(
        index="timestamp", columns="sensor", values="observed", observed=True
    )
    table.index = np.datetime64("2025-10-01") + np.arange(len(table)) * np.timedelta64(600, "s")
    quick = pgti.ingest(table, tmp_path / "quick", channels=("c0",))
    with pytest.raises(RunError, match=r"an interval of 3600 s and the store .*quick 600 s"):
        pgti.train(quick, tmp_path / "warm", init_from=run, progress=False)
    assert not (tmp_path / "warm").exists()


def test_no_epoch_needs_a_run_to_start_from(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"epochs is 0: .* unless it starts from another \(init_"):
        pgti.train(store, tmp_path / "run", epochs=0, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_split_by_dates_is_not_taken_over(tmp_path: Path) -> None:
    """It is of the old series; one that is given counts."""
    dates = {"val_from": "2025-10-03T00:00", "test_from": "2025-10-03T12:00"}
    run = first_run(tmp_path, windows={**WINDOWS, **dates})
    newer = store_of(tmp_path / "newer", num_steps=120)
    warm = pgti.train(newer, tmp_path / "warm", init_from=run, epochs=0, progress=False)
    assert warm.config.windows.val_from is None
    assert warm.splits.train[-1] > run.splits.train[-1]
    dated = pgti.train(newer, tmp_path / "dated", init_from=run, epochs=0, windows=dates,
                       progress=False)  # fmt: skip
    assert dated.splits.train == run.splits.train


# -- frozen layers --------------------------------------------------------------------------------


def test_frozen_layers_stay_bit_for_bit_the_same(tmp_path: Path) -> None:
    """They are not in the optimizer; all others learn, and a resumed run freezes the same."""
    run = first_run(tmp_path)
    options: dict[str, Any] = {"epochs": 3, "freeze": "encoder.*", "learning_rate": 0.02}
    warm = tmp_path / "warm"
    with pytest.raises(KeyboardInterrupt):
        pgti.train(run.store, warm, init_from=run, callbacks=[Death(6)], progress=False, **options)
    pgti.train(run.store, warm, resume=True, progress=False)
    before, after = tensors(tmp_path / "first"), tensors(warm, "last.pt")
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) == name.startswith("encoder."), name
    state = torch.load(warm / "checkpoints" / "last.pt", weights_only=True)
    num_trained = sum(not name.startswith("encoder.") for name in before)
    assert len(state["optimizer"]["state"]) == num_trained
    with pytest.raises(RunError, match=r"freeze = \['encoder\.\*'\] and cannot be resumed"):
        pgti.train(run.store, warm, resume=True, freeze="regression", epochs=4, progress=False)


def test_a_frozen_normalization_keeps_its_statistics(tmp_path: Path) -> None:
    """Running means are not parameters, and a frozen layer computes what it computed."""
    run = first_run(
        tmp_path, model="graph-wavenet", windows={"input_steps": 12, "horizon": 2},
        model_options={"hidden": 4, "skip_channels": 8, "end_channels": 8},
    )  # fmt: skip
    for name, patterns in {"frozen": ("norms",), "free": ("entrance",)}.items():
        pgti.train(run.store, tmp_path / name, init_from=run, freeze=patterns, epochs=1,
                   progress=False)  # fmt: skip
    before = tensors(tmp_path / "first")
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    for name in means:
        assert torch.equal(tensors(tmp_path / "frozen", "last.pt")[name], before[name])
        assert not torch.equal(tensors(tmp_path / "free", "last.pt")[name], before[name])


# -- the command line -----------------------------------------------------------------------------


def test_the_command_line_starts_from_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The options of the run, then those of the file, then the flags."""
    first_run(tmp_path)
    store_of(tmp_path / "newer", num_steps=120, seed=1)
    file = tmp_path / "run.toml"
    file.write_text("[training]\nepochs = 5\nbatch_size = 8\n")
    command = ["train", tmp_path / "newer", "--run", tmp_path / "warm", "--from",
               tmp_path / "first", "--config", file, "--epochs", "1", "--freeze", "encoder.0",
               "--json"]  # fmt: skip
    assert run_command([str(each) for each in command]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["epochs"] == 1
    assert f"starting from the run {tmp_path / 'first'}, on another store: 3 of its 3" in output.err
    config = Run.open(tmp_path / "warm").config
    assert (config.model.name, config.model.options["hidden"]) == ("gru", 3)
    assert (config.training.epochs, config.training.batch_size) == (1, 8)
    assert config.training.freeze == ("encoder.0",)
    resumed = ["train", str(tmp_path / "newer"), "--run", str(tmp_path / "warm"), "--resume"]
    assert run_command([*resumed, "--epochs", "2"]) == 0
    assert run_command([*resumed, "--from", str(tmp_path / "first")]) == 0
    for flags, message in (
        (["--refit-scaler"], "belong to --from RUN"),
        (["--from", str(tmp_path / "nowhere")], "nowhere is not a run"),
        (["--from", str(tmp_path / "first"), "--model", "stid"], "leave --model out"),
    ):
        capsys.readouterr()
        assert run_command([*resumed[:2], "--run", str(tmp_path / "bad"), *flags]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "bad").exists()


def test_the_run_to_start_from_is_not_replaced(tmp_path: Path) -> None:
    """Not even on request, nor through another name of its directory."""
    run = first_run(tmp_path)
    weights = tensors(tmp_path / "first")
    (tmp_path / "link").symlink_to(tmp_path / "first")
    for path in (tmp_path / "first", tmp_path / "link"):
        with pytest.raises(RunError, match="is the run to start from, and training would replace"):
            pgti.train(run.store, path, init_from=run, overwrite=True, progress=False)
        with pytest.raises(RunError, match=r"choose another run$"):  # not: with overwrite
            pgti.train(run.store, path, init_from=run, progress=False)
    assert_same(tensors(tmp_path / "first"), weights)


@pytest.mark.parametrize(("later", "count"), [({}, 0), ({"fractions": (0.4, 0.2, 0.4)}, 15)])
def test_windows_that_the_start_was_trained_on_are_counted(
    later: dict[str, Any], count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the new split begins earlier, errors on its test windows are too low."""
    run = first_run(tmp_path, windows={**WINDOWS, "fractions": (0.8, 0.1, 0.1)})
    capsys.readouterr()
    pgti.train(run.store, tmp_path / "warm", init_from=run, epochs=0, windows=later)
    output = capsys.readouterr().err
    trained = run.splits.train
    tested = [start for start in Run.open(tmp_path / "warm").splits.test if start in trained]
    assert len(tested) == count
    line = f"{count} of 30 test windows begin in the time that the run {tmp_path / 'first'} was"
    assert (line in output) == bool(count)
    assert ("begin in the time" in output) == bool(count)
