"""The fake GPU: each fault of code for a GPU is found, at its line, and what is right passes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pgti.nn.csr import csr_matrix
from pgti.nn.limits import _memory_gib
from pgti_bench.fake_device import (
    FakeGpu,
    FakeStepSpec,
    HostTensorError,
    HostWaitError,
    UnknownShapeError,
    count_launches,
)


def _scatter(x: Tensor) -> None:
    x[x > 0] = torch.ones(3, device=x.device)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "condition": lambda x: bool((x > 0).all()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to the host": lambda x: x.to("cpu", non_blocking=True),
    "list index": lambda x: x[:, [0, 1]],
    "index of the host": lambda x: x[torch.arange(2)],
    "tensor of numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "new_tensor": lambda x: x + torch.as_tensor([1.0, 2.0, 3.0], device=x.device),
    "unpinned": lambda x: torch.ones(2, 3).to(x.device, non_blocking=True),
    "copy_ unpinned": lambda x: x.copy_(torch.ones(2, 3), non_blocking=True),
    "blocking": lambda x: torch.ones(2, 3).pin_memory().to(x.device),
}
UNKNOWN: dict[str, Callable[[Tensor], object]] = {
    "nonzero": lambda x: x.nonzero(),
    "boolean index": lambda x: x[x > 0],
    "boolean assignment": _scatter,
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "where": lambda x: torch.where(x > 0),
}
MIXED: dict[str, Callable[[Tensor], object]] = {
    "add": lambda x: x + torch.ones(2, 3),
    "matmul": lambda x: x @ torch.ones(3, 4),
    "cat": lambda x: torch.cat([x, torch.ones(2, 3)]),
    "where": lambda x: torch.where(x > 0, x, torch.ones(2, 3)),
}
ALLOWED: dict[str, Callable[[Tensor], object]] = {
    "number": lambda x: x + torch.tensor(2.0),
    "masked": lambda x: x.masked_fill(x > 0, 0.0),
    "pinned": lambda x: torch.ones(2, 3).pin_memory().to(x.device, non_blocking=True),
    "pinned from the start": lambda x: x.copy_(
        torch.empty(2, 3, pin_memory=True), non_blocking=True
    ),
    "slice of pinned": lambda x: x[:1].copy_(torch.ones(2, 3).pin_memory()[:1], non_blocking=True),
    "made there": lambda x: x + torch.arange(3, device=x.device),
    "on the host alone": lambda _: (torch.ones(3)[torch.ones(3) > 0].sum() + 1).item(),
    "index": lambda x: x[torch.arange(2, device=x.device)],
}


def _run(fault: Callable[[Tensor], object]) -> None:
    with FakeGpu() as gpu:
        x = torch.empty(2, 3, device="cuda")
        with gpu.checked():
            fault(x)


@pytest.mark.parametrize("name", WAITS)
def test_waiting_for_the_gpu_is_found(name: str) -> None:
    """At the line of this file that waits."""
    with pytest.raises(HostWaitError, match=rf"test_fake_gpu.py:\d+, {WAITS[name].__name__}"):
        _run(WAITS[name])


@pytest.mark.parametrize("name", UNKNOWN)
def test_shapes_that_depend_on_data_are_found(name: str) -> None:
    with pytest.raises(UnknownShapeError, match=r"test_fake_gpu.py:\d+"):
        _run(UNKNOWN[name])


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_the_host_are_found(name: str) -> None:
    with pytest.raises(HostTensorError, match=r"test_fake_gpu.py:\d+"):
        _run(MIXED[name])


@pytest.mark.parametrize("name", ALLOWED)
def test_code_that_does_not_wait_passes(name: str) -> None:
    _run(ALLOWED[name])


class _Planted(torch.autograd.Function):
    """Waits for the GPU in its backward pass."""

    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, grad: Tensor) -> Tensor:
        assert grad.device == torch.device("cuda", 0)
        return grad * grad.sum().item()


def test_a_backward_pass_is_checked_at_its_line() -> None:
    """It sees the fake device too, and a wait in it is found there."""
    with FakeGpu() as gpu:
        x = torch.empty(2, 3, device="cuda", requires_grad=True)
        y = _Planted.apply(x).sum()  # type: ignore[no-untyped-call]
        with gpu.checked(), pytest.raises(HostWaitError, match=r"test_fake_gpu.py:\d+, backward"):
            y.backward()


def test_the_fake_gpu_looks_like_one() -> None:
    """Devices as CUDA names them, modules and autocast included; it ends with the block."""
    with FakeGpu() as gpu:
        layer = nn.Linear(3, 4).to("cuda")
        x = torch.zeros(2, 3).cuda()
        assert {layer.weight.device, x.device, torch.empty(1, device="cuda:0").device} == {
            gpu.device
        }
        assert x.is_cuda
        assert torch.zeros(1).device.type == "cpu"
        with torch.autocast("cuda", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer(x).dtype == torch.float32
    assert x.device.type == "meta"
    with pytest.raises((AssertionError, RuntimeError), match="CUDA"):
        torch.empty(1, device="cuda")


def test_launches_are_counted_by_kind() -> None:
    """Views and allocations count nothing, a CSR matrix makes a product sparse."""
    with FakeGpu() as gpu:
        x, y = torch.empty(4, 3, device="cuda"), torch.empty(3, 4, device="cuda")
        rows = torch.zeros(5, dtype=torch.int32, device="cuda")
        matrix = csr_matrix(rows, rows[:0], x.flatten()[:0])
        with gpu.checked() as launches:
            out = torch.empty_like(x)
            x.t().contiguous().view(3, 2, 2)[0].expand(5, 2, 2).unsqueeze(0)
            torch.addmm(out, matrix, x, beta=0, out=out)
            torch.cat([x @ y, (x + 1) @ y]).relu_()
    assert dict(launches.by_kind) == {"copies": 2, "sparse": 1, "dense": 2, "elementwise": 2}
    assert launches.by_name["mm"] == 2
    assert launches.total == 7


def test_a_sparse_product_has_its_shape_checked() -> None:
    with FakeGpu():
        rows = torch.zeros(5, dtype=torch.int32, device="cuda")
        matrix = csr_matrix(rows, rows[:0], torch.empty(0, device="cuda"))
        x = torch.empty(3, 2, device="cuda")
        with pytest.raises(ValueError, match="addmm of"):
            torch.addmm(torch.empty(4, 2, device="cuda"), matrix, x)


def test_a_gpu_of_the_machine_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory would bound pieces, and its graphs record steps."""
    expected = count_launches(FakeStepSpec(model="stid", num_nodes=5, batch_size=2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_device_properties", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, None)
    _memory_gib.cache_clear()
    found = count_launches(FakeStepSpec(model="stid", num_nodes=5, batch_size=2))
    assert found.total == expected.total
