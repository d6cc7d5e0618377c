"""Standard DDP as the paper measured it: materialised float64 windows held by Dask's workers.

Each rank calls `x[batch].compute()` and `y[batch].compute()` per batch, one after the other,
through one central scheduler, and nothing is fetched ahead. Run as a program, this module is the
process of the cluster: it runs the scheduler and starts one worker process per rank on loopback.
"""

import importlib
import time
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from pgti.batching import Batch, Batcher, BatchRequest, WindowSource
from pgti.store import SeriesStore, calendar_features
from pgti.windows import WindowSpec
from pgti_bench.errors import BenchError
from pgti_bench.scaling.windows import batch_of, window_source
from pgti_bench.worker_loop import serve

__all__ = ["CHUNK_WINDOWS", "DaskBatcher", "check_dask", "connect_batcher", "dask_windows"]

CHUNK_WINDOWS = 62
"""Windows per chunk: those of the paper's PeMS in one of Dask's automatic chunks of 128 MiB."""


def check_dask() -> None:
    """Check that Dask is installed.

    Raises:
        BenchError: it is not.
    """
    for name in ("dask.array", "distributed"):
        _library(name)


def dask_windows(source: WindowSource, starts: range) -> tuple[Any, Any]:
    """Inputs and targets of all training windows as lazy Dask arrays of float64.

    As in the paper's code, both contain the standardised observations and the time of day.

    Args:
        source: what the windows contain.
        starts: the training starts.

    Returns:
        x [S, L, N, C + F] and y [S, H, N, C + F]; a missing observation is 0 in x and NaN in y.
    """
    da = _library("dask.array")
    store, spec, scaler = source.store, source.spec, source.scaler
    rows = np.arange(starts[0], starts[-1] + spec.span)
    readings = store.read(starts[0], int(rows[-1]) + 1).astype(np.float64)
    scaled = (readings - np.asarray(scaler.mean)) / np.asarray(scaler.std)
    features = calendar_features(store.time_axis, source.calendar, rows).astype(np.float64)
    tiled = np.repeat(features[:, None, :], scaled.shape[1], axis=1)
    series = np.concatenate([scaled, tiled], axis=-1)

    def windows(rows: NDArray[np.float64], length: int) -> Any:
        cut = da.lib.stride_tricks.sliding_window_view(da.from_array(rows), length, axis=0)
        return da.moveaxis(cut, -1, 1)[: len(starts)].rechunk((CHUNK_WINDOWS, -1, -1, -1))

    return windows(np.nan_to_num(series), spec.input_steps), windows(
        series[spec.input_steps :], spec.horizon
    )


class DaskBatcher(Batcher[Batch]):
    """Fetches each batch with two calls of `compute`, on demand.

    Args:
        source: what the windows contain.
        starts: the training starts.
        x: inputs of all windows, from `dask_windows`.
        y: their targets.
        client: kept alive with the batcher.
    """

    CALLS = 2
    """Task graphs that a batch sends to the scheduler."""

    def __init__(
        self,
        source: WindowSource,
        starts: range,
        x: Any,
        y: Any,
        client: object = None,
    ) -> None:
        super().__init__(source, torch.device("cpu"), prefetch_depth=1)
        self._starts, self._x, self._y, self._client = starts, x, y, client
        targets = list(source.target_indices)
        self._mean = np.asarray(source.scaler.mean)[targets]
        self._std = np.asarray(source.scaler.std)[targets]

    def fetch(self, request: BatchRequest) -> Batch:
        """Wait for Dask, twice; then convert to float32, the targets in original units."""
        chosen = (request.starts - self._starts.start) // self._starts.step
        x, y = self._x[chosen].compute(), self._y[chosen].compute()
        targets = y[..., list(self.source.target_indices)] * self._std + self._mean
        x_float, targets_float = (torch.from_numpy(each).float() for each in (x, targets))
        return batch_of(self.source, x_float, targets_float, request.starts)

    def assemble(self, fetched: Batch) -> Batch:
        """The batch itself."""
        return fetched


def connect_batcher(source: WindowSource, starts: range, address: str) -> DaskBatcher:
    """A batcher of the windows that a cluster holds.

    Raises:
        BenchError: Dask is not installed.
    """
    client = _library("distributed").Client(address, direct_to_workers=True)
    return DaskBatcher(source, starts, client.get_dataset("x"), client.get_dataset("y"), client)


class ClusterHandlers:
    """What the process of the cluster may be asked for, one method per request."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def start(self, *, store: str, window_steps: int, workers: int) -> dict[str, Any]:
        """Start the workers, and let them compute and hold all windows."""
        distributed = _library("distributed")
        spec = WindowSpec(input_steps=window_steps, horizon=window_steps)
        source, starts = window_source(SeriesStore.open(store), spec)
        began = time.perf_counter()
        cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        client = distributed.Client(cluster)
        self._kept = [cluster, client]
        x, y = client.persist(list(dask_windows(source, starts)))
        distributed.wait([x, y])
        client.publish_dataset(x=x, y=y)
        return {
            "address": cluster.scheduler_address,
            "seconds": time.perf_counter() - began,
            "windows": len(starts),
            "bytes": int(x.nbytes + y.nbytes),
        }

    def cpu(self) -> dict[str, Any]:
        """CPU time so far: of this process, which runs the scheduler, and of all its workers."""
        times = [each.cpu_times() for each in psutil.Process().children(recursive=True)]
        return {
            "scheduler": time.process_time(),
            "workers": sum(each.user + each.system for each in times),
        }

    def stop(self) -> dict[str, Any]:
        """End the workers."""
        while self._kept:
            self._kept.pop().close()
        return {}


def _library(name: str) -> Any:
    """Import an optional module.

    Raises:
        BenchError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BenchError(
            "dask is not installed; install it with `pip install 'pgti-bench[dask]'`"
        ) from error


def main() -> None:
    """Answer requests until standard input ends."""
    handlers = ClusterHandlers()
    try:
        serve({name: getattr(handlers, name) for name in ("start", "cpu", "stop")})
    finally:
        handlers.stop()


if __name__ == "__main__":
    main()
