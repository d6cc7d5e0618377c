"""How a GPU multiplies and adds up, and whether what it computes can be repeated bit for bit."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from pgti.errors import ConfigError, option

__all__ = ["deterministic_algorithms", "float32_products", "has_tf32"]

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACES = (":4096:8", ":16:8")
"""cuBLAS repeats its results with one of these alone, says its documentation."""

_OF_GPUS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
"""Where, below `torch.backends`, torch 2.9 has `fp32_precision` in place of `allow_tf32`."""
_NEW_SETTINGS = (*_OF_GPUS, "mkldnn.matmul")
"""Those that the old settings change."""

_BFLOAT16_SUMS = "allow_bf16_reduced_precision_reduction"


def has_tf32(device: torch.device) -> bool:
    """Whether the device has TF32: a GPU of NVIDIA, from Ampere (compute capability 8.0) on."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def float32_products(device: torch.device, *, tf32: bool = False) -> Generator[None]:
    """A context that says how a GPU multiplies float32, in cuBLAS and cuDNN alike.

    torch's default is TF32 in cuDNN's convolutions and recurrent layers, and float32 in matrix
    products. Products of bfloat16 add up in float32 here; by default cuBLAS may round the sums of
    parts of a long product, such as a gradient of weights, to bfloat16. A CPU is not affected.
    Afterwards the settings are what they were.

    Args:
        device: where products are computed.
        tf32: round the operands to 10 bits of mantissa, on GPUs that have it, and add up in
            float32; without it all 23 bits count.
    """
    if device.type != "cuda":
        yield
        return
    _let_cublas_repeat()
    before = _read_settings()
    # These two are in every version of torch, and leave all its settings consistent.
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    setattr(torch.backends.cuda.matmul, _BFLOAT16_SUMS, False)
    # Without TF32 the second leaves cuDNN what `torch.backends.fp32_precision` says of all.
    for path in filter(_exists, _OF_GPUS):
        _backend(path).fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        _restore_settings(before)


def _read_settings() -> dict[str, Any]:
    matmul = torch.backends.cuda.matmul
    sums = (getattr(matmul, name, None) for name in (_BFLOAT16_SUMS, f"{_BFLOAT16_SUMS}_split_k"))
    settings: dict[str, Any] = {"sums": [each for each in sums if each is not None]}
    # torch refuses to read the old settings where the new ones say what they cannot.
    with suppress(RuntimeError):
        settings["matmul"] = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        settings["cudnn"] = torch.backends.cudnn.allow_tf32
    for path in filter(_exists, _NEW_SETTINGS):
        settings[path] = _backend(path).fp32_precision
    return settings


def _restore_settings(settings: dict[str, Any]) -> None:
    first, *others = settings["sums"]  # torch before 2.10 takes one
    setattr(torch.backends.cuda.matmul, _BFLOAT16_SUMS, (first, *others) if others else first)
    if "matmul" in settings:
        torch.set_float32_matmul_precision(settings["matmul"])
    if "cudnn" in settings:
        torch.backends.cudnn.allow_tf32 = settings["cudnn"]
    for path in filter(_exists, _NEW_SETTINGS):
        holder = _backend(path)
        if path.endswith("matmul"):
            holder.fp32_precision = "none"  # that of all torch, which may be what was read
        if holder.fp32_precision != settings[path]:
            holder.fp32_precision = settings[path]


def _exists(path: str) -> bool:
    return hasattr(_backend(path), "fp32_precision")


def _backend(path: str) -> Any:
    holder: Any = torch.backends
    for name in path.split("."):
        holder = getattr(holder, name, None)
    return holder


@contextmanager
def deterministic_algorithms(device: torch.device, *, enabled: bool) -> Generator[None]:
    """A context in which a GPU repeats every result bit for bit; a CPU always does.

    torch then chooses algorithms that repeat their results, in cuDNN and attention too, and
    refuses what has none; products with a graph leave cuSPARSE, which promises nothing.
    Afterwards the settings are what they were, but for CUBLAS_WORKSPACE_CONFIG in the environment.

    Args:
        device: where to compute.
        enabled: without it nothing changes.

    Raises:
        ConfigError: if CUBLAS_WORKSPACE_CONFIG has a value with which cuBLAS does not repeat
            its results, or had none at the first product of the process; or if something has no
            deterministic algorithm.
    """
    if not enabled or device.type != "cuda":
        yield
        return
    _let_cublas_repeat()
    workspace = os.environ[_WORKSPACE]
    if workspace not in _WORKSPACES:
        raise ConfigError(
            f"the environment has {_WORKSPACE}={workspace}, with which products on a GPU are not "
            f"deterministic: unset it, or set it to {' or '.join(_WORKSPACES)}"
        )
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmarked = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic  # a module with a property
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # a kernel for each tensor
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by their time
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        if _WORKSPACE in str(error):
            raise ConfigError(
                f"{option('deterministic', value=True)}: this process multiplied on a GPU before "
                f"{_WORKSPACE} was set, which torch reads once: set it to {_WORKSPACES[0]} before "
                "Python starts"
            ) from error
        raise ConfigError(
            f"{option('deterministic', value=True)}: torch has no deterministic algorithm for "
            f"this on a GPU: {str(error).splitlines()[0].split('. ')[0]}; leave the option out, or "
            "choose another model"
        ) from error
    finally:
        torch.backends.cudnn.benchmark = benchmarked
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=only_warned)


def _let_cublas_repeat() -> None:
    """Have cuBLAS repeat its results, if they are asked to be deterministic now or later.

    torch reads this at the first product of a process alone, which may be one that need not repeat.
    It only says how much memory cuBLAS gets: that of a Hopper GPU without it.
    """
    os.environ.setdefault(_WORKSPACE, _WORKSPACES[0])
