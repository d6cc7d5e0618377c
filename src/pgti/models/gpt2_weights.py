"""Weights of GPT-2 from local files in the Hugging Face format; code in them is never run."""

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
"""Settings in the `config.json` of the published GPT-2 that change the function."""

_FILES = ("model.safetensors", "pytorch_model.bin")
_PREFIX = "transformer."  # of every name, in files of a model with a head


def read_gpt2_weights(path: str, names: Collection[str], heads: int) -> dict[str, Tensor]:
    """Read some tensors of a GPT-2, by name.

    Args:
        path: a file `*.safetensors`, or one that `torch.save` wrote, which is read with
            `weights_only`; or a directory with `model.safetensors` or `pytorch_model.bin`, and
            optionally `config.json`.
        names: of the tensors, as `GPT2Model` has them.
        heads: attention heads, which `config.json` must match; weights do not show them.

    Raises:
        ConfigError: the file or directory does not exist, cannot be read, lacks a tensor, or is of
            a network that computes something else.
    """
    file = Path(path)
    if file.is_dir():
        _check_settings(file / "config.json", {**GPT2_SETTINGS, "n_head": heads})
        file = _file_in(file)
    elif not file.is_file():
        raise ConfigError(
            f"weights is {path!r}: the file or directory does not exist; name GPT-2 weights in the "
            "Hugging Face format, or leave it empty for random weights"
        )
    read = _read_safetensors if file.suffix == ".safetensors" else _read_pickled
    found = read(file, names)
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigError(
            f"weights {str(file)!r} lacks the tensor {missing[0]!r}: it must be a GPT-2 of at "
            "least gpt_layers layers"
        )
    return found


def _file_in(directory: Path) -> Path:
    for name in _FILES:
        if (directory / name).is_file():
            return directory / name
    raise ConfigError(
        f"weights is {str(directory)!r}: the directory must contain {' or '.join(_FILES)}, as one "
        "file"
    )


def _check_settings(file: Path, expected: Mapping[str, object]) -> None:
    """Raise ConfigError for settings that give another function; the file may be missing."""
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(f"weights: {str(file)!r} cannot be read as a JSON object")
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise ConfigError(
                f"weights: {name} is {settings[name]!r} in {str(file)!r} and {value!r} in the "
                "model: they must be equal"
            )


def _read_safetensors(file: Path, names: Collection[str]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - comes with transformers

    try:
        with safe_open(file, framework="pt") as opened:
            stored = {key.removeprefix(_PREFIX): key for key in opened.keys()}  # noqa: SIM118
            return {name: opened.get_tensor(stored[name]) for name in names if name in stored}
    except (OSError, SafetensorError):
        raise ConfigError(f"weights {str(file)!r} cannot be read as safetensors") from None


def _read_pickled(file: Path, names: Collection[str]) -> dict[str, Tensor]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError):
        loaded = None
    if not isinstance(loaded, dict) or not all(isinstance(each, str) for each in loaded):
        raise ConfigError(
            f"weights {str(file)!r} cannot be read by torch.load as named tensors and nothing else"
        )
    found = {key.removeprefix(_PREFIX): value for key, value in loaded.items()}
    return {name: found[name] for name in names if isinstance(found.get(name), Tensor)}
