"""Training from end to end: what is refused, what is left behind, what goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgti.batching import WindowConfig
from pgti.errors import ConfigError, DataError, Interrupted, PgtiError, RunError
from pgti.forecasting import Observer
from pgti.models import ModelShape
from pgti.nn import Supports
from pgti.nn.execution import bfloat16_speed
from pgti.run import ModelConfig, Run, RunConfig, prepare, train_run
from pgti.store import SeriesStore
from pgti.training import RunDirectory
from pgti.training.schedules import CosineSchedule, NoSchedule
from pgti.windows import subsample_evenly

from .small_runs import NUM_NODES, WINDOWS, Linear, make_config, make_series, make_store


class Told(Observer):
    """Does something at a step of training, counted from 1."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.left = step
        self.act = act

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """Nothing."""

    def advance(self, num_windows: int, loss: object = None) -> None:
        """Count, and act at zero."""
        self.left -= 1
        if self.left == 0:
            self.act()

    def record(self, record: object) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class KilledError(Exception):
    """Stands for a death without any tidying."""


def die() -> None:
    raise KilledError


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def at(step: int, act: Callable[[], None]) -> Callable[[RunDirectory], list[Observer]]:
    """Observers that act at a step."""
    return lambda _: [Told(step, act)]


def config_of(tmp_path: Path, values: np.ndarray | None = None, **training: Any) -> RunConfig:
    """Options over a store made under `tmp_path`."""
    path = tmp_path / "store"
    return make_config(make_store(path, make_series() if values is None else values), **training)


def begun(config: RunConfig, path: Path) -> None:
    """A run that dies in its first epoch, before any checkpoint."""
    with pytest.raises(KilledError):
        train_run(config, path, observers=at(2, die))
    assert not (path / "checkpoints" / "last.pt").exists()


def info_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "run.json").read_text())
    return content


def files_of(path: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_a_few_validation_windows_without_readings_are_refused(tmp_path: Path) -> None:
    """Before the training, not after an epoch of it."""
    values = make_series()
    config = config_of(tmp_path, values, val_windows=1)
    val = config.windows.splits(SeriesStore.open(config.store)).val
    middle = int(subsample_evenly(val, 1)[0])
    values[middle : middle + 6] = np.nan
    holed = replace(config, store=make_store(tmp_path / "holed", values).path)
    with pytest.raises(DataError, match=r"of the 1 validation windows .* more val_windows"):
        train_run(holed, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    training = replace(config.training, val_windows=None, max_steps=1)
    train_run(replace(holed, training=training), tmp_path / "run")


@pytest.mark.parametrize(("speed", "is_reported"), [(0.1, True), (3.0, False)])
def test_slow_bfloat16_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: float, *, is_reported: bool
) -> None:
    """Where the processor has no such products, somebody asked for the opposite of speed."""
    monkeypatch.setattr(prepare, "bfloat16_speed", lambda: speed)
    lines: list[str] = []
    config = config_of(tmp_path, max_steps=1, precision="bfloat16")
    train_run(config, tmp_path / "run", log=lines.append)
    assert any("10 times as slowly" in line for line in lines) == is_reported


def test_tf32_on_a_cpu_is_float32_and_said(tmp_path: Path) -> None:
    """A configuration made for a GPU trains here too, with the bits of float32."""
    config, weights = config_of(tmp_path, max_steps=2), []
    for precision in ("tf32", "float32"):
        lines: list[str] = []
        training = replace(config.training, precision=precision)
        run, _ = train_run(
            replace(config, training=training), tmp_path / precision, log=lines.append
        )
        is_said = "precision tf32: a CPU has no TF32 and computes in float32" in lines
        assert is_said == (precision == "tf32")
        assert not any("CUDA graphs" in line for line in lines)
        weights.append(run.forecaster.network.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name])


@pytest.mark.parametrize("option", ["deterministic", "cuda_graphs"])
def test_how_a_gpu_computes_may_change_when_a_run_resumes(tmp_path: Path, option: str) -> None:
    """And runs of versions without these options resume with them."""
    config = config_of(tmp_path, max_steps=1)
    train_run(config, tmp_path / "run")
    other = {"deterministic": True, "cuda_graphs": "off"}[option]
    training = replace(config.training, max_steps=2, **{option: other})
    _, result = train_run(replace(config, training=training), tmp_path / "run", resume=True)
    assert result.steps == 2


