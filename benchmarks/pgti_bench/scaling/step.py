"""An optimizer step of one rank of the scaling study, with its parts timed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from pgti.batching import Batch, WindowSource
from pgti.distributed import Communicator
from pgti.forecasting.forecaster import NetworkForecaster
from pgti.models import DCRNN, DCRNNConfig
from pgti.nn import Supports
from pgti.training import TrainingConfig, TrainStep

__all__ = ["RankStep", "StepTimes", "clone_batch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimes:
    """Seconds of one step.

    Attributes:
        fetch: until the batch is available.
        compute: forward, backward and optimizer.
        communication: collectives, waiting for slower ranks included.
    """

    fetch: float
    compute: float
    communication: float


class RankStep:
    """A DCRNN of one layer and its optimizer, the same on every rank.

    Args:
        source: what the windows contain.
        communicator: the ranks that step together.
        hidden: units of the layer.
        seed: of the parameters.

    Attributes:
        parameters: the trainable ones.
    """

    def __init__(
        self, source: WindowSource, communicator: Communicator, *, hidden: int, seed: int
    ) -> None:
        torch.manual_seed(seed)
        network = DCRNN(DCRNNConfig(hidden=hidden, layers=1), source.shape)
        supports = Supports.from_graph(source.store.graph, network.support_kind)
        for tensor in network.state_dict().values():
            communicator.broadcast_(tensor)
        self._timer = _CollectiveTimer(communicator)
        self._step = TrainStep.from_config(
            NetworkForecaster(network, supports, source.scaler, source.target_indices, seed),
            TrainingConfig(seed=seed),
            cast("Communicator", self._timer),
        )
        self.parameters = self._step.parameters
        self._steps = 0

    def parameters_sum(self) -> float:
        """Sum of all parameters in float64: the same on every rank that stepped together."""
        return float(sum(parameter.double().sum() for parameter in self.parameters))

    def take(self, batches: Iterator[Batch]) -> StepTimes:
        """Fetch a batch and take one step with all ranks."""
        began = time.perf_counter()
        batch = next(batches)
        fetched = time.perf_counter()
        self._timer.seconds = 0.0
        self._step([batch], step=self._steps)
        self._steps += 1
        seconds = time.perf_counter() - fetched
        return StepTimes(
            fetch=fetched - began,
            compute=seconds - self._timer.seconds,
            communication=self._timer.seconds,
        )


class _CollectiveTimer:
    """Passes calls on to a communicator, or to what it returned, and times them.

    Attributes:
        seconds: in all calls since it was last set to 0.
    """

    def __init__(self, target: Any, timer: "_CollectiveTimer | None" = None) -> None:
        self._target = target
        self._timer = self if timer is None else timer
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return self._timed(found) if callable(found) else found

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = method(*args, **kwargs)
            self._timer.seconds += time.perf_counter() - began
            # What an asynchronous collective returns is waited for later.
            return _CollectiveTimer(result, self._timer) if hasattr(result, "wait") else result

        return call


def clone_batch(batch: Batch) -> Batch:
    """A copy of a batch in its own memory."""
    return replace(
        batch,
        x=batch.x.clone(),
        x_mask=batch.x_mask.clone(),
        y=None if batch.y is None else batch.y.clone(),
        y_mask=None if batch.y_mask is None else batch.y_mask.clone(),
        calendar=batch.calendar.clone(),
    )
