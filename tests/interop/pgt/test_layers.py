"""Layers of PyTorch Geometric Temporal as models: what they compute, and what is refused.

`direct_layers` calls each layer without this package. PGT is installed by `make setup`: where it is
not, these tests fail.
"""

import importlib
import subprocess
import sys
import types
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError, MissingExtraError
from pgti.graph import SensorGraph, from_dense
from pgti.interop.pgt import PGT_LAYERS, load_pgt_state_dict, wrap_pgt_layer
from pgti.interop.pgt.layers.astgcn import largest_eigenvalue
from pgti.interop.pgt.layers.dcrnn import LegacyDCRNN, LegacyDCRNNConfig
from pgti.interop.pgt.layers.forecaster import PgtForecaster
from pgti.interop.pgt.layers.models import _REFUSED
from pgti.interop.pgt.package import import_pgt, pgt_layer_class
from pgti.models import (
    MODELS,
    build_config,
    build_model,
    model_entry,
    num_parameters,
)
from pgti.nn import Supports

from .direct_layers import (
    CASES,
    CHANNELS,
    INPUT_STEPS,
    NUM_NODES,
    SHAPE,
    VARIANTS,
    DirectLayer,
    graph,
)

BATCH = 3
ALL = {**{name: (name, case) for name, case in CASES.items()}, **VARIANTS}


@pytest.fixture(autouse=True, scope="module")
def _pgt() -> None:
    """Imported once, as every test needs it."""
    import_pgt()


def build_forecaster(
    name: str, case: DirectLayer, seed: int = 0, **options: object
) -> PgtForecaster:
    """A model in evaluation mode, every parameter away from its initial value."""
    torch.manual_seed(seed)
    model = build_model(f"pgt:{name}", {**case.options, **options}, SHAPE)
    assert isinstance(model, PgtForecaster)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def inputs() -> Tensor:
    """[B, L, N, C]."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(BATCH, INPUT_STEPS, NUM_NODES, CHANNELS, generator=generator)


def supports_of(sensors: SensorGraph | None = None) -> Supports:
    return Supports.from_graph(sensors or graph(), "none")


def forecast_directly(
    model: PgtForecaster, name: str, case: DirectLayer, x: Tensor, edges: Supports
) -> Tensor:
    """Forecasts of a layer of the same parameters, made and called without this package."""
    layer = case.make(getattr(import_pgt("nn"), name))
    layer.load_state_dict(model.layer.state_dict())
    layer.eval()
    if name == "AGCRN":
        layer.embedding_of_the_model = model.embedding
    forecasts = []
    for x_LNC in x:
        features_NW = case.run(layer, x_LNC, edges.edge_index, edges.edge_weight)
        if model.regression is not None:
            features_NW = features_NW @ model.regression.weight.T + model.regression.bias
        # Of each sensor: the targets of the first step, of the second, ...
        forecasts.append(features_NW.reshape(NUM_NODES, SHAPE.horizon, -1).permute(1, 0, 2))
    return torch.stack(forecasts)


def test_every_layer_is_here() -> None:
    """All that PGT exports can be trained, or is refused with a reason."""
    exported = import_pgt("nn")
    layers = {
        name
        for name, each in vars(exported).items()
        if isinstance(each, type) and each.__module__.startswith("torch_geometric_temporal")
    }
    assert layers - set(_REFUSED) == set(PGT_LAYERS) == set(CASES)
    assert list(PGT_LAYERS) == sorted(PGT_LAYERS)


@pytest.mark.parametrize("name", sorted(ALL))
def test_forecasts_are_those_of_the_layer_called_directly(name: str) -> None:
    """Of a batch, against sample by sample and step by step; the layer's arguments are the same."""
    layer, case = ALL[name]
    model, x, edges = build_forecaster(layer, case), inputs(), supports_of()
    found = model(x, edges)
    assert found.shape == (BATCH, SHAPE.horizon, NUM_NODES, SHAPE.target_channels)
    assert found.is_contiguous()
    torch.testing.assert_close(
        found, forecast_directly(model, layer, case, x, edges), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", sorted(CASES))
def test_layers_learn_from_every_step_and_repeat(name: str) -> None:
    """Gradients are finite and reach the oldest input; a forecast is the same bits twice."""
    model, edges, x = build_forecaster(name, CASES[name]), supports_of(), inputs().requires_grad_()
    found = model(x, edges)
    assert torch.equal(model(x, edges), found)
    parameters = [each for each in model.parameters() if each.requires_grad]
    into_x, *gradients = torch.autograd.grad(
        found.square().sum(), [x, *parameters], allow_unused=name == "MTGNN"
    )
    assert all(torch.isfinite(each).all() for each in gradients if each is not None)
    assert (into_x.abs().sum(dim=(2, 3)) > 0).all()


@pytest.mark.parametrize("name", sorted(CASES))
def test_bfloat16_is_near(name: str) -> None:
    """Under autocast, which layers that cannot bear it are kept out of."""
    # The farther terms of PGT's DCRNN are large, and so are their rounding errors.
    options = {"hops": 1} if "DCRNN" in name else {}
    model, x, edges = build_forecaster(name, CASES[name], **options), inputs(), supports_of()
    exact = model(x, edges)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x, edges)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.1 * exact.std().clamp(min=0.1)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"BatchedDCRNN", "DCRNN"}))