def test_the_speed_of_bfloat16_is_measured() -> None:
    """Whatever it is here."""
    assert 0.001 < bfloat16_speed() < 100


# -- a few windows in place of all ----------------------------------------------------------------


def test_a_split_can_be_evaluated_by_a_few_windows(tmp_path: Path) -> None:
    """Errors are those of the chosen windows; how many there were is part of the report."""
    run, _ = train_run(config_of(tmp_path, max_steps=1), tmp_path / "run")
    whole = run.evaluate("test").to_dict()["test"]
    assert whole["windows"] == whole["split_windows"] == len(run.splits.test)
    assert whole["count"] == whole["windows"] * 2 * NUM_NODES

    few = run.evaluate("test", max_windows=4).to_dict()["test"]
    assert (few["windows"], few["split_windows"]) == (4, whole["windows"])
    assert few["count"] == 4 * 2 * NUM_NODES
    rows = subsample_evenly(run.splits.test, 4)
    last, truth = (run.store.raw[rows + offset, :, 0] for offset in (2, 3))
    assert few["persistence"]["mae"]["1"] == pytest.approx(np.abs(truth - last).mean(), rel=1e-5)

    assert run.evaluate("test", max_windows=10**6).to_dict()["test"] == whole
    with pytest.raises(ConfigError, match="max_windows is 0"):
        run.evaluate("test", max_windows=0)


def test_validation_can_look_at_a_few_windows(tmp_path: Path) -> None:
    """The best parameters are chosen by the errors on them."""
    run, result = train_run(config_of(tmp_path, val_windows=3, epochs=1), tmp_path / "run")
    report = run.evaluate("val", max_windows=3).to_dict()["val"]
    assert result.best_val_mae == pytest.approx(report["mae"]["mean"], rel=1e-6)
    assert report["mae"] != run.evaluate("val").to_dict()["val"]["mae"]


# -- several targets ------------------------------------------------------------------------------


def test_each_target_has_its_own_errors(tmp_path: Path) -> None:
    """In its own unit, for the model and both baselines; one target alone needs no table."""
    config = config_of(tmp_path, make_series(num_channels=2))
    run, _ = train_run(config, tmp_path / "both")
    report = run.evaluate().to_dict()["test"]

    for each in (report, report["persistence"], report["historical-average"]):
        assert list(each["channels"]) == ["c0", "c1"]
        maes = [each["channels"][name]["mae"]["mean"] for name in ("c0", "c1")]
        assert maes[1] > 20 * maes[0]
        assert each["mae"]["mean"] == pytest.approx(np.mean(maes))

    alone = replace(config, windows=replace(WINDOWS, targets=("c1",)))
    single = train_run(alone, tmp_path / "one")[0].evaluate().to_dict()["test"]
    assert "channels" not in single
    assert single["persistence"] == report["persistence"]["channels"]["c1"]


def test_sensors_without_an_observed_target_are_named(tmp_path: Path) -> None:
    """In the training rows: what comes later counts for nothing."""
    series = make_series()
    series[:60, 1] = np.nan
    lines: list[str] = []
    train_run(config_of(tmp_path, series, max_steps=1), tmp_path / "run", log=lines.append)
    assert [line for line in lines if "without an observed target" in line] == [
        "1 sensor without an observed target in the training rows (b): what is forecast there "
        "rests on the other sensors"
    ]


def test_several_targets_are_told_of(tmp_path: Path) -> None:
    """One line names them and the option; it comes when the run's directory is there."""
    config = config_of(tmp_path, make_series(num_channels=2), max_steps=1)
    path, lines = tmp_path / "run", []

    def log(line: str) -> None:
        assert RunDirectory.exists(path)
        lines.append(line)

    train_run(config, path, log=log)

    assert len([line for line in lines if "batching" in line]) == 1
    assert [line for line in lines if "windows.targets" in line] == [
        "2 targets (c0, c1): the loss and the errors over all of them mix their units; "
        "windows.targets chooses"
    ]
    one = replace(config, windows=replace(WINDOWS, targets=("c0",)))
    lines.clear()
    path = tmp_path / "one"
    train_run(one, path, log=log)
    assert not [line for line in lines if "windows.targets" in line]


