"""Weights of GPT-2 from local files in the format of Hugging Face; nothing in them is run."""

import json
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pgti.errors import ConfigError

__all__ = ["GPT2_SETTINGS", "read_gpt2_weights"]

GPT2_SETTINGS: dict[str, object] = {
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
}
"""What `config.json` says of GPT-2 as it was published, where it bears on the function."""

_FILES = ("model.safetensors", "pytorch_model.bin")
_PREFIX = "transformer."  # of every name, where a model with a head was saved


def read_gpt2_weights(path: str, names: Collection[str], heads: int) -> dict[str, Tensor]:
    """Some tensors of a GPT-2.

    Args:
        path: a file `*.safetensors`, or one that `torch.save` wrote, which is read with
            `weights_only`; or a directory with `model.safetensors` or `pytorch_model.bin`, and
            perhaps `config.json`.
        names: of the tensors, as `GPT2Model` has them.
        heads: attention heads that `config.json` must agree with; no weight tells how many.

    Returns:
        The tensors by name.

    Raises:
        ConfigError: if there is no such file or directory, it cannot be read, lacks a tensor, or
            is of a network that computes something else.
    """
    file = Path(path)
    if file.is_dir():
        _check_settings(file / "config.json", {**GPT2_SETTINGS, "n_head": heads})
        file = _file_in(file)
    elif not file.is_file():
        raise ConfigError(
            f"weights is {path!r}: there is no such file or directory; give GPT-2 weights in the "
            "Hugging Face format, or leave it empty to begin with random ones"
        )
    read = _read_safetensors if file.suffix == ".safetensors" else _read_pickled
    found = read(file, names)
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigError(
            f"weights {str(file)!r} has no tensor {missing[0]!r}: it must hold a GPT-2 of at least "
            "gpt_layers layers"
        )
    return found


def _file_in(directory: Path) -> Path:
    for name in _FILES:
        if (directory / name).is_file():
            return directory / name
    raise ConfigError(
        f"weights is {str(directory)!r}: the directory must hold {' or '.join(_FILES)}, whole and "
        "not in parts"
    )


def _check_settings(file: Path, expected: Mapping[str, object]) -> None:
    """Refuse settings with which the weights would mean another function; none are fine."""
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(f"weights: {str(file)!r} is no JSON object that can be read")
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise ConfigError(
                f"weights: {str(file)!r} says {name} is {settings[name]!r}, and the model has "
                f"{value!r}: they must be the same"
            )


def _read_safetensors(file: Path, names: Collection[str]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - comes with transformers

    try:
        with safe_open(file, framework="pt") as opened:
            stored = {key.removeprefix(_PREFIX): key for key in opened.keys()}  # noqa: SIM118
            return {name: opened.get_tensor(stored[name]) for name in names if name in stored}
    except (OSError, SafetensorError):
        raise ConfigError(
            f"weights {str(file)!r} is no safetensors file that can be read"
        ) from None


def _read_pickled(file: Path, names: Collection[str]) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError):
        loaded = None
    if not isinstance(loaded, dict) or not all(isinstance(each, str) for each in loaded):
        raise ConfigError(
            f"weights {str(file)!r} is no file of named tensors, and of nothing else, that "
            "torch.load can read"
        )
    found = {key.removeprefix(_PREFIX): value for key, value in loaded.items()}
    return {name: found[name] for name in names if isinstance(found.get(name), Tensor)}