@pytest.mark.parametrize("edges", ["none", "self loops", "one"])
def test_sparse_graphs_work(name: str, edges: str) -> None:
    """The last sensor is isolated in all of them."""
    nodes = {"none": [], "self loops": [0, 1], "one": [0]}[edges]
    targets = [1] if edges == "one" else nodes
    model = build_forecaster(name, CASES[name])
    forecast = model(inputs(), supports_of(SensorGraph.from_edges(NUM_NODES, nodes, targets)))
    assert torch.isfinite(forecast).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["BatchedDCRNN", "MSTGCN", "TGCN2"])
def test_compiled_models_are_the_same_models(name: str) -> None:
    """The layer itself is left out of compilation."""
    torch.compiler.reset()
    model, x, edges = build_forecaster(name, CASES[name]), inputs(), supports_of()
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(x, edges), model(x, edges))


def test_the_graph_is_forgotten_when_a_model_moves() -> None:
    """BatchedDCRNN compares the graph it has seen with the next one, wherever that is."""
    model = build_forecaster("BatchedDCRNN", CASES["BatchedDCRNN"])
    model(inputs(), supports_of())
    assert model.layer._cached_edge_index is not None
    assert model.to("cpu").layer._cached_edge_index is None


def test_the_eigenvalue_of_a_directed_road_is_found() -> None:
    """A chain, whose whole Laplacian no iteration gets the better of, and a loop on its way."""
    chain = torch.stack([torch.arange(299), torch.arange(1, 300)])
    assert largest_eigenvalue(chain, 300) == 1.0
    loop = torch.tensor([[10, 9, 10], [9, 10, 20]])
    # Sensors 9 and 10: out-degrees 2 and 3, two edges from 9 to 10 and one back.
    expected = np.linalg.eigvals(np.array([[2.0, -2.0], [-1.0, 3.0]]))
    found = largest_eigenvalue(torch.cat([chain, loop], dim=1), 300)
    assert found == pytest.approx(expected.real.max())


def test_the_eigenvalue_is_the_one_that_pgt_asks_for() -> None:
    """Its transform searches from a random start in float32; ours is the same at every call."""
    transforms = importlib.import_module("torch_geometric.transforms")
    data = importlib.import_module("torch_geometric.data")
    generator = torch.Generator().manual_seed(2)
    for num_nodes in (NUM_NODES, 80):
        matrix = torch.rand(num_nodes, num_nodes, generator=generator)
        edges = supports_of(from_dense(torch.where(matrix < 0.3, matrix, 0).numpy())).edge_index
        searched = transforms.LaplacianLambdaMax()(data.Data(edge_index=edges, num_nodes=num_nodes))
        assert largest_eigenvalue(edges, num_nodes) == pytest.approx(searched.lambda_max, rel=1e-4)
        again = largest_eigenvalue(edges.clone(), num_nodes)
        assert largest_eigenvalue(edges, num_nodes) == again
    module = import_pgt("nn.attention.mstgcn")
    build_forecaster("MSTGCN", CASES["MSTGCN"])(inputs(), supports_of())
    assert module.LaplacianLambdaMax is transforms.LaplacianLambdaMax


