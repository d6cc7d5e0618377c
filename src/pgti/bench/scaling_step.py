"""An optimiser step of one rank, as the training loop takes it, with its parts timed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pgti.batching import Batch, WindowSource
from pgti.bench.old_step import batch_loss, count_observed
from pgti.distributed import Communicator
from pgti.forecasting import NetworkForecaster, shape_of
from pgti.models import build_model
from pgti.training import TrainingConfig
from pgti.training.optim import build_loss, build_optimizer
from pgti.training.step import scale_gradients

__all__ = ["RankStep", "StepTimes", "clone_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimes:
    """Seconds of one step.

    Args:
        fetch: until the batch was there.
        compute: forward, backward and optimiser.
        communication: collectives, waiting for slower ranks included.
    """

    fetch: float
    compute: float
    communication: float


class RankStep:
    """A DCRNN of one layer and its optimiser, the same on every rank.

    Args:
        source: what the windows hold.
        communicator: the ranks.
        hidden: units of the layer.
        seed: of the parameters.
    """

    def __init__(
        self, source: WindowSource, communicator: Communicator, *, hidden: int, seed: int
    ) -> None:
        torch.manual_seed(seed)
        shape = shape_of(source)
        network = build_model("dcrnn", {"hidden": hidden, "layers": 1}, shape)
        supports = network.build_supports(source.store.graph)
        self._communicator = communicator
        self._forecaster = NetworkForecaster(
            network, supports, source.scaler, source.target_indices, seed
        )
        self._parameters = list(network.parameters())
        self._config = TrainingConfig(seed=seed)
        self._loss = build_loss(self._config)
        self._optimizer = build_optimizer(self._parameters, self._config)
        self._steps = 0
        for tensor in network.state_dict().values():
            communicator.broadcast_(tensor)

    @property
    def num_parameters(self) -> int:
        """Numbers that are learnt."""
        return sum(parameter.numel() for parameter in self._parameters)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the all-reduce of a step."""
        return sum(parameter.nbytes for parameter in self._parameters)

    @property
    def control_bytes(self) -> int:
        """Bytes of the all-reduce in which ranks agree what there is: int64 numbers."""
        return 8 * (1 + len(self._parameters))

    def parameters_sum(self) -> float:
        """Sum of all parameters, in float64: the same on every rank, always."""
        return float(sum(parameter.double().sum() for parameter in self._parameters))

    def take(self, batches: Iterator[Batch]) -> StepTimes:
        """Fetch a batch and take one step with all ranks."""
        began = time.perf_counter()
        batch = next(batches)
        fetched = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        observed = count_observed(batch)
        counting = self._communicator.all_reduce_async(observed, "counts")
        self._backward(batch)
        computed = time.perf_counter()
        # What the training loop asks in the same place: whether to stop, and who has gradients.
        self._communicator.all_reduce_max(
            [0, *(int(each.grad is not None) for each in self._parameters)]
        )
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        self._communicator.all_reduce_coalesced_(gradients, "gradients")
        counting.wait()
        communicated = time.perf_counter()
        self._update(observed)
        ended = time.perf_counter()
        return StepTimes(
            fetch=fetched - began,
            compute=computed - fetched + ended - communicated,
            communication=communicated - computed,
        )

    def compute(self, batch: Batch) -> tuple[float, float]:
        """A step without a fetch or a collective, after which ranks differ.

        Returns:
            Its seconds by the clock, and of processor time.
        """
        began, spent = time.perf_counter(), time.process_time()
        self._optimizer.zero_grad(set_to_none=True)
        observed = count_observed(batch)
        self._backward(batch)
        self._update(observed)
        return time.perf_counter() - began, time.process_time() - spent

    def _backward(self, batch: Batch) -> None:
        if batch.num_windows:
            loss_sum, _ = batch_loss(
                self._forecaster,
                self._loss,
                batch,
                precision=self._config.precision,
                step=self._steps,
            )
            loss_sum.backward()  # type: ignore[no-untyped-call] # torch does not annotate it

    def _update(self, observed: Tensor) -> None:
        scale_gradients(self._parameters, observed)
        nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm)
        self._optimizer.step()
        self._steps += 1


def clone_of(batch: Batch) -> Batch:
    """A batch in memory of its own."""
    return replace(
        batch,
        x=batch.x.clone(),
        x_mask=batch.x_mask.clone(),
        y=None if batch.y is None else batch.y.clone(),
        y_mask=None if batch.y_mask is None else batch.y_mask.clone(),
        calendar=batch.calendar.clone(),
    )
