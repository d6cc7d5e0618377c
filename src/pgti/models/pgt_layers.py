"""The layers of PyTorch Geometric Temporal (PGT) that can be trained here, as `pgt:LAYER`.

Nothing here imports PGT before a model is made. What is said of a layer was found in version
0.56.2. Options have the words of this package: `hidden` is a layer's `out_channels`, and `hops`,
how far a filter reaches, its `K` less 1.
"""

import difflib
from typing import NamedTuple

from torch import nn

from pgti.errors import ConfigError
from pgti.models.base import ModelConfig, ModelShape
from pgti.models.pgt.astgcn import ASTGCNConfig, MSTGCNConfig, PgtASTGCN, PgtMSTGCN
from pgti.models.pgt.encoders import (
    AGCRNConfig,
    DyGrEncoderConfig,
    EvolveGCNConfig,
    MPNNLSTMConfig,
    PgtAGCRN,
    PgtDyGrEncoder,
    PgtEvolveGCNH,
    PgtEvolveGCNO,
    PgtLRGCN,
    PgtMPNNLSTM,
)
from pgti.models.pgt.forecaster import PgtForecaster
from pgti.models.pgt.networks import (
    AAGCNConfig,
    MTGNNConfig,
    PgtAAGCN,
    PgtMTGNN,
    PgtSTConv,
    STConvConfig,
)
from pgti.models.pgt.recurrent import (
    HiddenConfig,
    HopsConfig,
    PgtA3TGCN,
    PgtA3TGCN2,
    PgtBatchedDCRNN,
    PgtDCRNN,
    PgtGCLSTM,
    PgtGConvGRU,
    PgtGConvLSTM,
    PgtTGCN,
    PgtTGCN2,
)

__all__ = ["PGT_LAYERS", "PGT_PREFIX", "PgtLayer", "pgt_layer", "wrap_pgt_layer"]

PGT_PREFIX = "pgt:"
"""What the name of a model begins with if it is a layer of PGT."""


class PgtLayer(NamedTuple):
    """A layer of PGT.

    Args:
        config: the class of its options.
        model: what makes it a forecaster.
        remark: one line; `known wrong` is said where it is not what its paper describes.
        ours: the model of this package to use instead: the same as published, or one of its kind.
    """

    config: type[ModelConfig]
    model: type[PgtForecaster]
    remark: str
    ours: str | None = None


PGT_LAYERS: dict[str, PgtLayer] = {
    "A3TGCN": PgtLayer(
        HiddenConfig, PgtA3TGCN, "known wrong: no step sees the state of the one before", "a3tgcn"
    ),
    "A3TGCN2": PgtLayer(
        HiddenConfig, PgtA3TGCN2, "known wrong: no step sees the state of the one before", "a3tgcn"
    ),
    "AAGCN": PgtLayer(
        AAGCNConfig, PgtAAGCN, "leaves edge weights out; N x N; its learnt graph is off"
    ),
    "AGCRN": PgtLayer(
        AGCRNConfig, PgtAGCRN, "learns its graph, N x N, and makes it at each step", "agcrn"
    ),
    "ASTGCN": PgtLayer(
        ASTGCNConfig,
        PgtASTGCN,
        "known wrong: no attention from the second hop on; leaves edge weights out; N x N",
        "staeformer",
    ),
    "BatchedDCRNN": PgtLayer(
        HopsConfig,
        PgtBatchedDCRNN,
        "known wrong: not diffusion convolution, and no decoder (pgt-dcrnn loads its checkpoints)",
        "dcrnn",
    ),
    "DCRNN": PgtLayer(
        HopsConfig,
        PgtDCRNN,
        "known wrong, as BatchedDCRNN; one sample at a time, N x N at each step",
        "dcrnn",
    ),
    "DyGrEncoder": PgtLayer(
        DyGrEncoderConfig, PgtDyGrEncoder, "gated graph convolutions, then LSTM"
    ),
    "EvolveGCNH": PgtLayer(
        EvolveGCNConfig, PgtEvolveGCNH, "one sample at a time; its weights begin anew with a window"
    ),
    "EvolveGCNO": PgtLayer(
        EvolveGCNConfig, PgtEvolveGCNO, "its weights begin anew with every window"
    ),
    "GCLSTM": PgtLayer(HopsConfig, PgtGCLSTM, "LSTM whose state is convolved"),
    "GConvGRU": PgtLayer(HopsConfig, PgtGConvGRU, "GRU of Chebyshev filters"),
    "GConvLSTM": PgtLayer(HopsConfig, PgtGConvLSTM, "LSTM of Chebyshev filters"),
    "LRGCN": PgtLayer(
        HiddenConfig, PgtLRGCN, "all edges are of one relation; leaves edge weights out"
    ),
    "MPNNLSTM": PgtLayer(
        MPNNLSTMConfig, PgtMPNNLSTM, "graph convolutions of each step, then two LSTMs"
    ),
    "MSTGCN": PgtLayer(
        MSTGCNConfig,
        PgtMSTGCN,
        "known wrong: mixes nodes and samples up where the graph is fixed, so it is told of one "
        "that changes; leaves edge weights out",
        "stgcn",
    ),
    "MTGNN": PgtLayer(
        MTGNNConfig, PgtMTGNN, "learns its graph, or has the store's; N x N", "mtgnn"
    ),
    "STConv": PgtLayer(
        STConvConfig, PgtSTConv, "one block of STGCN; slow: a call for every step", "stgcn"
    ),
    "TGCN": PgtLayer(
        HiddenConfig, PgtTGCN, "as TGCN2, with a copy of the graph for each sample", "tgcn"
    ),
    "TGCN2": PgtLayer(
        HiddenConfig, PgtTGCN2, "convolves inputs alone, as the paper's equations do", "tgcn"
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


def pgt_layer(name: str) -> PgtLayer:
    """The layer called `name` by PGT.

    Raises:
        ConfigError: one that cannot be used, with the reason, or that does not exist, with the
            nearest that does.
    """
    if name in PGT_LAYERS:
        return PGT_LAYERS[name]
    if name in _REFUSED:
        raise ConfigError(
            f"PGT's {name} cannot be trained, {_REFUSED[name]}: choose one of "
            f"{', '.join(PGT_LAYERS)}"
        )
    lower = {each.lower(): each for each in PGT_LAYERS}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = (
        f"did you mean {PGT_PREFIX + lower[close[0]]!r}?"
        if close
        else f"choose one of {', '.join(PGT_LAYERS)}"
    )
    raise ConfigError(f"PGT has no layer {name!r} that can be trained; {hint}")


def wrap_pgt_layer(layer: nn.Module, shape: ModelShape) -> PgtForecaster:
    """A forecaster around a layer of PGT that you made yourself, trained or not.

    For arguments that the options leave out, and for weights that are there already:

        pgti.train(store, run, model=lambda shape: wrap_pgt_layer(
            TGCN2(shape.input_channels, 64, batch_size=1, improved=True), shape))

    Args:
        layer: of a class in `PGT_LAYERS`, or derived from one. It must be for the input channels,
            steps and nodes of `shape`, and forecast H * C_out numbers if it ends in forecasts.
        shape: sizes of the data.

    Raises:
        ConfigError: another class, or a layer of other sizes.
    """
    for each in type(layer).__mro__:
        if each.__name__ in PGT_LAYERS:
            return PGT_LAYERS[each.__name__].model(ModelConfig(), shape, layer)
    return pgt_layer(type(layer).__name__).model(ModelConfig(), shape, layer)