# -- what the remarks say -------------------------------------------------------------------------


def test_mstgcn_mixes_up_where_its_graph_does_not_change() -> None:
    """So it is given its edges step by step; only one sample of one channel comes out right."""
    edges, x = supports_of().edge_index, inputs().permute(0, 2, 3, 1)
    for blocks, filters, channels, samples, is_right in (
        (1, 6, 1, 1, True),
        (1, 6, 2, 1, False),
        (1, 6, 1, 2, False),
        (2, 6, 1, 1, False),
    ):
        torch.manual_seed(0)
        sizes = (blocks, channels, 3, filters, filters, 1, 3, INPUT_STEPS)
        layer = pgt_layer_class("MSTGCN")(*sizes).eval()
        found = layer(x[:samples, :, :channels], edges)
        expected = layer(x[:samples, :, :channels], [edges] * INPUT_STEPS)
        assert torch.allclose(found, expected, atol=1e-4) == is_right


@pytest.mark.parametrize("name", ["A3TGCN", "A3TGCN2"])
def test_a3tgcn_carries_no_state(name: str) -> None:
    """Steps may be exchanged, together with the weights that they have."""
    model, x, edges = build_forecaster(name, CASES[name]), inputs(), supports_of()
    before = model(x, edges)
    with torch.no_grad():
        model.layer._attention.copy_(model.layer._attention.flip(0).clone())
    torch.testing.assert_close(model(x.flip(1), edges), before)