def test_a_refusal_is_all_that_is_said(tmp_path: Path) -> None:
    """Nothing is told of a run that does not begin."""
    config = config_of(tmp_path, make_series(num_channels=2), max_steps=1)
    path, lines = tmp_path / "run", []
    train_run(config, path)

    with pytest.raises(RunError, match="holds a run already"):
        train_run(config, path, log=lines.append)
    assert lines == []


# -- nothing is left behind -----------------------------------------------------------------------


def check_refused(
    config: RunConfig, tmp_path: Path, error: type[Exception], message: str, **arguments: Any
) -> None:
    """Training raises the error, in one line, and leaves nothing."""
    before = files_of(tmp_path)
    with pytest.raises(error, match=message) as caught:
        train_run(config, tmp_path / "run", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert files_of(tmp_path) == before


def test_unobserved_validation_targets_are_found_first(tmp_path: Path) -> None:
    """Of the target channel; what another channel observed does not help."""
    values = make_series(num_channels=2)
    rows = WINDOWS.splits(make_store(tmp_path / "first", values)).val
    values[rows[0] + 3 : rows[-1] + 5, :, 0] = np.nan
    config = config_of(tmp_path, values)
    config = replace(config, windows=replace(WINDOWS, targets=("c0",)))

    check_refused(config, tmp_path, DataError, "no target of the 8 validation windows was observed",
            observers=at(1, die))  # fmt: skip
    other = replace(config, windows=replace(WINDOWS, targets=("c1",)))
    assert train_run(other, tmp_path / "other")[1].steps > 0


class Wrong(Linear):
    """One step too many."""

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """[B, H + 1, N, C_out]."""
        out = super().forward(x, supports)
        return torch.cat([out, out[:, :1]], dim=1)


class Broken(Linear):
    """Has a bug."""

    def forward(self, x: Tensor, supports: Supports) -> Tensor:
        """Nothing ever."""
        raise KeyError("a bug of the user's")


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (Wrong, ConfigError, r"shape \(1, 3, 3, 1\): .* \(1, 2, 3, 1\)"),
        (lambda _: "dcrnn", ConfigError, r"returned a str: it must return a torch\.nn\.Module"),
        (lambda _: Linear, ConfigError, "returned a type"),
        (
            Broken,
            ConfigError,
            r"failed on one window, x \[1, 3, 3, 2\]: KeyError: .a bug of .*line \d",
        ),
    ],
)
def test_a_network_that_cannot_work_leaves_nothing(
    tmp_path: Path,
    factory: Callable[[ModelShape], Any],
    error: type[Exception],
    message: str,
) -> None:
    """It is tried on one window before anything is made."""
    config = replace(config_of(tmp_path), model=ModelConfig(name="custom"))
    check_refused(config, tmp_path, error, message, model=factory)


def test_a_training_that_fails_before_its_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    """It diverges in the first epoch."""
    config = config_of(tmp_path, learning_rate=1e30, loss="mse", clip_norm=0.0, epochs=50)

    check_refused(config, tmp_path, RunError, "diverged")


def test_a_training_that_fails_later_keeps_its_checkpoints(tmp_path: Path) -> None:
    """They may be worth something; so does a run that was there before."""

    def fail() -> None:
        raise RunError("failed")

    config = config_of(tmp_path, checkpoint_every_steps=1)
    with pytest.raises(RunError, match="failed"):
        train_run(config, tmp_path / "late", observers=at(3, fail))
    assert (tmp_path / "late" / "checkpoints" / "last.pt").exists()

    config = replace(config, training=replace(config.training, checkpoint_every_steps=0))
    begun(config, tmp_path / "run")
    with pytest.raises(RunError, match="failed"):
        train_run(config, tmp_path / "run", resume=True, observers=at(2, fail))
    assert RunDirectory.exists(tmp_path / "run")


def test_a_signal_leaves_a_run_to_go_on_with(tmp_path: Path) -> None:
    """Before the first checkpoint was due, too."""
    config = config_of(tmp_path)
    with pytest.raises(Interrupted):
        train_run(config, tmp_path / "run", observers=at(1, terminate))

    assert train_run(config, tmp_path / "run", resume=True)[1].steps == 8


