"""Heads: what any network gets for inputs that it does not read itself."""

import torch
from torch import nn

from pgti.errors import ConfigError, option
from pgti.models.base import AbstractModel
from pgti.models.covariates import CovariateHead, has_covariates
from pgti.models.network_inputs import requested_inputs
from pgti.models.recall import RecallHead, rows_of_days
from pgti.windows import ModelShape

__all__ = ["Head", "add_heads"]

Head = RecallHead | CovariateHead
"""Called with the forecast of a network, its x and what it `reads` of a batch."""

_OF_HISTORY = frozenset({"history", "history_mask"})
_OF_COVARIATES = frozenset({"future", "future_mask", "static", "static_codes"})


def add_heads(
    network: nn.Module, shape: ModelShape, *, covariates: bool = True
) -> tuple[Head, ...]:
    """Give a network a head for each kind of input that is there; returns them in order of use.

    They are its `recall_head`, if windows have whole earlier days, and its `covariate_head`, if
    there are covariates. A network of the user's own that names an input of that kind in its
    `forward` reads it itself, and gets no head for it; a model of pgti says it by `recalls_days`.
    A head draws its weights from torch's generator.

    Args:
        network: which becomes the owner of the heads' parameters.
        shape: sizes of the data.
        covariates: whether covariates are used.

    Raises:
        ConfigError: if the network cannot own them.
    """
    named = set(requested_inputs(network) or ())
    recalls = not _OF_HISTORY & named
    if isinstance(network, AbstractModel):
        recalls = network.recalls_days
    heads: list[Head] = []
    if recalls and rows_of_days(shape):
        _check_owner(network, RecallHead, "earlier days: let its forward name history")
        heads.append(RecallHead(shape))
    if covariates and has_covariates(shape) and not _OF_COVARIATES & named:
        _check_owner(
            network,
            CovariateHead,
            "what is known in advance and of the sensors: let its forward name future and static, "
            f"or leave them out with {option('windows.covariates', value=False)}",
        )
        heads.append(CovariateHead(shape))
    for head in heads:
        setattr(network, head.name, head)
    return tuple(heads)


def _check_owner(network: nn.Module, kind: type[Head], remedy: str) -> None:
    """Refuse a network whose attribute the head would hide, or that takes no submodule."""
    is_taken = not isinstance(getattr(network, kind.name, None), kind | None)
    if is_taken or isinstance(network, torch.jit.ScriptModule):
        why = f"has an attribute {kind.name} of its own" if is_taken else "is TorchScript"
        raise ConfigError(f"the network {why}, and takes no head for {remedy}")
