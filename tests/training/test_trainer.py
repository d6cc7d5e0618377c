"""The training loop: what it computes, when it ends, and that an interruption changes nothing."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pgti.batching import Batch
from pgti.errors import ConfigError, DataError, Interrupted, RunError
from pgti.forecasting import NetworkForecaster, Observer, evaluate
from pgti.models import TeacherForcing
from pgti.nn import Supports, mae
from pgti.store import Scaler
from pgti.training import RunDirectory, TrainingConfig, TrainStep
from pgti.training.config import MSELoss
from pgti.training.optimizers import AdamOptimizer, RMSPropOptimizer
from pgti.training.schedules import NoSchedule

from .assertions import assert_same_run
from .tiny_training import (
    CONFIG,
    KilledError,
    Killer,
    LinearNet,
    Setting,
    make_forecaster,
    make_loader,
    make_series,
    make_setting,
    make_source,
    make_store,
    make_trainer,
    open_run,
    resume_trainer,
)


class Listener(Observer):
    """Keeps what it is told, and may act on it."""

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []
        self.closed = False

    def begin(self, label: str, num_windows: int, done: int = 0, step: int | None = None) -> None:
        """Nothing."""

    def advance(self, num_windows: int, loss: object = None) -> None:
        """Nothing."""

    def record(self, record: dict[str, object]) -> None:
        """Keep it."""
        self.records.append(record)

    def close(self) -> None:
        """Note it."""
        self.closed = True


class Signaller(Killer):
    """Sends this process a signal after the given number of batches or steps."""

    def __init__(self, after: int, number: signal.Signals, times: int = 1) -> None:
        super().__init__(after)
        self.number = number
        self.times = times

    def advance(self, num_windows: int, loss: object = None) -> None:
        """Count, and send at zero."""
        self.left -= 1
        if self.left == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def trained(setting: Setting, path: Path) -> RunDirectory:
    """The run of an uninterrupted training."""
    run = open_run(path, setting.config)
    make_trainer(setting, run).fit()
    return run


# -- what it computes -----------------------------------------------------------------------------


def test_training_learns(tmp_path: Path) -> None:
    """The validation error falls far below that of the initial parameters."""
    config = TrainingConfig(epochs=8, batch_size=8, learning_rate=0.05)
    setting = make_setting(tmp_path, config, network="linear")
    before = evaluate({"model": make_forecaster(setting)}, val_loader(setting))

    result = make_trainer(setting, open_run(tmp_path / "run", config)).fit()

    assert result.best_val_mae < 0.6 * before["model"].summary()["mae"]["mean"]
    assert result.epochs == 8
    assert result.steps == 8 * 7
    assert result.windows_per_second > 0
    assert not result.stopped_early


def val_loader(setting: Setting) -> object:
    """Batches of the validation windows."""
    return make_loader(setting.source, setting.val_starts, 6)


def test_a_step_is_that_of_one_big_batch(tmp_path: Path) -> None:
    """Two epochs in float64 with batches of 4 x 3, 6 x 2 and 12 end with the same parameters."""
    found = []
    for batch_size, accumulate in ((12, 1), (6, 2), (4, 3), (1, 12)):
        config = TrainingConfig(epochs=2, batch_size=batch_size, accumulate=accumulate)
        setting = make_setting(tmp_path, config, network="linear")
        forecaster = make_forecaster(setting)
        forecaster.network.double()
        run = open_run(tmp_path / f"run{batch_size}", config)
        result = make_trainer(setting, run, forecaster=forecaster).fit()
        found.append((result, dict(forecaster.network.named_parameters())))

    for result, parameters in found[1:]:
        assert result.steps == found[0][0].steps == 2 * 5
        assert result.train_loss == pytest.approx(found[0][0].train_loss, rel=1e-12)
        for name, parameter in found[0][1].items():
            torch.testing.assert_close(parameters[name], parameter, rtol=1e-12, atol=1e-13)


def test_a_networks_own_terms_of_the_loss_count_by_their_targets(tmp_path: Path) -> None:
    """However the batch is cut: gradients of sum(error + observed targets * term) / count."""

    class Regularized(LinearNet):
        def forward(
            self, x: Tensor, supports: Supports, teacher: TeacherForcing | None = None
        ) -> Tensor:
            out = super().forward(x, supports)
            if teacher is not None:
                teacher.add_loss(0.5 * out.square().mean(dim=(1, 3)))
                teacher.add_loss(out.square().amax(dim=(1, 3)))
            return out

    setting = make_setting(tmp_path, TrainingConfig(), network="linear")
    scaler = setting.source.scaler
    (batch,) = make_loader(setting.source, range(4), 4).epoch(0)
    supports = make_forecaster(setting).supports
    torch.manual_seed(0)
    network = Regularized().double()
    forecaster = NetworkForecaster(network, supports, scaler, (0,)).train()
    scaled = (forecaster(batch, step=0) - forecaster.mean) / forecaster.std
    terms = 0.5 * scaled.square().mean(dim=(1, 3)) + scaled.square().amax(dim=(1, 3))
    errors = (forecaster(batch) - batch.y).abs() + terms[:, None, :, None]
    assert not batch.y_mask.all()
    expected = torch.autograd.grad(errors[batch.y_mask].mean(), list(network.parameters()))

    for cut in ([4], [1, 3]):
        step = TrainStep(forecaster, torch.optim.SGD(network.parameters(), lr=0), mae)
        parts = zip(*(torch.split(t, cut) for t in (batch.x, batch.y, batch.y_mask)), strict=True)
        batches = [
            replace(batch, x=x, y=y, y_mask=y_mask, starts=batch.starts[: len(x)])
            for x, y, y_mask in parts
        ]
        step(batches)
        found = [each.grad for each in network.parameters()]
        torch.testing.assert_close(found, list(expected), rtol=1e-12, atol=1e-13)
    assert forecaster.take_added_loss(batch.y_mask) is None
    forecaster(batch)
    assert forecaster.take_added_loss(batch.y_mask) is None, "evaluation adds nothing"


@pytest.mark.parametrize("clip_norm", [0.0, 3.0])
def test_training_is_what_a_plain_loop_does(tmp_path: Path, clip_norm: float) -> None:
    """Mean loss over a batch's observed targets, clipped, Adam: written out, in float64.

    Adam's epsilon is large here, for else it would hide the gradients' scale.
    """
    config = TrainingConfig(
        epochs=2,
        batch_size=7,
        loss=MSELoss(),
        clip_norm=clip_norm,
        optimizer=AdamOptimizer(epsilon=10.0),
    )
    setting = make_setting(tmp_path, config, network="linear")
    found, plain = make_forecaster(setting), make_forecaster(setting)
    found.network.double()
    plain.network.double()
    run = open_run(tmp_path / "run", config)
    result = make_trainer(setting, run, forecaster=found).fit()

    optimizer = torch.optim.Adam(plain.network.parameters(), lr=1e-3, eps=10.0)
    loader = make_loader(setting.source, setting.train_starts, 7, seed=config.seed)
    for epoch in range(2):
        errors = []
        for batch in loader.epoch(epoch):
            optimizer.zero_grad()
            observed = (plain(batch) - batch.y)[batch.y_mask] ** 2
            observed.mean().backward()
            if clip_norm:
                norm = torch.nn.utils.clip_grad_norm_(plain.network.parameters(), clip_norm)
                assert norm > clip_norm
            optimizer.step()
            errors.append(observed.detach())

    assert result.train_loss == pytest.approx(float(torch.cat(errors).mean()), rel=1e-12)
    for name, parameter in plain.network.named_parameters():
        torch.testing.assert_close(
            found.network.get_parameter(name), parameter, rtol=1e-12, atol=1e-13
        )


def test_the_epoch_loss_is_the_mean_over_observed_targets(tmp_path: Path) -> None:
    """With a rate of nearly nothing it equals the error over the training windows."""
    config = TrainingConfig(epochs=1, batch_size=7, learning_rate=1e-12)
    setting = make_setting(tmp_path, config, network="linear")
    expected = evaluate(
        {"model": make_forecaster(setting)},
        make_loader(setting.source, setting.train_starts, 50),
    )["model"].summary()["mae"]["mean"]

    result = make_trainer(setting, open_run(tmp_path / "run", config)).fit()

    assert result.train_loss == pytest.approx(expected, rel=1e-5)


def test_batches_without_observed_targets_change_nothing(tmp_path: Path) -> None:
    """Windows whose horizon is all missing give zero gradients, no NaN, and no weight."""
    values = make_series()
    values[10:40] = np.nan
    store = make_store(tmp_path / "store", values)
    config = TrainingConfig(epochs=1, batch_size=1, learning_rate=0.05)
    setting = Setting(source=make_source(store), config=config, network="linear")

    result = make_trainer(setting, open_run(tmp_path / "run", config)).fit()

    assert result.train_loss is not None
    assert all(
        bool(t.isfinite().all()) for t in open_run(tmp_path / "run").load_last().network.values()
    )


def test_bfloat16_trains_and_keeps_float32_parameters(tmp_path: Path) -> None:
    """Autocast changes the forward pass a little, and neither parameters' nor loss's dtype."""
    exact = make_setting(tmp_path, TrainingConfig(epochs=2, batch_size=8), network="linear")
    lower = make_setting(tmp_path, replace(exact.config, precision="bfloat16"), network="linear")

    expected = make_trainer(exact, open_run(tmp_path / "exact", exact.config)).fit()
    found = make_trainer(lower, open_run(tmp_path / "lower", lower.config)).fit()

    assert found.train_loss != expected.train_loss
    assert found.train_loss == pytest.approx(expected.train_loss, rel=0.02)
    assert {t.dtype for t in open_run(tmp_path / "lower").load_last().network.values()} == {
        torch.float32
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
def test_compiled_networks_keep_their_parameters_names(tmp_path: Path) -> None:
    """A checkpoint of a compiled network fits the network that is not compiled."""
    config = TrainingConfig(epochs=1, batch_size=10, compile=True)
    setting = make_setting(tmp_path, config, network="linear")
    plain = replace(setting, config=replace(config, compile=False))

    found = make_trainer(setting, open_run(tmp_path / "compiled", config)).fit()
    expected = make_trainer(plain, open_run(tmp_path / "plain", config)).fit()

    assert found.val_mae == pytest.approx(expected.val_mae, rel=1e-3)
    make_forecaster(setting).network.load_state_dict(
        open_run(tmp_path / "compiled").load_best().network
    )


def test_the_best_checkpoint_has_the_best_parameters(tmp_path: Path) -> None:
    """Its network reaches the lowest validation error of metrics.jsonl."""
    config = replace(CONFIG, epochs=4, learning_rate=2.0, schedule=NoSchedule())
    setting = make_setting(tmp_path, config, network="linear")
    run = open_run(tmp_path / "run", config)

    result = make_trainer(setting, run).fit()

    errors = [record["val"]["mae"] for record in run.read_metrics() if record["kind"] == "epoch"]
    assert result.best_val_mae == min(errors)
    assert result.best_epoch == 1 + errors.index(min(errors))
    assert errors.index(min(errors)) < len(errors) - 1, "a case where the last is not the best"
    forecaster = make_forecaster(setting)
    forecaster.network.load_state_dict(run.load_best().network)
    summary = evaluate({"model": forecaster}, val_loader(setting))["model"].summary()
    assert summary["mae"]["mean"] == min(errors)


# -- when it ends ---------------------------------------------------------------------------------


def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    """Training ends after the given number of validations without a better error."""
    config = replace(
        CONFIG, epochs=50, learning_rate=2.0, schedule=NoSchedule(), patience=2, log_every_steps=0
    )
    setting = make_setting(tmp_path, config, network="linear")
    run = open_run(tmp_path / "run", config)

    result = make_trainer(setting, run).fit()

    errors = [record["val"]["mae"] for record in run.read_metrics()]
    assert result.stopped_early
    assert result.epochs == len(errors) == 1 + errors.index(min(errors)) + 2
    again = resume_trainer(setting, run).fit()
    assert again == result, "a finished run stays finished"


def test_max_steps_ends_training_with_a_validation_and_a_checkpoint(tmp_path: Path) -> None:
    """A run cut short in its second epoch has two epoch lines, and goes on when allowed to."""
    config = replace(CONFIG, max_steps=6, checkpoint_every_steps=0, log_every_steps=0)
    setting = make_setting(tmp_path, config)
    run = open_run(tmp_path / "run", config)

    result = make_trainer(setting, run).fit()

    assert (result.steps, result.epochs) == (6, 2)
    assert [record["step"] for record in run.read_metrics()] == [4, 6]
    assert run.load_last().position["step"] == 6
    assert resume_trainer(setting, run).fit() == result

    longer = replace(setting, config=replace(config, max_steps=None))
    assert resume_trainer(longer, run).fit().steps == 12


def test_divergence_is_told_and_the_last_good_checkpoint_kept(tmp_path: Path) -> None:
    """A loss that is not finite ends the run with one line and does not reach last.pt."""
    config = replace(CONFIG, learning_rate=1e30, loss=MSELoss(), clip_norm=0.0)
    setting = make_setting(tmp_path, config, network="linear")
    run = open_run(tmp_path / "run", config)

    with pytest.raises(RunError, match=r"diverged: .* at step .* learning rate 1e") as caught:
        make_trainer(setting, run).fit()

    assert "\n" not in str(caught.value)
    if run.last_checkpoint.exists():
        assert all(bool(t.isfinite().all()) for t in run.load_last().network.values())


def test_a_validation_without_observed_targets_is_an_error(tmp_path: Path) -> None:
    """There is no error to choose the best parameters by."""
    values = make_series()
    values[58:] = np.nan
    store = make_store(tmp_path / "store", values)
    setting = Setting(source=make_source(store), config=CONFIG)

    with pytest.raises(DataError, match="no target of the validation windows"):
        make_trainer(setting, open_run(tmp_path / "run")).fit()


@pytest.mark.parametrize("name", ["training", "validation"])
def test_a_split_without_windows_is_an_error(tmp_path: Path, name: str) -> None:
    """It is found before anything is done."""
    setting = make_setting(tmp_path)
    empty = make_loader(setting.source, range(0), 4)

    with pytest.raises(ConfigError, match=f"the {name[:3]}.* split has no window"):
        make_trainer(setting, open_run(tmp_path / "run"), **{name: empty})


def test_a_network_of_the_wrong_shape_is_an_error(tmp_path: Path) -> None:
    """The message has both shapes."""
    setting = make_setting(tmp_path, network="linear")
    forecaster = make_forecaster(setting)
    wrong = NetworkForecaster(
        LinearNet(num_targets=2), forecaster.supports, setting.source.scaler, (0,)
    )
    batch: Batch = next(iter(val_loader(setting).epoch(0)))

    with pytest.raises(ConfigError, match=r"\(6, 3, 3, 2\).*\(6, 3, 3, 1\)"):
        wrong(batch)


# -- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "every"),
    [
        ("sampled", 1),
        ("sampled", 3),
        ("sampled", 0),
        pytest.param("sampled", "by time", marks=pytest.mark.slow),
        ("dropout", 3),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, network: str, every: int | str) -> None:
    """Killed after any step or validation batch and resumed, it ends as if it never had been.

    12 steps and 9 validation batches, with accumulation, a ragged last step, a plateau that
    falls, and scheduled sampling or dropout.
    """
    options = {"checkpoint_every_steps": every}
    if every == "by time":
        options = {"checkpoint_every_steps": 0, "checkpoint_every_minutes": 1e-9}
    config = replace(CONFIG, **options)
    setting = make_setting(tmp_path, config, network=network)
    expected = trained(setting, tmp_path / "unbroken")

    for kill_after in range(1, 22):
        run = open_run(tmp_path / f"killed{kill_after}", config)
        with pytest.raises(KilledError):
            make_trainer(setting, run, Killer(kill_after)).fit()
        resume_trainer(setting, run).fit()
        assert_same_run(expected, run)


def test_a_killed_run_with_an_average_and_a_curriculum_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Killed in any step or validation batch: an average, a curriculum and RMSProp go on, too."""
    config = replace(
        CONFIG, ema_decay=0.7, curriculum_steps=4, optimizer=RMSPropOptimizer(), learning_rate=0.01
    )
    setting = make_setting(tmp_path, config, network="dropout")
    expected = trained(setting, tmp_path / "unbroken")
    last = expected.load_last()
    assert last.trained is not None
    assert not torch.equal(last.trained["linear.weight"], last.network["linear.weight"])
    for kill_after in (1, 4, 5, 6, 9, 13, 20):
        run = open_run(tmp_path / f"killed{kill_after}", config)
        with pytest.raises(KilledError):
            make_trainer(setting, run, Killer(kill_after)).fit()
        resume_trainer(setting, run).fit()
        assert_same_run(expected, run)


