"""The layers of PyTorch Geometric Temporal (PGT) that can be trained here, as `pgt:LAYER`.

PGT is imported when a layer is built. The remarks were checked with version 0.56.2. Options have
this package's names: `hidden` is a layer's `out_channels`, and `hops`, how far a filter reaches,
its `K` less 1.
"""

from typing import Any, get_type_hints

from torch import nn

from pgti.interop.pgt.layers import astgcn, networks, recurrent
from pgti.interop.pgt.layers.dcrnn import LegacyDCRNN, LegacyDCRNNConfig
from pgti.interop.pgt.layers.forecaster import PgtForecaster
from pgti.models.base import ModelConfig, ModelShape
from pgti.models.registry import MODELS, ModelEntry, model_entry

__all__ = ["PGT_LAYERS", "register", "wrap_pgt_layer"]

_PREFIX = "pgt:"
_LIBRARY = "PyTorch Geometric Temporal (PGT)"


_LAYERS: tuple[tuple[type[PgtForecaster], str, str | None], ...] = (
    (recurrent.PgtA3TGCN, "known wrong: no step sees the state of the one before", "a3tgcn"),
    (recurrent.PgtA3TGCN2, "known wrong: no step sees the state of the one before", "a3tgcn"),
    (networks.PgtAAGCN, "leaves edge weights out; N x N; its learned graph is off", None),
    (recurrent.PgtAGCRN, "learns its graph, N x N, and computes it at each step", "agcrn"),
    (
        astgcn.PgtASTGCN,
        "known wrong: no attention from the second hop on; leaves edge weights out; N x N",
        "staeformer",
    ),
    (
        recurrent.PgtBatchedDCRNN,
        "known wrong: not diffusion convolution, and no decoder (pgt-dcrnn loads its checkpoints)",
        "dcrnn",
    ),
    (
        recurrent.PgtDCRNN,
        "known wrong, as BatchedDCRNN; one sample at a time, N x N at each step",
        "dcrnn",
    ),
    (networks.PgtDyGrEncoder, "gated graph convolutions, then LSTM", None),
    (
        recurrent.PgtEvolveGCNH,
        "one sample at a time; its weights start again with every window",
        None,
    ),
    (recurrent.PgtEvolveGCNO, "its weights start again with every window", None),
    (recurrent.PgtGCLSTM, "LSTM whose state is convolved", None),
    (recurrent.PgtGConvGRU, "GRU of Chebyshev filters", None),
    (recurrent.PgtGConvLSTM, "LSTM of Chebyshev filters", None),
    (recurrent.PgtLRGCN, "all edges are of one relation; leaves edge weights out", None),
    (networks.PgtMPNNLSTM, "graph convolutions of each step, then two LSTMs", None),
    (
        astgcn.PgtMSTGCN,
        "known wrong: mixes nodes and samples up where the graph is fixed, so it gets one that "
        "changes; leaves edge weights out",
        "stgcn",
    ),
    (networks.PgtMTGNN, "learns its graph, or has the store's; N x N", "mtgnn"),
    (networks.PgtSTConv, "one block of STGCN; slow: a call for every step", "stgcn"),
    (recurrent.PgtTGCN, "as TGCN2, with a copy of the graph for each sample", "tgcn"),
    (recurrent.PgtTGCN2, "convolves inputs alone, as the paper's equations do", "tgcn"),
)
"""Each layer, what is known of it, and the model of this package to use instead, if there is one.

A remark begins with "known wrong" where the layer differs from its paper.
"""


PGT_LAYERS: dict[str, ModelEntry] = {
    model.layer_name: ModelEntry(
        get_type_hints(model)["config"], model, "a layer of PGT", remark, replacement, _LIBRARY
    )
    for model, remark, replacement in _LAYERS
}
"""The layers by PGT's names."""

_PARTS = (
    "AVWGCN", "BatchedDConv", "ChebConvAttention", "DConv", "GraphAAGCN", "GraphConstructor",
    "MixProp", "SpatioTemporalAttention", "SpatioTemporalEmbedding", "TemporalConv",
)  # fmt: skip
_REFUSED = {
    **dict.fromkeys(_PARTS, "it is a part of another layer"),
    "DNNTSP": "it forecasts sets, and prints at every call",
    "GMAN": "it asks for node embeddings and for the calendar of the rows to forecast",
    "HeteroGCLSTM": "it is for graphs with nodes of several types",
}


def register() -> None:
    """Add the layers, and `pgt-dcrnn`, to the models; the entry point `pgti.models` names this."""
    MODELS.register(
        "pgt-dcrnn",
        ModelEntry(
            LegacyDCRNNConfig, LegacyDCRNN, "as PyTorch Geometric Temporal computes; not DCRNN"
        ),
    )
    for name, entry in PGT_LAYERS.items():
        MODELS.register(_PREFIX + name, entry)
    choice = f"choose one of {', '.join(_PREFIX + name for name in PGT_LAYERS)}"
    for name, reason in _REFUSED.items():
        MODELS.refuse(_PREFIX + name, f"cannot be trained, {reason}: {choice}")


def wrap_pgt_layer(layer: nn.Module, shape: ModelShape) -> PgtForecaster:
    """A forecaster around a layer of PGT that you built yourself, trained or not.

    For arguments that the options leave out, and for weights that exist already:

        pgti.train(store, run, model=lambda shape: wrap_pgt_layer(
            TGCN2(shape.input_channels, 64, batch_size=1, improved=True), shape))

    Args:
        layer: of a class in `PGT_LAYERS`, or derived from one. It must be for the input channels,
            steps and nodes of `shape`, and forecast H * C_out numbers if it ends in forecasts.
        shape: sizes of the data.

    Raises:
        ConfigError: another class, or a layer of other sizes.
    """
    names = [each.__name__ for each in type(layer).__mro__]
    name = next((each for each in names if each in PGT_LAYERS), names[0])
    model: Any = model_entry(_PREFIX + name).model
    forecaster: PgtForecaster = model(ModelConfig(), shape, layer)
    return forecaster
