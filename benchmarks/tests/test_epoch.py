"""An epoch with each batching, measured in turn."""

import json
from pathlib import Path
from typing import Any

import pytest

from pgti.errors import ConfigError
from pgti_bench import epoch
from pgti_bench.app import run_command
from pgti_bench.epoch import measure_epochs
from pgti_bench.errors import BenchError

from .in_process_commands import PEAK_BYTES, InProcessCommands

TINY = ("--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
        "--windows.horizon", "2", "--batch-size", "16")  # fmt: skip


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def in_process(monkeypatch: pytest.MonkeyPatch, *killed: str) -> InProcessCommands:
    commands = InProcessCommands(killed)
    monkeypatch.setattr(epoch, "run_limited", commands)
    return commands


def batchings_of(commands: InProcessCommands) -> list[str]:
    return [line[line.index("--batching") + 1] for line in commands.ran]


def test_batchings_take_turns(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs once a round, and another one begins the next round."""
    commands = in_process(monkeypatch)
    result = measure_epochs(store, TINY, batching=("index", "device"), rounds=3)
    assert batchings_of(commands) == ["index", "device", "device", "index", "index", "device"]
    assert result.steps == 6
    assert [each.batching for each in result.epochs] == ["index", "device"]
    for each in result.epochs:
        assert each.windows_per_second.runs == 3
        assert 0 < each.windows_per_second.minimum <= each.windows_per_second.maximum
        assert each.seconds_to_first_step.minimum > 0
        assert each.peak_pss_bytes is not None
    index, device = (each.peak_pss_bytes for each in result.epochs)
    assert index is not None
    assert device is not None
    assert (index.minimum, index.maximum) == (PEAK_BYTES + 1, PEAK_BYTES + 5)
    assert (device.median, device.maximum) == (PEAK_BYTES + 3, PEAK_BYTES + 6)
    assert result.left_out == ()


def test_what_cannot_train_is_left_out(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried once, the others go on, and the result says why."""
    commands = in_process(monkeypatch, "device")
    result = measure_epochs(
        store, (*TINY, "--max-steps", "1"), batching=("device", "index"), rounds=2
    )
    assert batchings_of(commands) == ["device", "index", "index"]
    assert [each.batching for each in result.epochs] == ["index"]
    assert result.epochs[0].seconds.runs == 2
    assert result.left_out == (
        "device batches: pgti train did not train to the end: killed by signal 9",
    )


def test_nothing_that_can_train_is_an_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason that the command gave."""
    in_process(monkeypatch)
    with pytest.raises(BenchError, match=r'did not train to the end: .*"sgd" for --optimizer'):
        measure_epochs(store, ("--optimizer", "sgd"), batching=("index",), rounds=1)


def test_bad_arguments_are_refused(store: Path) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match=r"no batching 'fast'.*auto, index"):
        measure_epochs(store, (), batching=("index", "fast"), rounds=1)
    with pytest.raises(ConfigError, match="batching is empty"):
        measure_epochs(store, (), batching=(), rounds=1)
    with pytest.raises(ConfigError, match="rounds is 0"):
        measure_epochs(store, (), batching=("index",), rounds=0)


@pytest.mark.usefixtures("_both_forms")
def test_epochs_on_the_command_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options are those of pgti train; one epoch is trained, whatever --epochs says."""
    commands = in_process(monkeypatch)
    config = tmp_path / "run.toml"
    config.write_text("[training]\nbatch_size = 27\nepochs = 9\n[model]\nhidden = 3\n")
    options = ("--config", config, "--rounds", 1, "--batching", "index, auto", *TINY[2:8])
    page = tmp_path / "epoch.html"
    assert run("epoch", store, *options, "--plot", page, "--json") == 0
    captured = capsys.readouterr()
    result: dict[str, Any] = json.loads(captured.out.strip().splitlines()[-1])
    assert result["steps"] == 3  # 81 windows, 27 at a time
    assert [each["batching"] for each in result["epochs"]] == ["index", "auto"]
    assert "an epoch of 3 steps" in captured.out
    assert "windows per second" in page.read_text()
    assert all(line[:2] == ["train", str(store)] for line in commands.ran)


def test_a_real_process_is_measured(store: Path) -> None:
    """Its memory is its own, and the wait for the first step counts from its start."""
    result = measure_epochs(store, (*TINY, "--max-steps", "1"), batching=("index",), rounds=1)
    measured = result.epochs[0]
    assert result.steps == 1
    assert 0 < measured.seconds_to_first_step.median < measured.seconds.median
    if measured.peak_pss_bytes is not None:
        assert measured.peak_pss_bytes.median > 50 << 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batching", "fast"), "there is no batching 'fast'"),
        (("--batching", ""), "there is no batching ''"),
        (("--rounds", "0"), "rounds is 0"),
        (("--model", "lstm"), "lstm"),
        (("--model.hiden", "3"), "hiden"),
        (("--memory-budget", "much"), "memory_budget is 'much'"),
        (("--batch-size", "0"), "batch_size is 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_refusals(
    store: Path,
    options: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, and a last line with the reason, which for options of pgti train is its own."""
    in_process(monkeypatch)
    assert run("epoch", store, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]


def test_a_store_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As everywhere."""
    assert run("epoch", tmp_path / "none") == 2
    assert "is not a store" in capsys.readouterr().err
