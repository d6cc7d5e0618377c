"""Hops in bfloat16, as GPUs compute them under autocast: here with the same arithmetic on a CPU."""

import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from pgti.graph import SensorGraph
from pgti.nn import DiffusionGRU, GraphGRU, Supports, chebyshev_convolution
from pgti.nn.diffusion import diffusion_convolution
from pgti.nn.execution import hop_dtype
from pgti.nn.limits import DenseLimits
from pgti.nn.stacked import read_stacked
from pgti.nn.stacked_convolution import stacked_graph_convolution
from pgti.nn.stacked_decoder import write_stacked
from pgti.nn.stacked_steps import GatedWeights

_UNIT = 2.0**-8
"""The unit roundoff of bfloat16, which has 8 bits."""


@pytest.fixture
def hops_as_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU rounds hops too; its dense operators have products in bfloat16, sparse ones do not."""
    for module in ("sparse", "diffusion"):
        monkeypatch.setattr(f"pgti.nn.{module}.hop_dtype", lambda _, dtype: dtype)


def _graph(num_nodes: int = 12) -> SensorGraph:
    """Half of all pairs of sensors, so that operators are stored dense."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(num_nodes, num_nodes, generator=generator)
    return SensorGraph(adjacency=csr_array((weights * (weights > 0.5)).numpy()))


def _supports(kind: str = "dual_random_walk", *, stacked: bool = False) -> Supports:
    supports = Supports.from_graph(_graph(), kind)
    if stacked:
        supports.dense = DenseLimits(stacked=1 << 20)
    return supports


def _run(layer: str, dtype: torch.dtype, *, lower: bool, steps: int = 6) -> dict[str, Tensor]:
    """Outputs and gradients of a layer, from the same numbers in any precision."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator)
        return values.to(dtype).requires_grad_()

    layer, is_stacked = layer.removeprefix("stacked "), layer.startswith("stacked ")
    kind = {"graph_gru": "renormalized", "chebyshev": "scaled_laplacian"}.get(layer)
    supports = _supports(kind or "dual_random_walk", stacked=is_stacked).to(dtype)
    torch.manual_seed(2)
    if layer == "diffusion_gru":
        cell = DiffusionGRU(3, 24, 2, 2).to(dtype)
        inputs = {"x": draw(steps, 12, 4, 3), **dict(cell.named_parameters())}
    elif layer == "graph_gru":
        graph_cell = GraphGRU(3, 24).to(dtype)
        inputs = {"x": draw(steps, 12, 4, 3), **dict(graph_cell.named_parameters())}
    elif layer == "chebyshev":
        inputs = {"x": draw(12, 4, steps, 20), "weight": draw(3, 20, 24), "bias": draw(24)}
    else:
        width = {"narrow": 3, "wide": 20, "wide to narrow": 20}[layer]
        out = 6 if layer == "wide to narrow" else 24
        inputs = {"x": draw(steps, 12, 4, width), "weight": draw(5, width, out), "bias": draw(out)}
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        match layer:
            case "diffusion_gru" if is_stacked:
                output = _encode_and_decode(inputs["x"], cell, supports, lower=lower)
            case "diffusion_gru":
                output = cell(inputs["x"], None, supports)[0]
            case "graph_gru":
                output = torch.stack(graph_cell(inputs["x"], None, supports))
            case "chebyshev":
                output = chebyshev_convolution(*inputs.values(), supports)
            case _ if is_stacked:
                output = _convolve(*inputs.values(), supports=supports, lower=lower)
            case _:
                output = diffusion_convolution(*inputs.values(), supports)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    output.backward(grad.to(output.dtype))
    gradients = {f"gradient of {name}": each.grad for name, each in inputs.items()}
    return {"output": output.detach(), **gradients}  # type: ignore[dict-item]


def _convolve(
    x_LNBC: Tensor, weight_HCO: Tensor, bias_O: Tensor, *, supports: Supports, lower: bool
) -> Tensor:
    """A convolution over stacked powers, the last of which is taken as learned."""
    powers_QN = supports.stacked_powers(2, torch.bfloat16 if lower else None)
    assert powers_QN is not None
    powers_NQ = powers_QN.view(supports.num_nodes, -1)
    learned_NP = powers_NQ[:, -supports.num_nodes :]
    x_NLBC = x_LNBC.transpose(0, 1)
    return stacked_graph_convolution(x_NLBC, weight_HCO, bias_O, powers_NQ, learned_NP)


def _encode_and_decode(
    x_LNBC: Tensor, cell: DiffusionGRU, supports: Supports, *, lower: bool
) -> Tensor:
    """States of a stacked layer that reads inputs, then its own forecasts; of both."""
    powers_QN = supports.stacked_powers(2, torch.bfloat16 if lower else None)
    assert powers_QN is not None
    layers = [GatedWeights.of(cell)]
    read_LNDB, state_NDB = read_stacked(x_LNBC.transpose(2, 3), None, layers, powers_QN)
    projection = torch.full((3, 24), 0.1, dtype=x_LNBC.dtype), x_LNBC.new_ones(3)
    is_fed, sums_NH = [index > 0 for index in range(len(x_LNBC))], supports.power_sums(2)
    written_LNDB, _ = write_stacked(state_NDB, None, is_fed, projection, layers, powers_QN, sums_NH)
    return torch.cat([read_LNDB, written_LNDB])


LAYERS = [
    *("narrow", "wide", "wide to narrow", "diffusion_gru", "graph_gru", "chebyshev"),
    *("stacked wide", "stacked diffusion_gru", "stacked graph_gru"),
]


def _error(lower: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference, relative to that of the exact values."""
    return float((lower.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.usefixtures("hops_as_on_gpus")
def test_hops_in_bfloat16_differ_from_float64_by_its_rounding(layer: str) -> None:
    exact = _run(layer, torch.float64, lower=False)
    lower = _run(layer, torch.float32, lower=True)
    for name, each in lower.items():
        # Measured: 0.8 to 1.1 units in outputs, up to 1.9 in gradients of recurrent weights; where
        # hops are in float32, 0.6 to 0.8 and up to 1.5.
        assert _error(each, exact[name]) < 2.5 * _UNIT, name
        assert each.dtype == torch.float32, name
    assert _error(lower["output"], exact["output"]) > 0.3 * _UNIT


@pytest.mark.parametrize("layer", ["wide", "stacked wide"])
@pytest.mark.usefixtures("hops_as_on_gpus")
def test_sums_over_time_stay_in_float32(layer: str) -> None:
    few, many = (
        _error(
            _run(layer, torch.float32, lower=True, steps=steps)["gradient of weight"],
            _run(layer, torch.float64, lower=False, steps=steps)["gradient of weight"],
        )
        for steps in (4, 400)
    )
    assert many < 1.5 * few  # a sum in bfloat16 would lose a bit and more


def test_hops_are_lower_on_gpus_alone() -> None:
    assert hop_dtype(torch.device("cuda", 0), torch.bfloat16) == torch.bfloat16
    assert hop_dtype(torch.device("cuda", 0), None) is None
    assert hop_dtype(torch.device("cpu"), torch.bfloat16) is None