def test_astgcn_has_no_attention_from_the_second_hop_on() -> None:
    """Its filter is (T_k . S) x as in the paper for k = 1 and no longer for k = 2."""
    layer = import_pgt("nn.attention.astgcn").ChebConvAttention(2, 2, 3, "sym", bias=False)
    edges = supports_of().edge_index
    links = torch.zeros(NUM_NODES, NUM_NODES)
    links[edges[0], edges[1]] = 1
    links.fill_diagonal_(0)
    roots = links.sum(1).pow(-0.5).nan_to_num(posinf=0)
    first = -roots[:, None] * links * roots  # 2 L / 2 - 1
    terms = [torch.eye(NUM_NODES), first, 2 * first @ first - torch.eye(NUM_NODES)]
    x, attention = torch.randn(1, NUM_NODES, 2), torch.rand(1, NUM_NODES, NUM_NODES)
    for k, is_right in ((0, True), (1, True), (2, False)):
        with torch.no_grad():
            layer._weight.zero_()
            layer._weight[k] = torch.eye(2)
        nearer = torch.eye(NUM_NODES) * attention if k == 1 else torch.eye(NUM_NODES)
        expected = (terms[k] * attention) @ nearer @ x
        found = layer(x, edges, attention)
        assert torch.allclose(found, expected, atol=1e-5) == is_right, k


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("name", ["BatchedDCRNN", "DCRNN"])
@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_pgt_dcrnn_computes_what_pgt_does(name: str, hops: int, self_loops: bool) -> None:
    """States after each input, in float64 but for PGT's degrees; PGT's state dict loads."""
    matrix = torch.from_numpy(graph().adjacency.toarray()).clone()
    # Eighths, whose sums are exact in the float32 of PGT's degrees.
    matrix = torch.ceil(matrix * 8) / 8
    matrix.fill_diagonal_(0.5 if self_loops else 0.0)
    sensors = from_dense(matrix.numpy())
    torch.manual_seed(hops)
    layer = pgt_layer_class(name)(CHANNELS, 6, hops + 1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    model = LegacyDCRNN(LegacyDCRNNConfig(hidden=6, hops=hops), SHAPE)
    load_pgt_state_dict(model, layer.state_dict())
    layer, model = layer.double(), model.double()
    x, edges = inputs().double(), supports_of(sensors)
    expected = states_of(layer, name, x, edges)
    supports = model.build_supports(sensors).double()
    found, _ = model.cell(x.permute(1, 2, 0, 3), None, supports)
    torch.testing.assert_close(found.permute(2, 0, 1, 3), expected, rtol=1e-10, atol=1e-11)


def states_of(layer: Any, name: str, x: Tensor, edges: Supports) -> Tensor:
    """[B, L, N, D]."""
    if name == "BatchedDCRNN":
        states: Tensor = layer(x, edges.edge_index, edges.edge_weight)
        return states
    samples = []
    for x_LNC in x:
        samples.append([])
        state = None
        for x_NC in x_LNC:
            state = layer(x_NC, edges.edge_index, edges.edge_weight, state)
            samples[-1].append(state)
    return torch.stack([torch.stack(sample) for sample in samples])


@pytest.mark.parametrize("name", ["BatchedDCRNN", "DCRNN"])
def test_dcrnn_refuses_graphs_of_which_it_makes_infinities(name: str) -> None:
    """Sensor 0 leads to others and none leads to it."""
    model = build_forecaster(name, CASES[name])
    sensors = SensorGraph.from_edges(NUM_NODES, [0, 1], [1, 2])
    with pytest.raises(ConfigError, match="edges that lead to sensor number 0, and none does"):
        model(inputs(), supports_of(sensors))
    sensors = SensorGraph.from_edges(NUM_NODES, [0, 1], [1, 0])
    assert torch.isfinite(model(inputs(), supports_of(sensors))).all()


# -- layers of one's own --------------------------------------------------------------------------


def test_a_layer_of_ones_own_is_used_as_it_is() -> None:
    """With arguments that the options leave out, its weights, or a class derived from it."""
    base: Any = pgt_layer_class("TGCN2")
    mine = type("Mine", (base,), {})(CHANNELS, 5, 1, improved=True)
    model = wrap_pgt_layer(mine, SHAPE)
    assert model.layer is mine
    x, edges = inputs(), supports_of()
    states = None
    for x_BNC in x.unbind(1):
        states = mine(x_BNC, edges.edge_index, edges.edge_weight, states)
    assert model.regression is not None
    torch.testing.assert_close(model(x, edges), model.regression(states))


def test_an_adaptive_aagcn_keeps_the_graph_it_was_made_with() -> None:
    """Its learnt graph is a parameter; a model by name has none."""
    edges = supports_of()
    layer = pgt_layer_class("AAGCN")(CHANNELS, 8, edges.edge_index, NUM_NODES)
    learnt = layer.gcn1.PA.clone()
    forecast = wrap_pgt_layer(layer.eval(), SHAPE)(inputs(), edges)
    assert forecast.shape == (BATCH, SHAPE.horizon, NUM_NODES, SHAPE.target_channels)
    assert torch.equal(layer.gcn1.PA, learnt)


def test_layers_that_do_not_fit_are_refused() -> None:
    """One that forecasts another number of steps, and one that is none of PGT's."""
    sizes = (2, CHANNELS, 3, 6, 6, 1, 12, INPUT_STEPS)
    with pytest.raises(ConfigError, match="MSTGCN forecasts 12 numbers of each sensor: 6 are"):
        wrap_pgt_layer(pgt_layer_class("MSTGCN")(*sizes), SHAPE)
    with pytest.raises(ConfigError, match="model 'pgt:Linear' does not exist"):
        wrap_pgt_layer(nn.Linear(2, 2), SHAPE)


# -- names and options ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PGT_LAYERS))
def test_every_layer_is_a_model_by_name(name: str) -> None:
    """Options with simple types and defaults; a model of ours that there is; its parameters."""
    entry = model_entry(f"pgt:{name}")
    assert all(each.type in (int, float, bool, str) for each in fields(entry.config))
    assert build_config(f"pgt:{name}", {}) == entry.config()
    assert PGT_LAYERS[name].replacement in {None, *MODELS}
    model = build_model(f"pgt:{name}", {}, SHAPE)
    counted = sum(each.numel() for each in model.parameters())
    assert num_parameters(f"pgt:{name}", {}, SHAPE) == counted  # without memory for them


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("pgt:TGCN3", {}, "model 'pgt:TGCN3' does not exist; did you mean 'pgt:TGCN"),
        ("pgt:tgcn2", {}, "did you mean 'pgt:TGCN2'"),
        ("pgt:zzz", {}, "'pgt:zzz' does not exist; choose one of pgt:A3TGCN, pgt:A3TGCN2"),
        ("TGCN2", {}, "model 'TGCN2' does not exist; did you mean 'pgt:TGCN2'"),
        ("pgt:GMAN", {}, "GMAN' cannot be trained, it asks for node embed.*choose one of pgt:A3T"),
        ("pgt:DConv", {}, "DConv' cannot be trained, it is a part of another layer"),
        (
            "pgt:TGCN2",
            {"hiden": 3},
            "model.hiden is not an option of pgt:TGCN2; did you mean 'hidden'",
        ),
        (
            "pgt:EvolveGCNO",
            {"hidden": 3},
            "model.hidden is not an option of pgt:EvolveGCNO, which has none",
        ),
        ("pgt:TGCN2", {"hidden": 0}, "hidden is 0: it must be at least 1"),
        ("pgt:BatchedDCRNN", {"hops": -1}, "hops is -1: it must be at least 0"),
        ("pgt:MTGNN", {"hidden": 6}, "hidden is 6: it must be a multiple of 4"),
        ("pgt:MTGNN", {"dropout": 1.0}, r"dropout is 1\.0: it must be below 1"),
        ("pgt:ASTGCN", {"normalization": "rw"}, "normalization is 'rw': it is one of none, sym"),
        ("pgt:STConv", {"kernel": 4}, "input_steps is 6 and kernel 4: STConv needs at least 7"),
    ],
)
def test_wrong_names_and_options_are_refused(
    name: str, options: dict[str, object], words: str
) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=words) as caught:
        build_model(name, options, SHAPE)
    assert "\n" not in str(caught.value)


