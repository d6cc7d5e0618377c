"""The gated convolution over windows against torch's own convolution."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pgti.memory import LiveBytes
from pgti.nn import ChunkLimits, gated_window_convolution

from ..models.dense_reference import assert_same

FLOAT64 = torch.float64
NODES, BATCH, STEPS, CHANNELS, TAPS, WIDTH = 2, 3, 9, 3, 3, 4


def operands(steps: int = STEPS) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight and bias, with gradients."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=FLOAT64).requires_grad_()

    return draw(NODES, BATCH, steps, CHANNELS), draw(TAPS, CHANNELS, 2 * WIDTH), draw(2 * WIDTH)


def expected(x: Tensor, weight: Tensor, bias: Tensor, tanh: bool, dilation: int) -> Tensor:
    """By `conv1d`, whose layout is another."""
    rows_MCL = x.flatten(0, 1).transpose(1, 2)
    both_MGL = functional.conv1d(rows_MCL, weight.permute(2, 1, 0), bias, dilation=dilation)
    a_MDL, b_MDL = both_MGL.chunk(2, dim=1)
    z_MDL = (torch.tanh(a_MDL) if tanh else a_MDL) * torch.sigmoid(b_MDL)
    return z_MDL.transpose(1, 2).unflatten(0, x.shape[:2])


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("limit", [1 << 20, 100])
def test_convolution_and_gradients_equal_those_of_torch(
    tanh: bool, dilation: int, limit: int
) -> None:
    """With one chunk of rows and with many, for every dilation, contiguous."""
    x, weight, bias = operands()
    options: dict[str, Any] = {
        "tanh": tanh,
        "dilation": dilation,
        "limits": ChunkLimits(window=limit),
    }
    found = gated_window_convolution(x, weight, bias, **options)
    wanted = expected(x, weight, bias, tanh, dilation)
    assert found.is_contiguous()
    assert_same(found, wanted, (x, weight, bias), rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        stored_nothing = gated_window_convolution(x, weight, bias, **options)
    assert torch.equal(stored_nothing, found)


def test_evaluation_stores_nothing() -> None:
    """Without gradients, gates of few rows at a time, although the weights require gradients."""
    limits = ChunkLimits(window=1000)
    x, weight, bias = torch.randn(200, 2, 9, 4), torch.randn(3, 4, 12), torch.randn(12)
    weight.requires_grad_()
    peaks = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), LiveBytes() as memory:
            output = gated_window_convolution(x, weight, bias, limits=limits)
        peaks.append(memory.peak_bytes / output.nbytes)
    assert peaks[0] > 3
    assert peaks[1] < 1.2


@pytest.mark.parametrize("tanh", [False, True])
def test_convolution_passes_gradcheck(tanh: bool) -> None:
    """For an input whose memory lies otherwise too, with a single step of output."""
    x, weight, bias = operands(steps=TAPS)
    assert torch.autograd.gradcheck(
        lambda x, w, b: gated_window_convolution(x.transpose(0, 1), w, b, tanh=tanh),
        (x, weight, bias),
    )


def test_an_output_depends_on_its_window_alone() -> None:
    """Step l of the output on steps l, l + d, .. of the input, and on no other row."""
    x, weight, bias = operands()
    z = gated_window_convolution(x, weight, bias, dilation=2)
    for step in range(z.shape[2]):
        (gradient,) = torch.autograd.grad(z[1, 2, step].sum(), x, retain_graph=True)
        seen = {tuple(index) for index in gradient.any(dim=3).nonzero().tolist()}
        assert seen == set(itertools.product([1], [2], range(step, step + 5, 2)))


@pytest.mark.usefixtures("_both_ways")
def test_autocast_rounds_operands_alone() -> None:
    """Under bfloat16 the result is float32 and near; gradients stay near those of float32."""
    x, weight, bias = (each.detach().float().requires_grad_() for each in operands())
    exact = gated_window_convolution(x, weight, bias, tanh=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = gated_window_convolution(x, weight, bias, tanh=True)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    seed = torch.randn_like(exact)
    pairs = [(rounded, exact)]
    pairs += zip(
        torch.autograd.grad(rounded, (x, weight, bias), seed),
        torch.autograd.grad(exact, (x, weight, bias), seed),
        strict=True,
    )
    for one, other in pairs:
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.02 * other.norm()


def test_second_derivatives_are_refused() -> None:
    """Instead of being silently wrong."""
    x, weight, bias = operands()
    z = gated_window_convolution(x, weight, bias)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(z.sum(), x, create_graph=True)
