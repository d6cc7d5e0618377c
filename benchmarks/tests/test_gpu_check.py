"""`pgti-bench gpu-check`: its parts on the CPU, its CUDA branches on a fake GPU, its tables."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pgti.models import MODELS
from pgti.run.results import Machine
from pgti_bench.app import run_command
from pgti_bench.errors import BenchError
from pgti_bench.fake_device import FakeGpu
from pgti_bench.gpu_check import (
    batches,
    compiled,
    device,
    models,
    reduction,
    runner,
    steps,
    training,
)
from pgti_bench.gpu_check.parts import PARTS, Part
from pgti_bench.gpu_check.results import Check, GpuCheckResult
from pgti_bench.gpu_check.setting import Setting, relative_error


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """A rehearsed part."""
    return Setting(
        part="part",
        device=torch.device("cpu"),
        results=tmp_path / "results.jsonl",
        scratch=tmp_path,
    )


def found(setting: Setting) -> dict[str, dict[str, Any]]:
    """What was recorded, by name."""
    lines = setting.results.read_text().splitlines()
    return {line["name"]: line for line in map(json.loads, lines)}


def test_a_rehearsal_writes_the_table_and_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both say that it was one; every part has a process of its own."""
    out = tmp_path / "new" / "out"
    options = ["--rehearse", "--parts", "products", "--out-dir", str(out), "--json"]
    options += ["--scratch", str(tmp_path / "none" / "yet")]
    assert run_command(["gpu-check", *options]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((out / "gpu-check.json").read_text())
    assert content["is_rehearsal"] is True
    assert content["machine"]["versions"]["torch"] == torch.__version__
    product, *others = content["checks"]
    assert product["passed"]
    assert 0 < product["figures"]["error"] < 1e-6
    assert product["figures"]["ms"] > 0
    assert len(others) == 5
    assert all(check["passed"] for check in others)
    table = (out / "gpu-check.md").read_text()
    assert table.startswith("Rehearsal on a CPU: no figure is one of a GPU. ")
    assert "| learned graph | passed | sampled " in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["gpu-check", "--out-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gpu-check needs a GPU and this machine has no usable one: use --rehearse" in line
    assert not list(tmp_path.iterdir())


def test_unknown_parts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rehearse", "--parts", "speed", "--out-dir", str(tmp_path)]
    assert run_command(["gpu-check", *options]) == 2
    assert "there is no part 'speed': it is one of device, tests" in capsys.readouterr().err


def test_parts_that_fail_or_take_too_long_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest goes on: nothing hangs, nothing is left out without a word."""
    unknown_there = Part(module="none", limit_seconds=60, what="a part that dies")
    slow = Part(module="device", limit_seconds=0, what="a part without time")
    monkeypatch.setattr(runner, "PARTS", {"dies": unknown_there, "device": slow, "last": slow})
    result = runner.run_check(["dies", "device"], is_rehearsal=True)
    dies, late = result.checks
    assert dies.passed is False
    assert "ended with exit code 1: KeyError: 'dies'" in dies.message
    assert late.passed is False
    assert late.message == "ended at its limit of 0 s"
    assert result.failures == (dies, late)
    monkeypatch.setattr(runner, "TOTAL_SECONDS", 5)
    (left_out,) = runner.run_check(["last"], is_rehearsal=True).checks
    assert left_out.passed is False
    assert left_out.message == "left out: 5 s were left"


def test_failures_end_the_command_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = Part(module="device", limit_seconds=0, what="the device")
    monkeypatch.setitem(PARTS, "device", slow)
    options = ["--rehearse", "--parts", "device", "--out-dir", str(tmp_path)]
    assert run_command(["gpu-check", *options]) == 1
    assert "1 of 1 checks failed, the first one: device, the device" in capsys.readouterr().err
    assert "| the device | FAILED | ended at its limit" in (tmp_path / "gpu-check.md").read_text()


def test_an_error_is_a_failure_with_its_place(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken GPU ends the part, since every later call would fail; most errors break none."""
    with setting.guard("broken"):
        raise ValueError("seven  is\nnot eight")
    check = found(setting)["broken"]
    assert check["passed"] is False
    assert check["message"].startswith("ValueError: seven is not eight (")
    assert ", test_gpu_check.py:" in check["message"]
    with FakeGpu() as gpu:
        setting.device = gpu.device
        with setting.guard("refused"):
            raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasGemmEx")

        def fail(_: object) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr("pgti_bench.gpu_check.setting.synchronize", fail)
        with (
            pytest.raises(BenchError, match="lost left the GPU unusable"),
            setting.guard("lost"),
        ):
            fail(None)
    assert [found(setting)[name]["passed"] for name in ("refused", "lost")] == [False, False]


def test_every_part_can_be_loaded() -> None:
    assert all(callable(part.load()) for part in PARTS.values())
    assert runner.TOTAL_SECONDS < 480


@pytest.mark.slow
def test_batches_are_compared(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every strategy and order; one bit that differs is found."""
    batches.check(setting)
    checks = found(setting)
    assert len(checks) == 8
    assert all(check["passed"] and check["figures"]["batches"] > 40 for check in checks.values())
    setting.results.unlink()
    equal = batches._equal

    def flipped(left: Any, right: Any) -> bool:
        left.x[0, 0, 0, 0] = torch.nextafter(left.x[0, 0, 0, 0], torch.tensor(9.0))
        return equal(left, right)

    monkeypatch.setattr(batches, "_equal", flipped)
    monkeypatch.setattr(batches.itertools, "product", lambda *_: [(True, True, "last")])
    setting.scratch = setting.scratch / "other"
    setting.scratch.mkdir()
    batches.check(setting)
    (check,) = found(setting).values()
    assert check["passed"] is False


def test_models_are_compared(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that is off is found, and so is an error of one model."""
    chosen = {name: MODELS[name] for name in ("stid", "linear")}
    monkeypatch.setattr(models, "MODELS", chosen)
    models.check(setting)
    checks = found(setting)
    assert all(check["passed"] for check in checks.values())
    assert checks["stid"]["figures"]["gradients"] == 0
    assert 1e-4 < checks["stid"]["figures"]["bfloat16"] < 0.2
    assert checks["stid"]["figures"]["repeats_bitwise"]
    setting.results.unlink()
    calls = 0
    original = models._forecasts_and_gradients

    def off(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        forecasts, gradients = original(*args, **kwargs)
        return forecasts, gradients * (1.001 if calls == 2 else 1.0)

    monkeypatch.setattr(models, "_forecasts_and_gradients", off)
    models.check(setting)
    assert not found(setting)["stid"]["passed"]
    assert found(setting)["linear"]["passed"]


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_models_are_compared(setting: Setting) -> None:
    """A rehearsal traces and differentiates them; a break of the graph would be a failure."""
    compiled.check(setting)
    check = found(setting)["stid"]
    assert check["passed"]
    assert check["figures"]["graph_breaks"] == 0
    assert check["figures"]["gradients"] < 1e-5


def test_recorded_steps_are_compared(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where none is recorded; a parameter that is off is found, and a reason said."""
    models._compare_recorded(setting, "stid", 5, 2)
    (check,) = found(setting).values()
    assert check["passed"]
    assert check["figures"] == {"parameters": 0, "bitwise": True, "usual_repeats": True}
    monkeypatch.setattr(
        models.TrainStep, "explain_to", lambda _, log: log("the network reads a number")
    )
    setting.results.unlink()
    models._compare_recorded(setting, "stid", 5, 2)
    (check,) = found(setting).values()
    assert check["passed"] is False
    assert check["message"] == "the network reads a number"


@pytest.mark.slow
def test_the_gpu_part_of_measurements_runs_on_a_fake_gpu(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies from pinned memory, products in TF32, steps in every precision with their peak."""
    (case,) = [steps._case("stid", 20, 2, layers=1)]
    monkeypatch.setattr(steps, "_cases", lambda _: [case])
    monkeypatch.setattr(device, "_LAUNCHES", 20)
    sizes = {1 << 30: 1 << 12, 8192: 64}
    monkeypatch.setattr(Setting, "size", lambda _self, full, _small: sizes.get(full, full))
    with FakeGpu() as gpu:
        setting.device = gpu.device
        device.check(setting)
        steps.check(setting)
    checks = found(setting)
    assert not [check for check in checks.values() if check["passed"] is False], checks
    assert {"copy from pinned memory", "copy from pageable memory"} <= set(checks)
    assert checks["copy on the device"]["figures"]["gb_per_s"] > 0
    assert {"float32_ms", "tf32_mib", "bfloat16_ms", "no_graphs_ms"} <= set(
        checks[case.name]["figures"]
    )


def test_waits_are_counted_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA's debug mode warns of them, and not of itself; on a CPU nothing is watched."""
    modes: list[Any] = []

    def set_mode(mode: Any) -> None:
        modes.append(mode)
        warnings.warn(
            "Synchronization debug mode is a prototype feature and does not yet detect all "
            "synchronizing operations",
            stacklevel=1,
        )

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with training.watch_waits(torch.device("cuda", 0)) as waits:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert modes == ["warn", 0]
    ((line, count),) = waits.items()
    assert line.startswith("test_gpu_check.py:")
    assert count == 2
    with training.watch_waits(torch.device("cpu")) as waits:
        pass
    assert not waits


@pytest.fixture
def _trained(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training part with one model."""
    monkeypatch.setattr(training, "MODELS", {"dcrnn": MODELS["dcrnn"]})
    monkeypatch.setattr(
        Setting, "size", lambda _self, _full, small: ["dcrnn"] if "gru" in str(small) else small
    )
    training.check(setting)


@pytest.mark.slow
@pytest.mark.usefixtures("_trained")
def test_training_is_resumed_and_runs_in_a_group_of_one(setting: Setting) -> None:
    """The rehearsal: gloo in place of NCCL."""
    checks = found(setting)
    assert not [check for check in checks.values() if check["passed"] is False], checks
    assert checks["waits in a step of dcrnn"]["figures"] == {"steps": 4, "waits": 0}
    assert checks["resumed, deterministic on"]["figures"]["largest_difference"] == 0
    assert checks["one rank over NCCL"]["figures"]["communicator"] == "TorchCommunicator"
    assert checks["an epoch of dcrnn"]["figures"]["epoch_seconds"] > 0
    assert not torch.distributed.is_initialized()


def test_gradients_travel_as_those_of_several_ranks(setting: Setting) -> None:
    """The rehearsal: gloo in place of NCCL, and a request to stop arrives in its own step."""
    reduction.check(setting)
    checks = found(setting)
    assert list(checks) == ["gradients in one message", "gradients in buckets"]
    for check in checks.values():
        assert check["passed"], check
        assert check["figures"] == {"bitwise": True, "waits": 0, "stop_arrived": "[7]"}


def test_tables_say_what_was_measured_failed_and_left_out() -> None:
    result = GpuCheckResult(
        date="2026-01-02",
        device="NVIDIA H200",
        driver="driver 570.1, CUDA 12.9",
        is_rehearsal=False,
        machine=Machine.here(),
        seconds=321.4,
        checks=(
            Check(part="steps", name="dcrnn", figures={"ms": 12.3456, "mib": None, "windows": 64}),
            Check(part="models", name="gru", passed=False, figures={"error": 0.5, "bits": False}),
            Check(part="models", name="stid", passed=True, message="a|b"),
            Check(part="peer", name="layer", message="not installed"),
        ),
    )
    table = result.markdown()
    assert table.startswith("2026-01-02, NVIDIA H200 (driver 570.1, CUDA 12.9); python ")
    assert "321 s; 3 of 4 without a fault." in table
    assert "### steps\n\n| check | outcome | figures |\n|---|---|---|\n" in table
    assert "| dcrnn | measured | ms 12.3, windows 64 |" in table
    assert "| gru | FAILED | error 0.5, bits no |" in table
    assert "| stid | passed | a/b |" in table
    assert "| layer | left out | not installed |" in table


def test_relative_errors_are_those_of_float64() -> None:
    exact = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative_error(torch.tensor([3.0, 4.5]), exact) == pytest.approx(0.1)
    assert relative_error(exact.float(), exact) == 0
