"""Models by name, and models built from options that a user typed."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import NamedTuple

import torch
from torch import nn

from pgti.errors import ConfigError, option
from pgti.models.agcrn import AGCRN, AGCRNConfig
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, num_trainable_parameters
from pgti.models.d2stgnn import D2STGNN, D2STGNNConfig
from pgti.models.dcrnn import DCRNN, DCRNNConfig
from pgti.models.gman import GMAN, GMANConfig
from pgti.models.graph_wavenet import GraphWaveNet, GraphWaveNetConfig
from pgti.models.gru import GRU, GRUConfig
from pgti.models.heads import add_heads
from pgti.models.himnet import HimNet, HimNetConfig
from pgti.models.linear import DLinear, DLinearConfig
from pgti.models.megacrn import MegaCRN, MegaCRNConfig
from pgti.models.mtgnn import MTGNN, MTGNNConfig
from pgti.models.own import CUSTOM_MODEL, ModelFactory, OwnModel, find_own_model, own_config
from pgti.models.patchstg import PatchSTG, PatchSTGConfig
from pgti.models.st_balance import STBalance, STBalanceConfig
from pgti.models.staeformer import STAEformer, STAEformerConfig
from pgti.models.stgcn import STGCN, STGCNConfig
from pgti.models.stid import STID, STIDConfig
from pgti.models.stllm import STLLM, STLLMConfig
from pgti.models.tgcn import A3TGCN, TGCN, A3TGCNConfig, TGCNConfig
from pgti.options import parse_config
from pgti.registry import Registry

__all__ = [
    "BASELINES",
    "FITTED_BASELINES",
    "MODELS",
    "ModelEntry",
    "build_config",
    "build_model",
    "is_own_model",
    "model_entry",
    "num_parameters",
]


class ModelEntry(NamedTuple):
    """A model by name.

    Attributes:
        config: the class of its options.
        model: the class of the network, or what builds a network of the user's own.
        paper: where it was published, or what it is.
        remark: what users should know of it.
        replacement: the model to use in its place; None if there is no better one.
        library: the library whose layer it wraps and which building it imports; empty if none.
    """

    config: type[ModelConfig]
    model: type[AbstractModel] | OwnModel
    paper: str
    remark: str = ""
    replacement: str | None = None
    library: str = ""

    @property
    def reads_any_history(self) -> bool:
        """Whether the network reads `windows.history`; others see whole earlier days alone."""
        if not isinstance(self.model, type):
            return False
        return bool(
            {"history", "history_mask"} & set(inspect.signature(self.model.forward).parameters)
        )

    @property
    def description(self) -> str:
        """Paper and remark."""
        return f"{self.paper}: {self.remark}" if self.remark else self.paper


MODELS: Registry[ModelEntry] = Registry(
    "pgti.models",
    {
        "a3tgcn": ModelEntry(A3TGCNConfig, A3TGCN, "Bai et al., ISPRS IJGI 2021, arXiv 2006.11583"),
        "agcrn": ModelEntry(AGCRNConfig, AGCRN, "Bai et al., NeurIPS 2020, arXiv 2007.02842"),
        "d2stgnn": ModelEntry(D2STGNNConfig, D2STGNN, "Shao et al., PVLDB 2022, arXiv 2206.09112"),
        "dcrnn": ModelEntry(DCRNNConfig, DCRNN, "Li et al., ICLR 2018, arXiv 1707.01926"),
        "gman": ModelEntry(GMANConfig, GMAN, "Zheng et al., AAAI 2020, arXiv 1911.08415"),
        "graph-wavenet": ModelEntry(
            GraphWaveNetConfig, GraphWaveNet, "Wu et al., IJCAI 2019, arXiv 1906.00121"
        ),
        "gru": ModelEntry(GRUConfig, GRU, "Cho et al., EMNLP 2014, arXiv 1406.1078"),
        "himnet": ModelEntry(HimNetConfig, HimNet, "Dong et al., KDD 2024, arXiv 2405.10800"),
        "linear": ModelEntry(DLinearConfig, DLinear, "Zeng et al., AAAI 2023, arXiv 2205.13504"),
        "megacrn": ModelEntry(MegaCRNConfig, MegaCRN, "Jiang et al., AAAI 2023, arXiv 2211.14701"),
        "mtgnn": ModelEntry(MTGNNConfig, MTGNN, "Wu et al., KDD 2020, arXiv 2005.11650"),
        "patchstg": ModelEntry(PatchSTGConfig, PatchSTG, "Fang et al., KDD 2025, arXiv 2412.09972"),
        "st-balance": ModelEntry(STBalanceConfig, STBalance, "2026, arXiv 2605.18793"),
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

BASELINES = ("persistence", "historical-average", "seasonal-naive")
"""The forecasters that every evaluation reports beside the model; nothing in them is trained."""

FITTED_BASELINES = ("ridge", "lightgbm")
"""Those that an evaluation fits when it is asked for them."""

for _name in BASELINES:
    MODELS.refuse(
        _name, "learns nothing and is not trained: evaluation reports it beside every model"
    )
for _name in (*FITTED_BASELINES, "chronos"):
    MODELS.refuse(_name, "is a baseline: evaluate --baselines reports it beside a trained model")


_COUNTS_OF_PARTS = ("layers", "gpt_layers", "blocks", "stages", "hops", "order")
_MOST_PARTS, _MOST_WIDE = 1024, 1 << 16  # of the options of models: parts in a row, other sizes


def is_own_model(name: object) -> bool:
    """Whether a name stands for a network of the user's own: `module:Class`, or `custom`.

    A prefix that registered models share (`pgt:`) is never a module.
    """
    if not isinstance(name, str):
        return False  # of a file: the check of options refuses it
    prefix, colon, _ = name.partition(":")
    is_registered = any(each.startswith(f"{prefix}:") for each in MODELS) if colon else True
    return name == CUSTOM_MODEL or not is_registered


def model_entry(name: str, factory: ModelFactory | None = None) -> ModelEntry:
    """The model called `name`.

    Args:
        name: of the model.
        factory: the user's own class or function, in place of the one that `name` imports.

    Raises:
        ConfigError: an unknown name (with the nearest one), one that cannot be trained, such as
            that of a baseline, with the reason, or a network of the user's own that cannot be
            imported.
    """
    if factory is None:
        if not is_own_model(name):
            return _registered(name)
        if name == CUSTOM_MODEL:
            raise ConfigError(
                "model 'custom' stands for a network that no module defines: give its class or "
                f"function as model= from Python, or {option('model', 'my_models:Network')} once a "
                "module defines it"
            )
        factory = find_own_model(name)
    lines = inspect.cleandoc(factory.__doc__ or "").splitlines()  # without that of nn.Module
    label = getattr(factory, "__qualname__", "the function") if name == CUSTOM_MODEL else name
    model = OwnModel(factory, label)
    return ModelEntry(own_config(factory), model, lines[0] if lines else "a network of your own")


def _registered(name: str) -> ModelEntry:
    if name in MODELS:
        return MODELS[name]
    reason = MODELS.refusal(name)
    if reason is not None:
        raise ConfigError(f"model {name!r} {reason}")
    raise ConfigError(f"model {name!r} does not exist{_nearest_model(name)}")


def build_config(
    name: str, options: Mapping[str, object], factory: ModelFactory | None = None
) -> ModelConfig:
    """The options of model `name`, defaults where `options` says nothing.

    Args:
        name: of the model.
        options: of it.
        factory: as `model_entry`.

    Raises:
        ConfigError: an unknown model or option (with the nearest name), a value of the wrong type
            or out of range, or a required option of the user's own network is missing.
    """
    entry = model_entry(name, factory)
    for each in fields(entry.config):
        is_required = each.default is MISSING and each.default_factory is MISSING
        if is_required and each.name not in options:
            raise ConfigError(
                f"{name} requires the option {each.name}: give {option(f'model.{each.name}')}"
            )
    config = parse_config(entry.config, options, "model", owner=name)
    if factory is None and not is_own_model(name):
        _check_sizes(config)
    return config


def _check_sizes(config: ModelConfig) -> None:
    """Refuse networks that would be built for hours, before their first part is.

    Raises:
        ConfigError: naming the option, its value and the most.
    """
    for each in fields(config):
        value = getattr(config, each.name)
        most = _MOST_PARTS if each.name in _COUNTS_OF_PARTS else _MOST_WIDE
        if isinstance(value, int) and value > most:
            raise ConfigError(f"model.{each.name} is {value}: it must be at most {most}")


def build_model(
    name: str,
    options: Mapping[str, object],
    shape: ModelShape,
    *,
    factory: ModelFactory | None = None,
    is_restored: bool = False,
) -> nn.Module:
    """Model `name` for data of `shape`, with fresh weights.

    Weights are drawn from torch's generator: seed it first.

    Args:
        name: of the model.
        options: of it.
        shape: of the data.
        factory: as `model_entry`.
        is_restored: whether a state dict follows: files of pretrained weights are not read then.

    Raises:
        ConfigError: as `build_config`, or a network of the user's own cannot be built.
    """
    config = build_config(name, options, factory)
    return model_entry(name, factory).model(
        config.without_weights() if is_restored else config, shape
    )


def num_parameters(name: str, options: Mapping[str, object], shape: ModelShape) -> int:
    """Numbers that model `name` learns for data of `shape`, with its heads, without frozen ones.

    Nothing is allocated for them, unless the network is the user's own, which may compute.

    Raises:
        ConfigError: as `build_config`.
        MissingExtraError: if the model needs a library that is not installed.
    """
    with torch.device("cpu" if is_own_model(name) else "meta"):
        model = build_model(name, options, shape, is_restored=True)
        add_heads(model, shape)
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
