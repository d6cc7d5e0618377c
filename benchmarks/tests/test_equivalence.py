"""The equivalence study finds what is equal, and would find what is not."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pgti.batching import Batch
from pgti.batching.decoded import DecodedBatcher
from pgti_bench import equivalence
from pgti_bench.app import run_command
from pgti_bench.equivalence import measure_equivalence
from pgti_bench.errors import BenchError

from .in_process_commands import InProcessCommands

WINDOWS = ("--windows.input-steps", "3", "--windows.horizon", "2")


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings run in this process."""
    monkeypatch.setattr(equivalence, "run_limited", InProcessCommands())


def test_index_and_device_batches_change_nothing(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses step for step, validation and parameters are equal to the bit."""
    arguments = ["--models", "dcrnn", "--max-steps", "4", "--batch-size", "16", *WINDOWS, "--json"]
    assert run_command(["equivalence", str(store), *arguments]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["batching"] for each in result["trainings"]] == ["standard", "index", "device"]
    for each in result["trainings"]:
        assert each["steps"] == each["equal_losses"] == 4
        assert each["equal_validations"]
        assert each["equal_parameters"]
    assert len({each["parameters_sha256"] for each in result["trainings"]}) == 1


def test_a_difference_is_found(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inputs that are off by a ten-thousandth of a standard deviation fail the study."""
    original = DecodedBatcher.assemble

    def slightly_off(self: DecodedBatcher, *args: object) -> Batch:
        batch = original(self, *args)  # type: ignore[arg-type]
        batch.x[..., 0] += 1e-4
        return batch

    monkeypatch.setattr(DecodedBatcher, "assemble", slightly_off)
    arguments = ["--models", "dcrnn", "--max-steps", "4", "--batch-size", "16", *WINDOWS]
    arguments += ["--batching", "index"]
    assert run_command(["equivalence", str(store), *arguments]) == 1
    assert "results differ: dcrnn with index batches" in capsys.readouterr().err


def test_a_batching_that_fails_is_a_difference(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What standard batching trains, index-batching must train."""
    trained = equivalence._train

    def broken(path: Path, options: Sequence[str]) -> equivalence._Results:
        if options[-1] == "index":
            raise BenchError("there is no batch")
        return trained(path, options)

    monkeypatch.setattr(equivalence, "_train", broken)
    arguments = ["--models", "dcrnn", "--max-steps", "1", "--batch-size", "16", *WINDOWS]
    arguments += ["--batching", "index", "--json"]
    assert run_command(["equivalence", str(store), *arguments]) == 1
    captured = capsys.readouterr()
    assert "results differ: dcrnn with index batches: " in captured.err
    assert "there is no batch" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["failures"]


def test_what_cannot_be_trained_is_left_out(store: Path) -> None:
    """A model that fails is named; if all do, so is the reason."""
    good = ("--max-steps", "1", "--batch-size", "16", "--model.hidden", "2", *WINDOWS)
    bad = ("--model.hidden", "0", *WINDOWS)
    result = measure_equivalence(store, {"bad": bad, "good": good}, batchings=["index"])
    assert [each.model for each in result.trainings] == ["good", "good"]
    assert "hidden is 0" in result.left_out[0]
    with pytest.raises(BenchError, match="hidden is 0"):
        measure_equivalence(store, {"bad": bad}, batchings=["index"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "dcrnn", "--batching", "standard"], "batching 'standard' cannot be compared"),
        (["--models", "dcrnn", "--batching", "magic"], "batching 'magic' cannot be compared"),
        (["--models", ","], "model '' does not exist"),
        (["--models", "dcrn"], "did you mean 'dcrnn'"),
    ],
)
def test_wrong_studies_are_refused(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """One line and exit 2."""
    assert run_command(["equivalence", str(store), *arguments]) == 2
    assert words in capsys.readouterr().err
