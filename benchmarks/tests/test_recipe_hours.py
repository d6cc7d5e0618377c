"""`pgti-bench recipes`: what kernels compute and move, the rule, and what the files say by it."""

import json

import pytest
import torch

from pgti.datasets import find_recipe, recipe_names
from pgti.memory import LiveBytes
from pgti.nn.csr import csr_matrix
from pgti_bench.app import run_command
from pgti_bench.fake_device import FakeGpu, FakeStepSpec, fake_step
from pgti_bench.work import Device, Watched, Work, estimate_seconds


def test_arithmetic_and_traffic_of_kernels() -> None:
    """Two operations for each multiplication; what is read, and what is written."""
    work = Work()
    with FakeGpu() as gpu:
        one, other = torch.empty(2, 3, device="cuda"), torch.empty(3, 4, device="cuda")
        rows, bias = torch.empty(2, dtype=torch.long, device="cuda"), torch.empty(4, device="cuda")
        with gpu.checked(work):
            product = one @ other
            product += bias.expand(2, 4)
            product.copy_(product.T.contiguous().T)
            other.index_select(0, rows)
    assert work.kernels == [
        (48, 4 * (6 + 12 + 8)),
        (0, 4 * (8 + 4 + 8)),
        (0, 4 * (8 + 8)),
        (0, 4 * (8 + 8)),
        (0, 4 * (8 + 8) + 8 * 2),
    ]
    assert not work.unknown


def test_a_sparse_product_reads_a_row_for_each_entry() -> None:
    work = Work()
    matrix = csr_matrix(torch.arange(7), torch.arange(6), torch.ones(6))
    with Watched(work):
        matrix @ torch.ones(6, 10)
    (kernel,) = [each for each in work.kernels if each[0]]
    assert kernel == (2 * 6 * 10, 6 * (40 + 4 + 4) + 4 * 60)


def test_the_rule() -> None:
    """Launches, or the kernels one after the other, each by arithmetic or by traffic."""
    work = Work(kernels=[(8.0, 1.0), (1.0, 8.0)])
    work.by_kind["dense"] = 2
    device = Device(name="made", flops=4, bytes_per_second=2, flops_share=0.5, bytes_share=1.0)
    assert estimate_seconds(work, device) == 8 / 2 + 8 / 2
    slow = Device(name="made", flops=4, bytes_per_second=2, launch_seconds=10)
    assert estimate_seconds(work, slow) == 20


@pytest.mark.parametrize(("model", "num_nodes"), [("stid", 5), ("stid", 250), ("gru", 5)])
def test_a_fake_step_computes_what_a_real_one_does(model: str, num_nodes: int) -> None:
    """The same arithmetic, also by oneDNN, and on the CPU the memory that `LiveBytes` finds."""
    spec = FakeStepSpec(model=model, num_nodes=num_nodes, batch_size=3)
    fake, real = Work(), Work()
    with FakeGpu() as gpu:
        step = fake_step(spec)
        step.take()
        with gpu.checked(fake):
            step.take()
    step = fake_step(spec, torch.device("cpu"))
    step.take()
    with LiveBytes() as live, Watched(real):
        step.take()
    assert real.flops == pytest.approx(fake.flops, rel=0.03)  # cuDNN's layers by a formula
    assert real.peak_bytes == live.peak_bytes
    assert fake.peak_bytes > 0


def test_a_recipe_states_what_the_command_estimates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is out of date where its network computes something else now."""
    cpu = Device(name="made", flops=1e30, bytes_per_second=1e30)
    monkeypatch.setattr("pgti_bench.recipe_hours.measure_cpu", lambda: cpu)
    command = ["recipes", "--recipes", "metr-la/stid", "--check-cpu", "--json"]
    assert run_command(command) == 0
    content = json.loads(capsys.readouterr().out)
    (found,), (check,) = content["recipes"], content["checks"]
    assert found["hours"] == pytest.approx(find_recipe("metr-la/stid").estimated_hours, rel=0.1)
    assert (found["batch_size"], found["steps"]) == (32, 750)
    assert found["step_seconds"] >= 6e-6 * found["launches"]
    # With such a CPU launches alone take time.
    assert 1e-4 < check["estimated_seconds"] < 1e-2
    assert check["measured_seconds"] > 0
    assert run_command(["recipes", "--gpu", "abacus"]) == 2
    assert "gpu is 'abacus'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_recipe_states_what_the_command_estimates(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipes", "--json"]) == 0
    found = {
        each["recipe"]: each["hours"] for each in json.loads(capsys.readouterr().out)["recipes"]
    }
    stated = {name: find_recipe(name).estimated_hours for name in recipe_names()}
    assert found == {name: pytest.approx(hours, rel=0.1) for name, hours in stated.items()}
