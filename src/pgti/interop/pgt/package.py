"""PyTorch Geometric Temporal (PGT) and PyTorch Geometric (PyG), imported when they are needed."""

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from torch import nn

from pgti.errors import ConfigError, MissingExtraError

__all__ = ["import_pgt", "import_pyg", "pgt_layer_class"]

_PACKAGE = "torch_geometric_temporal"
_NAME = "PyTorch Geometric Temporal"
_THEN = "pip install --no-deps torch-geometric-temporal"


def import_pyg(module: str) -> Any:
    """A module of PyG.

    Args:
        module: such as `data`.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        with _without_script_warning():
            return importlib.import_module(f"torch_geometric.{module}")
    except ImportError:
        raise MissingExtraError("PyTorch Geometric", "pgt") from None


def import_pgt(module: str = "") -> Any:
    """PGT, or one of its modules.

    Its published package asks for libraries that must be compiled. Of those it imports one,
    `torch_sparse`, for the type of an attribute: where that is not installed, an empty class stands
    in for it while PGT is imported.

    Args:
        module: such as `nn.recurrent`; PGT itself if empty.

    Raises:
        MissingExtraError: if it, or what it imports, is not installed; with the commands that
            install it.
        ConfigError: if it cannot be imported beside the other libraries as they are.
    """
    try:
        with _without_script_warning():
            # First, and without the stand-in: it looks for the compiled libraries and uses them.
            importlib.import_module("torch_geometric")
            with _torch_sparse_found():
                package = importlib.import_module(_PACKAGE)
            return importlib.import_module(f"{_PACKAGE}.{module}") if module else package
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and "." not in (error.name or "."):
            raise MissingExtraError(_NAME, "pgt", then=_THEN) from None
        raise ConfigError(
            f"{_NAME} {version(_PACKAGE)} cannot be imported with torch-geometric "
            f"{version('torch_geometric')} ({error}): install versions that fit one another"
        ) from error


def pgt_layer_class(name: str) -> type[nn.Module]:
    """The class of one of PGT's layers.

    Raises:
        MissingExtraError: as `import_pgt`.
        ConfigError: as `import_pgt`, or if the version that is installed has no such layer.
    """
    layers = import_pgt("nn")
    if not hasattr(layers, name):
        raise ConfigError(
            f"{_NAME} {version(_PACKAGE)} has no layer {name}: install 0.56.2 or a later one"
        )
    layer_class: type[nn.Module] = getattr(layers, name)
    return layer_class


@contextmanager
def _without_script_warning() -> Iterator[None]:
    """PyG's own modules are scripted, which torch advises against since 2.9."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="`torch.jit.script` is deprecated", category=DeprecationWarning
        )
        yield


@contextmanager
def _torch_sparse_found() -> Iterator[None]:
    """`import torch_sparse` works inside, whether it is installed or not."""
    if "torch_sparse" in sys.modules or importlib.util.find_spec("torch_sparse") is not None:
        yield
        return
    stand_in = types.ModuleType("torch_sparse")
    stand_in.SparseTensor = type("SparseTensor", (), {})  # type: ignore[attr-defined]
    sys.modules["torch_sparse"] = stand_in
    try:
        yield
    finally:
        del sys.modules["torch_sparse"]
