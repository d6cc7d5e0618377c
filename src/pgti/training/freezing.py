"""Which parameters of a network training leaves as they are."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pgti.display import shorten
from pgti.errors import ConfigError, option

__all__ = ["freeze_parameters", "frozen_norms"]

_NUM_SHOWN = 12


def freeze_parameters(network: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from training.

    Args:
        network: whose parameters.
        patterns: names of parameters, or of layers for all parameters below them; `*`, `?` and
            `[...]` as in names of files, and `*` stands for dots, too.

    Raises:
        ConfigError: if a pattern names no parameter, or nothing is left to train.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        chosen = [name for name in parameters if _is_named_by(name, pattern)]
        if not chosen:
            raise ConfigError(
                f"freeze is {pattern!r}, which names no parameter of the network: it has "
                f"{shorten(list(parameters), _NUM_SHOWN)}"
            )
        for name in chosen:
            parameters[name].requires_grad_(False)
    if patterns and not any(each.requires_grad for each in parameters.values()):
        raise ConfigError(
            "freeze leaves no parameter to train: name fewer layers, or leave it out and set "
            f"{option('epochs')} to 0, which uses the weights as they are"
        )


def frozen_norms(network: nn.Module) -> list[nn.Module]:
    """Layers of batch normalization whose parameters are frozen: their statistics are, too."""
    return [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm)
        and module.affine
        and not any(each.requires_grad for each in module.parameters())
    ]


def _is_named_by(name: str, pattern: str) -> bool:
    """Whether a pattern names a parameter, or a layer that it belongs to."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
