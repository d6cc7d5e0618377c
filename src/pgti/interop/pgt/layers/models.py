"""The layers of PyTorch Geometric Temporal (PGT) that can be trained here, as `pgt:LAYER`.

PGT is imported when a layer is built. The remarks were checked with version 0.56.2. Options have
this package's names: `hidden` is a layer's `out_channels`, and `hops`, how far a filter reaches,
its `K` less 1.
"""

from typing import Any

from torch import nn

from pgti.interop.pgt.layers import networks, recurrent
from pgti.interop.pgt.layers.astgcn import ASTGCNConfig, MSTGCNConfig, PgtASTGCN, PgtMSTGCN
from pgti.interop.pgt.layers.dcrnn import LegacyDCRNN, LegacyDCRNNConfig
from pgti.interop.pgt.layers.forecaster import PgtForecaster
from pgti.interop.pgt.layers.recurrent import HiddenConfig, HopsConfig
from pgti.models.base import ModelConfig, ModelShape
from pgti.models.registry import MODELS, ModelEntry, model_entry

__all__ = ["PGT_LAYERS", "register", "wrap_pgt_layer"]

_PREFIX = "pgt:"
_LIBRARY = "PyTorch Geometric Temporal (PGT)"


def _layer(
    config: type[ModelConfig],
    model: type[PgtForecaster],
    remark: str,
    replacement: str | None = None,
) -> ModelEntry:
    """A layer; its remark begins with "known wrong" if it differs from its paper."""
    return ModelEntry(config, model, "a layer of PGT", remark, replacement, _LIBRARY)


PGT_LAYERS: dict[str, ModelEntry] = {
    "A3TGCN": _layer(
        HiddenConfig,
        recurrent.PgtA3TGCN,
        "known wrong: no step sees the state of the one before",
        "a3tgcn",
    ),
    "A3TGCN2": _layer(
        HiddenConfig,
        recurrent.PgtA3TGCN2,
        "known wrong: no step sees the state of the one before",
        "a3tgcn",
    ),
    "AAGCN": _layer(
        networks.AAGCNConfig,
        networks.PgtAAGCN,
        "leaves edge weights out; N x N; its learned graph is off",
    ),
    "AGCRN": _layer(
        recurrent.AGCRNConfig,
        recurrent.PgtAGCRN,
        "learns its graph, N x N, and computes it at each step",
        "agcrn",
    ),
    "ASTGCN": _layer(
        ASTGCNConfig,
        PgtASTGCN,
        "known wrong: no attention from the second hop on; leaves edge weights out; N x N",
        "staeformer",
    ),
    "BatchedDCRNN": _layer(
        HopsConfig,
        recurrent.PgtBatchedDCRNN,
        "known wrong: not diffusion convolution, and no decoder (pgt-dcrnn loads its checkpoints)",
        "dcrnn",
    ),
    "DCRNN": _layer(
        HopsConfig,
        recurrent.PgtDCRNN,
        "known wrong, as BatchedDCRNN; one sample at a time, N x N at each step",
        "dcrnn",
    ),
    "DyGrEncoder": _layer(
        networks.DyGrEncoderConfig, networks.PgtDyGrEncoder, "gated graph convolutions, then LSTM"
    ),
    "EvolveGCNH": _layer(
        recurrent.EvolveGCNConfig,
        recurrent.PgtEvolveGCNH,
        "one sample at a time; its weights start again with every window",
    ),
    "EvolveGCNO": _layer(
        recurrent.EvolveGCNConfig,
        recurrent.PgtEvolveGCNO,
        "its weights start again with every window",
    ),
    "GCLSTM": _layer(HopsConfig, recurrent.PgtGCLSTM, "LSTM whose state is convolved"),
    "GConvGRU": _layer(HopsConfig, recurrent.PgtGConvGRU, "GRU of Chebyshev filters"),
    "GConvLSTM": _layer(HopsConfig, recurrent.PgtGConvLSTM, "LSTM of Chebyshev filters"),
    "LRGCN": _layer(
        HiddenConfig, recurrent.PgtLRGCN, "all edges are of one relation; leaves edge weights out"
    ),
    "MPNNLSTM": _layer(
        networks.MPNNLSTMConfig,
        networks.PgtMPNNLSTM,
        "graph convolutions of each step, then two LSTMs",
    ),
    "MSTGCN": _layer(
        MSTGCNConfig,
        PgtMSTGCN,
        "known wrong: mixes nodes and samples up where the graph is fixed, so it gets one "
        "that changes; leaves edge weights out",
        "stgcn",
    ),
    "MTGNN": _layer(
        networks.MTGNNConfig,
        networks.PgtMTGNN,
        "learns its graph, or has the store's; N x N",
        "mtgnn",
    ),
    "STConv": _layer(
        networks.STConvConfig,
        networks.PgtSTConv,
        "one block of STGCN; slow: a call for every step",
        "stgcn",
    ),
    "TGCN": _layer(
        HiddenConfig,
        recurrent.PgtTGCN,
        "as TGCN2, with a copy of the graph for each sample",
        "tgcn",
    ),
    "TGCN2": _layer(
        HiddenConfig,
        recurrent.PgtTGCN2,
        "convolves inputs alone, as the paper's equations do",
        "tgcn",
    ),
}
"""The layers by PGT's names."""

_PARTS = "it is a part of another layer"
_REFUSED: dict[str, str] = {
    "AVWGCN": _PARTS,
    "BatchedDConv": _PARTS,
    "ChebConvAttention": _PARTS,
    "DConv": _PARTS,
    "DNNTSP": "it forecasts sets, and prints at every call",
    "GMAN": "it asks for node embeddings and for the calendar of the rows to forecast",
    "GraphAAGCN": _PARTS,
    "GraphConstructor": _PARTS,
    "HeteroGCLSTM": "it is for graphs with nodes of several types",
    "MixProp": _PARTS,
    "SpatioTemporalAttention": _PARTS,
    "SpatioTemporalEmbedding": _PARTS,
    "TemporalConv": _PARTS,
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