def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    """A model beyond any machine says what to make smaller, and leaves nothing."""
    config = config_of(tmp_path)
    huge = replace(config, model=ModelConfig(name="dcrnn", options={"hidden": 65_536}))

    message = r"not enough memory .*batch_size .*model_options\['hidden'\]"
    check_refused(huge, tmp_path, RunError, message)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), RunError, "not enough memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            RunError,
            "not enough memory",
        ),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
    ],
)
def test_too_little_memory_while_training_is_one_line(
    tmp_path: Path, error: Exception, expected: type[Exception], message: str
) -> None:
    """Only errors that are of memory are called so; nothing is left of a run without checkpoint."""

    def fail() -> None:
        raise error

    path = tmp_path / "run"
    with pytest.raises(expected, match=message):
        train_run(config_of(tmp_path), path, observers=at(2, fail))
    assert path.exists() == (expected is RuntimeError)


# -- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"seed": 4}}, r"training\.seed = 3 .* with 4"),
        ({"training": {"batch_size": 8}}, r"training\.batch_size = 16 .* with 8"),
        ({"training": {"loss": "mse"}}, r"training\.loss\.kind = 'mae' .* with 'mse'"),
        ({"training": {"accumulate": 2}}, r"training\.accumulate = 1 .* with 2"),
        ({"windows": WindowConfig(input_steps=4, horizon=2)}, r"windows\.input_steps = 3"),
        ({"model": ModelConfig(options={"hidden": 3, "layers": 1})}, r"model\.hidden = 2 .* 3"),
    ],
)
@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_other_options_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str, has_checkpoint: bool
) -> None:
    """Whether the run has a checkpoint or not; no file changes."""
    config, path = config_of(tmp_path), tmp_path / "run"
    if has_checkpoint:
        train_run(config, path)
    else:
        begun(config, path)
    before = files_of(path)
    training = replace(config.training, **changes.get("training", {}))
    other = replace(config, **{**changes, "training": training})

    with pytest.raises(RunError, match=message):
        train_run(other, path, resume=True)
    assert files_of(path) == before


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_another_store_is_refused(tmp_path: Path, has_checkpoint: bool) -> None:
    """The run knows what store it began with; the error has both fingerprints."""
    config, path = config_of(tmp_path), tmp_path / "run"
    if has_checkpoint:
        train_run(config, path)
    else:
        begun(config, path)
    before = files_of(path)
    other = make_store(tmp_path / "other", make_series(seed=1))

    with pytest.raises(RunError, match="trained on the store with fingerprint") as caught:
        train_run(replace(config, store=other.path), path, resume=True)
    assert other.fingerprint[:16] in str(caught.value)
    assert files_of(path) == before


def test_an_epoch_count_may_change_unless_the_schedule_needs_it(tmp_path: Path) -> None:
    """More epochs are more of the same, except under a cosine."""
    config = config_of(tmp_path)
    for schedule in (NoSchedule(), CosineSchedule()):
        path, training = tmp_path / schedule.kind, replace(config.training, schedule=schedule)
        config = replace(config, training=training)
        train_run(config, path)
        longer = replace(config, training=replace(config.training, epochs=3))
        if schedule.kind == "none":
            assert train_run(longer, path, resume=True)[1].epochs == 3
        else:
            with pytest.raises(RunError, match=r"training.epochs = 2 .* with 3"):
                train_run(longer, path, resume=True)


def test_a_run_is_not_begun_again(tmp_path: Path) -> None:
    """Without `resume` no file of it changes."""
    config, path = config_of(tmp_path), tmp_path / "run"
    train_run(config, path)
    before = files_of(path)

    with pytest.raises(RunError, match="holds a run already: resume it with resume=True"):
        train_run(config, path)
    assert files_of(path) == before


