"""Affine maps by oneDNN, against float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pgti.nn import Linear, linear
from pgti.nn.linear import uses_onednn


def gradients(x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """The map, and the gradients of a weighted sum of it."""
    wanted = [each.requires_grad_() for each in (x, weight, bias) if each is not None]
    result = linear(x, weight, bias)
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result.dtype)
    return [result, *torch.autograd.grad(result, wanted, weights)]


@pytest.mark.parametrize("shape", [(3, 2500, 24), (7500, 24)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_values_and_gradients_are_those_of_float64(
    shape: tuple[int, ...], has_bias: bool, is_transposed: bool
) -> None:
    """Of rows enough for oneDNN, where the gradient of the weight is a sum of two parts or more.

    The weight may be the transpose of a tensor; its gradient then has that layout, uncopied.
    """
    generator = torch.Generator().manual_seed(2)
    x, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (shape, (70, 24), (70,))
    )
    if is_transposed:
        weight = weight.t().contiguous().t()
    exact = gradients(x, weight, bias if has_bias else None)
    single = [each.detach().float() for each in (x, weight, bias)]
    found = gradients(single[0], single[1], single[2] if has_bias else None)
    for mine, right in zip(found, exact, strict=True):
        assert (mine - right).abs().max() < 1e-5 * right.abs().max()
    if uses_onednn(single[0]):
        assert found[2].stride() == single[1].stride()


@pytest.mark.skipif(not uses_onednn(torch.empty(1)), reason="needs oneDNN on an x86 processor")
def test_oneDNN_is_used_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: N802 - its name
    """Above the limit, in float32, without autocast; its bits repeat, and with gradients too."""
    layer, x = Linear(128, 128), torch.randn(100, 128)
    first = layer(x)
    assert first.grad_fn is not None
    assert first.grad_fn.name() == "_LinearBackward"
    assert torch.equal(layer(x), first)
    with torch.no_grad():
        assert torch.equal(layer(x), first)
    monkeypatch.setattr(functional, "linear", lambda *_: "torch")
    assert layer(x[:10]) == "torch"
    assert linear(x.double(), layer.weight, layer.bias) == "torch"
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x) == "torch"


def test_a_bias_learns_alone() -> None:
    """With a frozen weight, from inputs that need no gradient."""
    layer = Linear(128, 128)
    layer.weight.requires_grad_(False)
    layer(torch.randn(100, 128)).sum().backward()
    assert layer.bias.grad is not None
    assert torch.equal(layer.bias.grad, torch.full((128,), 100.0))


@pytest.mark.skipif(not uses_onednn(torch.empty(1)), reason="needs oneDNN on an x86 processor")
def test_a_second_derivative_is_refused() -> None:
    """It would be silently wrong."""
    layer, x = Linear(128, 128), torch.randn(100, 128, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


@pytest.mark.skipif(not uses_onednn(torch.empty(1)), reason="needs oneDNN on an x86 processor")
@pytest.mark.parametrize("rows", [slice(None), slice(0, 9000, 3)])
def test_onednn_never_sees_a_second_factor_with_gaps(
    monkeypatch: pytest.MonkeyPatch, rows: slice
) -> None:
    """With one, a slice of a larger tensor, a product takes a thousand times as long."""
    product, seen = torch.ops.mkldnn._linear_pointwise, []

    def spy(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        seen.append(weight.is_contiguous() or weight.t().is_contiguous())
        return product(x, weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(9000, 48, generator=generator)[rows, 12:36]
    weight = torch.randn(70, 48, generator=generator)[:, 24:]
    found = gradients(x, weight, None)
    exact = gradients(x.detach().double(), weight.detach().double(), None)
    assert len(seen) >= 3  # forward, into x, and the parts of the sum into the weight
    assert all(seen)
    for mine, right in zip(found, exact, strict=True):
        assert (mine - right).abs().max() < 1e-5 * right.abs().max()