def test_a_resumed_run_reports_the_rate_of_its_last_step(tmp_path: Path) -> None:
    """Also before it takes a step: the line of an epoch that was killed in its validation."""
    setting, run = make_setting(tmp_path), open_run(tmp_path / "run")
    trainer = make_trainer(setting, run)
    trainer.train_step.set_learning_rate(0.0125)
    trainer.state.save(wait=True)
    assert resume_trainer(setting, run).train_step.learning_rate == 0.0125


def test_a_checkpoint_that_the_thread_cannot_write_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, at the next checkpoint or at the end, and no thread is left."""
    setting, run = make_setting(tmp_path), open_run(tmp_path / "run")

    def full(path: Path, content: object) -> None:
        del content
        raise RunError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr("pgti.training.checkpoint.write_atomically", full)
    with pytest.raises(RunError, match=r"last\.pt cannot be written: No space left on device"):
        make_trainer(setting, run).fit()
    assert not [each for each in threading.enumerate() if "checkpoint" in each.name]


def test_a_run_killed_again_and_again_gets_there(tmp_path: Path) -> None:
    """Every life of the run takes two steps or batches; the end is that of the unbroken run."""
    setting = make_setting(tmp_path)
    expected = trained(setting, tmp_path / "unbroken")
    run = open_run(tmp_path / "killed")

    lives = 0
    while True:
        lives += 1
        try:
            resume_trainer(setting, run, Killer(4)).fit()
        except KilledError:
            continue
        break

    assert lives > 4
    assert_same_run(expected, run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("after", [1, 3, 4, 5, 6, 21])
def test_a_signal_saves_and_stops(tmp_path: Path, number: signal.Signals, after: int) -> None:
    """In a step, in a validation and at the very end: saved, told, and resumed bit for bit."""
    config = replace(CONFIG, checkpoint_every_steps=0)
    setting = make_setting(tmp_path, config)
    expected = trained(setting, tmp_path / "unbroken")
    run = open_run(tmp_path / "stopped", config)
    before = {
        each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }

    with pytest.raises(Interrupted, match=f"stopped by {number.name} after step") as caught:
        make_trainer(setting, run, Signaller(after, number)).fit()

    assert caught.value.signal_number == number
    assert run.last_checkpoint.exists()
    assert {each: signal.getsignal(each) for each in before} == before
    resume_trainer(setting, run).fit()
    assert_same_run(expected, run)


def test_after_a_signal_every_step_is_recorded_once(tmp_path: Path) -> None:
    """Stopped by SIGTERM four times and resumed, the lines of steps are the unbroken run's."""
    config = replace(CONFIG, checkpoint_every_steps=0, log_every_steps=1)
    setting = make_setting(tmp_path, config)
    expected = step_records(trained(setting, tmp_path / "unbroken"))
    run = open_run(tmp_path / "stopped", config)

    for _ in range(4):
        with pytest.raises(Interrupted):
            resume_trainer(setting, run, Signaller(3, signal.SIGTERM)).fit()
    resume_trainer(setting, run).fit()

    assert [record["step"] for record in expected] == list(range(1, 13))
    assert step_records(run) == expected


