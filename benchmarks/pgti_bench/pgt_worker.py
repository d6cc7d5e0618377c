"""The process that runs PyTorch Geometric Temporal (PGT), as its users run it.

A script for another interpreter, which has torch, numpy and PGT; of this package it uses only
`worker_loop.py` beside it. PGT itself is unmodified; the one module of it that imports
`torch_sparse`, which is not measured, finds an empty class under that name.
"""

import ctypes
import importlib
import importlib.util
import itertools
import sys
import time
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

# glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_NEVER_TRIM = 2**31 - 1


def _load_worker_loop() -> Any:
    """`worker_loop.py`, which needs nothing but the standard library."""
    path = Path(__file__).with_name("worker_loop.py")
    spec = importlib.util.spec_from_file_location("worker_loop", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pgt(module: str) -> Any:
    """A module of PGT."""
    stand_in = types.ModuleType("torch_sparse")
    stand_in.SparseTensor = type("SparseTensor", (), {})  # type: ignore[attr-defined]
    sys.modules.setdefault("torch_sparse", stand_in)
    return importlib.import_module(f"torch_geometric_temporal.{module}")


class _Forecaster(nn.Module):
    """PGT's recurrent layer; its state after each input is projected to the targets."""

    def __init__(self, layer: nn.Module, hidden: int, targets: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden, targets)

    def forward(
        self, x: torch.Tensor, edge_index: torch.Tensor, edge_weight: torch.Tensor
    ) -> torch.Tensor:
        out: torch.Tensor = self.head(self.layer(x, edge_index, edge_weight))
        return out


class Handlers:
    """What the measuring process may ask for, one method per request."""

    def __init__(self, peak: Any) -> None:
        self._peak = peak
        self._device = torch.device("cpu")

    def prepare_step(
        self,
        *,
        graph: str,
        hidden: int,
        hops: int,
        steps: int,
        batch_size: int,
        channels: list[int],
        device: str,
        retain_freed: bool,
    ) -> dict[str, Any]:
        """Build `BatchedDCRNN` and a batch. PGT counts the identity as a hop: K = hops + 1."""
        retains = retain_freed and _retain_freed_memory()
        torch.manual_seed(0)
        self._device = torch.device(device)
        inputs, targets = channels
        arrays = np.load(graph)
        num_nodes = len(arrays["indptr"]) - 1
        sources = np.repeat(np.arange(num_nodes), np.diff(arrays["indptr"]))
        edges = np.stack([sources, arrays["indices"]]).astype(np.int64)
        self._edge_index = torch.from_numpy(edges).to(self._device)
        self._edge_weight = torch.from_numpy(arrays["data"]).to(self._device)
        layer = _pgt("nn.recurrent").BatchedDCRNN(inputs, hidden, K=hops + 1)
        self._model = _Forecaster(layer, hidden, targets).to(self._device)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=1e-3)
        self._x = torch.randn(batch_size, steps, num_nodes, inputs).to(self._device)
        self._y = torch.randn(batch_size, steps, num_nodes, targets).to(self._device)
        parameters = sum(parameter.numel() for parameter in self._model.parameters())
        return {"parameters": parameters, "retains": retains, **_versions()}

    def step(self) -> dict[str, Any]:
        """Take one optimizer step on the mean absolute error."""
        self._synchronize()
        began = time.perf_counter()
        self._optimizer.zero_grad()
        forecast = self._model(self._x, self._edge_index, self._edge_weight)
        loss = torch.mean(torch.abs(forecast - self._y))
        loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        self._optimizer.step()
        self._synchronize()
        return {"seconds": time.perf_counter() - began}

    def prepare_loader(
        self, *, directory: str, steps: int, batch_size: int, retain_freed: bool
    ) -> dict[str, Any]:
        """Let PGT's METR-LA loader read the arrays in `directory` and build its data loaders."""
        retains = retain_freed and _retain_freed_memory()
        loader = _pgt("dataset").METRLADatasetLoader(raw_data_dir=directory, index=True)
        self._loader, *_ = loader.get_index_dataset(lags=steps, batch_size=batch_size, shuffle=True)
        return {"batches": len(self._loader), "retains": retains, **_versions()}

    def batches(self, *, count: int) -> dict[str, Any]:
        """Take that many batches of a new epoch."""
        num_windows = num_bytes = 0
        began = time.perf_counter()
        for x, y in itertools.islice(self._loader, count):
            num_windows += len(x)
            num_bytes += x.nbytes + y.nbytes
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "windows": num_windows, "bytes": num_bytes}

    def peak(self) -> dict[str, Any]:
        """Peak memory so far: of the process, or of a GPU's allocator."""
        if self._device.type == "cuda":
            return {"bytes": torch.cuda.max_memory_allocated(self._device)}
        return {"bytes": self._peak()}

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _versions() -> dict[str, Any]:
    libraries = ("torch_geometric_temporal", "torch_geometric", "torch")
    return {"versions": {library: version(library) for library in libraries}}


def _retain_freed_memory() -> bool:
    """Set glibc's malloc to retain freed memory; whether there is such a setting."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM))


def main() -> None:
    """Answer requests until standard input ends."""
    worker_loop = _load_worker_loop()
    handlers = Handlers(worker_loop.peak_resident_bytes)
    worker_loop.serve(
        {
            name: getattr(handlers, name)
            for name in ("prepare_step", "step", "prepare_loader", "batches", "peak")
        }
    )


if __name__ == "__main__":
    main()