def test_training_anew_writes_everything_anew(tmp_path: Path) -> None:
    """What a run without checkpoint says about itself is true of the training that follows."""
    config, path = config_of(tmp_path), tmp_path / "run"
    begun(config, path)
    info = info_of(path)
    stale = {**info, "torch": "0.1", "started": "1999-01-01T00:00:00+00:00", "ended": "1999"}
    (path / "run.json").write_text(json.dumps({**stale, "parameters": 0}))
    (path / "test.json").write_text("{}")
    longer = replace(config, training=replace(config.training, epochs=3))

    assert train_run(longer, path, resume=True)[1].epochs == 3

    found = info_of(path)
    for name in ("torch", "parameters", "fingerprint", "windows"):
        assert found[name] == info[name]
    assert found["started"] >= info["started"]
    assert found["ended"] >= found["started"]
    assert not (path / "test.json").exists()
    assert "epochs = 3" in (path / "config.toml").read_text()


def test_going_on_forgets_what_was_the_end(tmp_path: Path) -> None:
    """The start stays; errors of the old parameters and the old end do not."""
    config, path = config_of(tmp_path), tmp_path / "run"
    train_run(config, path)
    began = {**info_of(path), "started": "1999-01-01T00:00:00+00:00"}
    (path / "run.json").write_text(json.dumps(began))
    (path / "test.json").write_text("{}")
    longer = replace(config, training=replace(config.training, epochs=3))

    with pytest.raises(KilledError):
        train_run(longer, path, resume=True, observers=at(1, die))

    assert info_of(path)["started"] == began["started"]
    assert "ended" not in info_of(path)
    assert not (path / "test.json").exists()


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    """There is nothing to go on with."""
    config, path = config_of(tmp_path), tmp_path / "run"
    _, result = train_run(config, path)
    (path / "test.json").write_text("{}")
    before = files_of(path)

    assert train_run(config, path, resume=True)[1] == replace(result, was_finished=True)
    assert files_of(path) == before


def test_a_run_killed_before_it_said_that_it_ended_says_so_later(tmp_path: Path) -> None:
    """The last checkpoint was written, and `run.json` not yet."""
    config, path = config_of(tmp_path), tmp_path / "run"
    train_run(config, path)
    info = info_of(path)
    del info["ended"]
    (path / "run.json").write_text(json.dumps(info))

    train_run(config, path, resume=True)

    assert info_of(path)["ended"] >= info["started"]
    assert info_of(path)["started"] == info["started"]


def test_what_was_chosen_is_recorded(tmp_path: Path) -> None:
    """`run.json` has what `auto` came to; `config.toml` keeps the word."""
    config, path = config_of(tmp_path, max_steps=1), tmp_path / "run"
    train_run(config, path)

    info = info_of(path)
    assert info["batching"] in ("index", "device")
    assert info["device"] in ("cpu", "cuda")
    assert info["calendar"] == ["time-of-day"]
    text = (path / "config.toml").read_text()
    assert 'batching = "auto"' in text
    assert 'device = "auto"' in text
    assert "calendar" not in text


# -- one process at a time ------------------------------------------------------------------------

SECOND = """
import sys
from pathlib import Path
from pgti.errors import RunError
from pgti.run import RunConfig, train_run
config = RunConfig.from_toml(Path(sys.argv[1]) / "config.toml")
try:
    train_run(config, sys.argv[1], resume=True, log=print)
except RunError as error:
    print(f"refused: {error}")
"""


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    """The second is told in one line, in the midst of the first's training; both files agree."""
    config, path = config_of(tmp_path, checkpoint_every_steps=1), tmp_path / "run"
    outputs = []

    def intrude() -> None:
        command = [sys.executable, "-c", SECOND, str(path)]
        outputs.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    result = train_run(config, path, observers=at(3, intrude))[1]

    assert len(outputs) == 1
    assert outputs[0].startswith("refused: ")
    assert "is being trained by another process" in outputs[0]
    assert outputs[0].count("\n") == 1
    assert result.steps == 8
    undisturbed = train_run(config, tmp_path / "other")[0]
    for name, tensor in undisturbed.directory.load_last().network.items():
        assert torch.equal(tensor, RunDirectory(path).load_last().network[name]), name


def test_a_run_is_free_after_an_error(tmp_path: Path) -> None:
    """The lock ends with the training, however that ends."""
    config, path = config_of(tmp_path), tmp_path / "run"
    begun(config, path)
    with pytest.raises(PgtiError):
        train_run(replace(config, model=ModelConfig(name="no")), path, resume=True)

    assert train_run(config, path, resume=True)[1].steps == 8
    assert Run.open(path).evaluate(("val",)).to_dict()["val"]["count"] > 0
