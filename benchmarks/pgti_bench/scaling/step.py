"""An optimizer step of one rank of the scaling study, with its parts timed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pgti.batching import Batch, WindowSource
from pgti.distributed import Communicator
from pgti.forecasting.forecaster import NetworkForecaster
from pgti.models import DCRNN, DCRNNConfig
from pgti.nn import Supports
from pgti.training import TrainingConfig, TrainStep
from pgti.training.optim import build_loss, build_optimizer
from pgti_bench.devices import synchronize

__all__ = ["DDPStep", "RankStep", "StepTimes"]


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
        device: where it computes; the CPU by default.

    Attributes:
        parameters: the trainable ones.
    """

    def __init__(
        self,
        source: WindowSource,
        communicator: Communicator,
        *,
        hidden: int,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        self._device = torch.device("cpu") if device is None else device
        forecaster = build_forecaster(source, hidden=hidden, seed=seed).to(self._device)
        for tensor in forecaster.network.state_dict().values():
            communicator.broadcast_(tensor)
        self._timer = _CollectiveTimer(communicator)
        self._step = TrainStep.from_config(
            forecaster, TrainingConfig(seed=seed), cast("Communicator", self._timer)
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
        self._train(batch)
        self._steps += 1
        synchronize(self._device)
        seconds = time.perf_counter() - fetched
        return StepTimes(
            fetch=fetched - began,
            compute=seconds - self._timer.seconds,
            communication=self._timer.seconds,
        )

    def _train(self, batch: Batch) -> None:
        """Take one step."""
        self._step([batch], step=self._steps, num_batches=1)


class DDPStep(RankStep):
    """The same with torch's `DistributedDataParallel`, as scripts of the field train.

    The loss of a rank is the mean over its own observed targets, and gradients are averaged over
    ranks: where targets are missing, that is not the gradient of one process. They are summed
    during the backward pass, so `communication` is 0 and `compute` contains it.
    """

    def __init__(
        self,
        source: WindowSource,
        communicator: Communicator,
        *,
        hidden: int,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(source, communicator, hidden=hidden, seed=seed, device=device)
        config = TrainingConfig(seed=seed)
        self._loss, self._clip_norm = build_loss(config), config.clip_norm
        self._optimizer = build_optimizer(self.parameters, config)
        forecaster = self._step.forecaster
        is_alone = communicator.world_size == 1
        self._model = forecaster if is_alone else DistributedDataParallel(forecaster)

    def _train(self, batch: Batch) -> None:
        assert batch.y is not None
        assert batch.y_mask is not None
        self._optimizer.zero_grad(set_to_none=True)
        loss_sum, count = self._loss(self._model(batch), batch.y, batch.y_mask)
        (loss_sum / count.clamp(min=1)).backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        self._optimizer.step()


def build_forecaster(source: WindowSource, *, hidden: int, seed: int) -> NetworkForecaster:
    """A DCRNN of one layer with its un-scaling, in training mode."""
    torch.manual_seed(seed)
    network = DCRNN(DCRNNConfig(hidden=hidden, layers=1), source.shape)
    supports = Supports.from_graph(source.store.graph, network.support_kind)
    return NetworkForecaster(network, supports, source.scaler, source.target_indices, seed)


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