def step_records(run: RunDirectory) -> list[dict[str, object]]:
    """The lines of steps, without what depends on the clock."""
    return [
        {k: v for k, v in record.items() if k not in {"seconds", "windows_per_second"}}
        for record in run.read_metrics()
        if record["kind"] == "step"
    ]


def test_a_second_sigint_does_not_wait(tmp_path: Path) -> None:
    """It is a KeyboardInterrupt at once."""
    setting = make_setting(tmp_path)
    run = open_run(tmp_path / "run")

    with pytest.raises(KeyboardInterrupt):
        make_trainer(setting, run, Signaller(3, signal.SIGINT, times=2)).fit()


def test_training_in_another_thread_installs_no_handlers(tmp_path: Path) -> None:
    """Python admits handlers in the main thread only; training works without."""
    setting = make_setting(tmp_path)
    run = open_run(tmp_path / "run")
    results = []
    thread = threading.Thread(target=lambda: results.append(make_trainer(setting, run).fit()))
    thread.start()
    thread.join()

    assert results[0].steps == 12


# -- what may be resumed --------------------------------------------------------------------------


def interrupted_run(setting: Setting, path: Path) -> RunDirectory:
    """A run that was killed after its fifth step."""
    run = open_run(path, setting.config)
    with pytest.raises(KilledError):
        make_trainer(setting, run, Killer(10)).fit()
    return run


