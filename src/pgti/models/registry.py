"""Models by name, and models built from options that a user typed."""

import difflib
from collections.abc import Mapping
from typing import NamedTuple

import torch

from pgti.errors import ConfigError
from pgti.models.agcrn import AGCRN, AGCRNConfig
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, num_trainable_parameters
from pgti.models.dcrnn import DCRNN, DCRNNConfig
from pgti.models.graph_wavenet import GraphWaveNet, GraphWaveNetConfig
from pgti.models.gru import GRU, GRUConfig
from pgti.models.linear import DLinear, DLinearConfig
from pgti.models.mtgnn import MTGNN, MTGNNConfig
from pgti.models.staeformer import STAEformer, STAEformerConfig
from pgti.models.stgcn import STGCN, STGCNConfig
from pgti.models.stid import STID, STIDConfig
from pgti.models.stllm import STLLM, STLLMConfig
from pgti.models.tgcn import A3TGCN, TGCN, A3TGCNConfig, TGCNConfig
from pgti.options import parse_config
from pgti.registry import Registry

__all__ = [
    "BASELINES",
    "MODELS",
    "ModelEntry",
    "build_config",
    "build_model",
    "model_entry",
    "num_parameters",
]


class ModelEntry(NamedTuple):
    """A model by name.

    Attributes:
        config: the class of its options.
        model: the class of the network.
        paper: where it was published, or what it is.
        remark: what users should know of it.
        replacement: the model to use in its place; None if there is no better one.
        library: the library whose layer it wraps and which building it imports; empty if none.
    """

    config: type[ModelConfig]
    model: type[AbstractModel]
    paper: str
    remark: str = ""
    replacement: str | None = None
    library: str = ""

    @property
    def description(self) -> str:
        """Paper and remark."""
        return f"{self.paper}: {self.remark}" if self.remark else self.paper


MODELS: Registry[ModelEntry] = Registry(
    "pgti.models",
    {
        "a3tgcn": ModelEntry(A3TGCNConfig, A3TGCN, "Bai et al., ISPRS IJGI 2021, arXiv 2006.11583"),
        "agcrn": ModelEntry(AGCRNConfig, AGCRN, "Bai et al., NeurIPS 2020, arXiv 2007.02842"),
        "dcrnn": ModelEntry(DCRNNConfig, DCRNN, "Li et al., ICLR 2018, arXiv 1707.01926"),
        "graph-wavenet": ModelEntry(
            GraphWaveNetConfig, GraphWaveNet, "Wu et al., IJCAI 2019, arXiv 1906.00121"
        ),
        "gru": ModelEntry(GRUConfig, GRU, "Cho et al., EMNLP 2014, arXiv 1406.1078"),
        "linear": ModelEntry(DLinearConfig, DLinear, "Zeng et al., AAAI 2023, arXiv 2205.13504"),
        "mtgnn": ModelEntry(MTGNNConfig, MTGNN, "Wu et al., KDD 2020, arXiv 2005.11650"),
        "st-llm": ModelEntry(STLLMConfig, STLLM, "Liu et al., MDM 2024, arXiv 2401.10134"),
        "staeformer": ModelEntry(
            STAEformerConfig, STAEformer, "Liu et al., CIKM 2023, arXiv 2308.10425"
        ),
        "stgcn": ModelEntry(STGCNConfig, STGCN, "Yu et al., IJCAI 2018, arXiv 1709.04875"),
        "stid": ModelEntry(STIDConfig, STID, "Shao et al., CIKM 2022, arXiv 2208.05233"),
        "tgcn": ModelEntry(TGCNConfig, TGCN, "Zhao et al., IEEE T-ITS 2020, arXiv 1811.05320"),
    },
)
"""Every model, by name; packages add theirs through the entry points `pgti.models`."""

BASELINES = ("persistence", "historical-average")
"""The forecasters that every evaluation reports beside the model; nothing in them is trained."""

for _name in BASELINES:
    MODELS.refuse(
        _name, "learns nothing and is not trained: evaluation reports it beside every model"
    )


def model_entry(name: str) -> ModelEntry:
    """The model called `name`.

    Raises:
        ConfigError: an unknown name (with the nearest one), or one that cannot be trained, such as
            that of a baseline, with the reason.
    """
    if name in MODELS:
        return MODELS[name]
    reason = MODELS.refusal(name)
    if reason is not None:
        raise ConfigError(f"model {name!r} {reason}")
    raise ConfigError(f"model {name!r} does not exist{_nearest_model(name)}")


def build_config(name: str, options: Mapping[str, object]) -> ModelConfig:
    """The options of model `name`, defaults where `options` says nothing.

    Raises:
        ConfigError: an unknown model or option (with the nearest name), or a value of the wrong
            type or out of range.
    """
    return parse_config(model_entry(name).config, options, "model", owner=name)


def build_model(
    name: str, options: Mapping[str, object], shape: ModelShape, *, is_restored: bool = False
) -> AbstractModel:
    """Model `name` for data of `shape`, with fresh weights.

    Weights are drawn from torch's generator: seed it first.

    Args:
        name: of the model.
        options: of it.
        shape: of the data.
        is_restored: whether a state dict follows: files of pretrained weights are not read then.

    Raises:
        ConfigError: as `build_config`.
    """
    config = build_config(name, options)
    return model_entry(name).model(config.without_weights() if is_restored else config, shape)


def num_parameters(name: str, options: Mapping[str, object], shape: ModelShape) -> int:
    """Numbers that model `name` learns for data of `shape`; nothing is allocated for them.

    Frozen ones are not counted.

    Raises:
        ConfigError: as `build_config`.
        MissingExtraError: if the model needs a library that is not installed.
    """
    with torch.device("meta"):
        model = build_model(name, options, shape, is_restored=True)
    return num_trainable_parameters(model)


def _nearest_model(name: str) -> str:
    """The end of an error message: the model that was probably meant, or those to choose from."""
    prefix, _, bare = name.rpartition(":")
    for each in MODELS:
        if not prefix and each.endswith(f":{bare}"):
            return f"; did you mean {each!r}?"
    same_prefix = [each for each in MODELS if each.rpartition(":")[0] == prefix]
    group = same_prefix or [each for each in MODELS if ":" not in each]
    names = {each.rpartition(":")[2].lower(): each for each in group}
    close = difflib.get_close_matches(bare.lower(), names, n=1)
    return (
        f"; did you mean {names[close[0]]!r}?" if close else f"; choose one of {', '.join(group)}"
    )