def test_sizes_that_layers_cannot_have_are_refused() -> None:
    """EvolveGCN-H keeps as many nodes as channels, if rounding lets it."""
    small = {"calendar": (), "target_channels": 1, "target_indices": (0,)}
    base = {each.name: getattr(SHAPE, each.name) for each in fields(SHAPE)}
    with pytest.raises(ConfigError, match="EvolveGCNH needs as many nodes as channels"):
        build_model("pgt:EvolveGCNH", {}, type(SHAPE)(**{**base, "num_nodes": 3}))
    with pytest.raises(ConfigError, match="drops the axis of a single node"):
        build_model("pgt:DyGrEncoder", {}, type(SHAPE)(**{**base, **small, "num_nodes": 1}))


# -- PGT itself -----------------------------------------------------------------------------------


def test_other_models_do_not_import_pgt() -> None:
    """Neither do the options of a layer, nor the list of layers."""
    program = (
        "import sys; from pgti.cli.main import run_command; "
        "run_command(['models']); "
        "from pgti.models import build_config; build_config('pgt:TGCN2', {}); "
        "sys.exit('torch_geometric' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "pgt:TGCN2" in ended.stdout


def test_nothing_stands_in_for_torch_sparse_afterwards() -> None:
    """PGT imports it; others ask whether it is there."""
    import_pgt()
    assert not isinstance(sys.modules.get("torch_sparse"), types.ModuleType)


@pytest.mark.parametrize("missing", ["torch_geometric", "torch_geometric_temporal"])
def test_what_to_install_is_said(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words that are to be typed."""
    for name in [each for each in sys.modules if each.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    words = (
        r"PyTorch Geometric Temporal is not installed .* `pip install 'pgti\[pgt\]'` and then "
        "`pip install --no-deps torch-geometric-temporal`"
    )
    with pytest.raises(MissingExtraError, match=words):
        build_model("pgt:TGCN2", {}, SHAPE)


def test_versions_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that some version of PyG has not, and a layer that some version of PGT has not."""
    layers = import_pgt("nn")
    monkeypatch.delattr(layers, "BatchedDCRNN")
    with pytest.raises(ConfigError, match=r"0\.56\.2 has no layer BatchedDCRNN: install 0\.56\.2"):
        build_model("pgt:BatchedDCRNN", {}, SHAPE)

    def failing(name: str) -> None:
        raise ImportError(f"cannot import name 'x' from {name!r}")

    monkeypatch.setattr("pgti.interop.pgt.package.importlib.import_module", failing)
    with pytest.raises(ConfigError, match=r"cannot be imported with torch-geometric 2.* \(cannot"):
        build_model("pgt:TGCN2", {}, SHAPE)