def test_another_scaler_is_refused_without_a_change(tmp_path: Path) -> None:
    """A refusal leaves every file as it was."""
    setting = make_setting(tmp_path)
    run = interrupted_run(setting, tmp_path / "run")
    run.append_metrics({"kind": "after the checkpoint"})
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    other = replace(setting.source, scaler=Scaler(mean=(1.0,), std=(2.0,)))

    with pytest.raises(RunError, match=r"scaler\.mean"):
        resume_trainer(replace(setting, source=other), run)

    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    trainer = resume_trainer(setting, run)
    assert trainer.progress.step == run.load_last().progress.step > 0
    assert trainer.fit().steps == 12


def test_another_network_is_refused(tmp_path: Path) -> None:
    """The error names a parameter that one of them has not."""
    setting = make_setting(tmp_path)
    run = interrupted_run(setting, tmp_path / "run")

    with pytest.raises(RunError, match=r"does not fit the model: .* absent"):
        resume_trainer(replace(setting, network="linear"), run)


def test_an_interrupted_trainer_continues(tmp_path: Path) -> None:
    """In the same process, as in a notebook."""
    setting = make_setting(tmp_path)
    expected = trained(setting, tmp_path / "unbroken")
    run = open_run(tmp_path / "stopped")
    trainer = make_trainer(setting, run, Signaller(5, signal.SIGINT))
    with pytest.raises(Interrupted):
        trainer.fit()

    assert trainer.fit().steps == 12
    assert_same_run(expected, run)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    """A truncated last.pt is refused, and left as it is."""
    setting = make_setting(tmp_path)
    run = interrupted_run(setting, tmp_path / "run")
    content = run.last_checkpoint.read_bytes()
    run.last_checkpoint.write_bytes(content[: len(content) // 2])

    with pytest.raises(RunError, match=r"last.pt is damaged") as caught:
        resume_trainer(setting, run).fit()
    assert "\n" not in str(caught.value)


def test_metrics_shorter_than_the_checkpoint_says_are_refused(tmp_path: Path) -> None:
    """Somebody changed the file: going on would leave a hole in it."""
    setting = make_setting(tmp_path)
    run = interrupted_run(setting, tmp_path / "run")
    run.metrics_file.write_text("")

    with pytest.raises(RunError, match="has 0 bytes and had"):
        resume_trainer(setting, run).fit()


# -- what is told ---------------------------------------------------------------------------------


def test_observers_are_told_every_line(tmp_path: Path) -> None:
    """They get what metrics.jsonl gets, and are closed at the end."""
    setting = make_setting(tmp_path)
    run = open_run(tmp_path / "run")
    listener = Listener()

    make_trainer(setting, run, listener).fit()

    assert listener.records == run.read_metrics()
    assert listener.closed
    steps = [record["step"] for record in listener.records if record["kind"] == "step"]
    epochs = [record for record in listener.records if record["kind"] == "epoch"]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert [record["epoch"] for record in epochs] == [1, 2, 3]
    assert set(epochs[0]) == {
        "kind",
        "epoch",
        "step",
        "train_loss",
        "val",
        "lr",
        "seconds",
        "windows_per_second",
    }
    assert set(epochs[0]["val"]) == {"mae", "rmse", "mape"}


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without observers the loop is silent."""
    make_trainer(make_setting(tmp_path), open_run(tmp_path / "run")).fit()

    assert capfd.readouterr() == ("", "")
