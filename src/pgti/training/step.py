"""One optimizer step, exact at any number of ranks and however its windows are cut into batches."""

from collections.abc import Callable, Iterable
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError
from pgti.forecasting import NetworkForecaster
from pgti.nn import MaskedLoss
from pgti.training.config import Precision, TrainingConfig
from pgti.training.freezing import freeze_parameters, frozen_norms
from pgti.training.optim import build_loss, build_optimizer, check_own_loss

__all__ = ["RunningLoss", "TrainStep", "scale_gradients"]


class RunningLoss:
    """Sum of this rank's losses and the count behind it, accumulated on the device.

    Args:
        device: where batches are.

    Attributes:
        total: summed loss, float64 scalar.
        count: observed targets (or what a loss of a user's own counts), float64 scalar.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self, total: float = 0.0, count: float = 0.0) -> None:
        """Start again from a sum and its count."""
        self.total = torch.tensor(total, dtype=torch.float64, device=self._device)
        self.count = torch.tensor(count, dtype=torch.float64, device=self._device)

    def read_own(self) -> float | None:
        """Mean loss of this rank alone; None where nothing was observed. Waits for the device."""
        count = float(self.count)
        return float(self.total) / count if count else None

    def read(self, communicator: Communicator) -> tuple[float, float]:
        """Sum and count over all ranks; waits for the device. Every rank must call it."""
        total, count = self.total.clone(), self.count.clone()
        communicator.all_reduce_(total, "metrics")
        communicator.all_reduce_(count, "metrics")
        return float(total), float(count)


class TrainStep:
    """Takes optimizer steps: forward, backward, reduction over ranks, clipping, update.

    The gradient is that of the summed loss over all batches and ranks, divided once by the summed
    count, which is the number of observed targets. It takes the place of
    `DistributedDataParallel`, whose average over ranks is not that mean, and which needs a forward
    pass of ranks without windows.

    Args:
        forecaster: the network, on its device and in training mode.
        optimizer: updates its parameters.
        loss: (prediction, target, mask) -> (sum, count).
        communicator: the ranks that step together, with the same parameters.
        precision: bfloat16 runs the network under autocast, and the loss never.
        clip_norm: largest norm of the gradient; 0 clips nothing.
        seed: of whatever the network draws (dropout).

    Attributes:
        parameters: those that learn.
    """

    def __init__(
        self,
        forecaster: NetworkForecaster,
        optimizer: torch.optim.Optimizer,
        loss: MaskedLoss,
        communicator: Communicator | None = None,
        *,
        precision: Precision = "float32",
        clip_norm: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.forecaster = forecaster
        self.optimizer = optimizer
        self.parameters = [p for p in forecaster.network.parameters() if p.requires_grad]
        self._loss = loss
        self._communicator = SingleProcess() if communicator is None else communicator
        self._precision = precision
        self._clip_norm = clip_norm
        self._seed = seed
        self._frozen_norms: list[nn.Module] = []

    @classmethod
    def from_config(
        cls,
        forecaster: NetworkForecaster,
        config: TrainingConfig,
        communicator: Communicator | None = None,
        loss: MaskedLoss | None = None,
    ) -> Self:
        """The step that a configuration describes, with a new optimizer.

        Parameters that the configuration names are frozen.

        Args:
            forecaster: the network, on its device and in training mode.
            config: how to train.
            communicator: the ranks that step together; one process by default.
            loss: of the user's own, in place of the configuration's.

        Raises:
            ConfigError: if no parameter learns, or there is none to freeze by such a name.
        """
        freeze_parameters(forecaster.network, config.freeze)
        step = cls(
            forecaster,
            build_optimizer(forecaster.network.parameters(), config),
            build_loss(config) if loss is None else check_own_loss(loss),
            communicator,
            precision=config.precision,
            clip_norm=config.clip_norm,
            seed=config.seed,
        )
        if config.freeze:
            step._frozen_norms = frozen_norms(forecaster.network)
        return step

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def __call__(
        self,
        batches: Iterable[Batch],
        *,
        step: int = 0,
        learning_rate: float | None = None,
        running: RunningLoss | None = None,
        stop_signal: Callable[[], int] = lambda: 0,
    ) -> int:
        """Take one step; every rank calls it with as many batches as the others.

        Args:
            batches: this rank's windows of the step, with targets; a batch may have none.
            step: optimizer steps done before this one.
            learning_rate: of this step; the optimizer's own if not given.
            running: accumulates the losses of the step.
            stop_signal: number of a signal that asks this rank to stop, or 0; read after the
                backward pass.

        Returns:
            The largest `stop_signal` of all ranks.

        Raises:
            ConfigError: if windows have no targets.
            PeerError: if another rank failed or does not answer.
        """
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(_step_seed(self._seed, step, self._communicator.rank))
        counts = []
        for batch in batches:
            loss_sum = count = torch.zeros((), dtype=torch.float64, device=self.device)
            if batch.num_windows:
                loss_sum, count = self._loss_of(batch, step)
            if running is not None:
                running.total += loss_sum.detach()
                running.count += count
            # Sent before the backward pass, so that nobody waits for it afterwards.
            counts.append((count, self._communicator.all_reduce_async(count, "counts")))
            if batch.num_windows:
                loss_sum.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
            del loss_sum
        stop = self._reduce_gradients(stop_signal())
        for _, work in counts:
            work.wait()
        scale_gradients(self.parameters, torch.stack([count for count, _ in counts]).sum())
        if self._clip_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        if learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
        self.optimizer.step()
        return stop

    def differentiate(self, batch: Batch) -> None:
        """Add the gradients of a batch's summed loss to the parameters'.

        Args:
            batch: windows with targets, at least one.

        Raises:
            ConfigError: if the windows have no targets.
        """
        loss_sum, _ = self._loss_of(batch, step=0)
        loss_sum.backward()  # type: ignore[no-untyped-call] # torch does not annotate it

    def _loss_of(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch with its graph, and the count behind it, float64."""
        if batch.y is None or batch.y_mask is None:
            raise ConfigError(
                "a batch without targets cannot be trained on: gather it with targets"
            )
        for norm in self._frozen_norms:
            norm.eval()
        is_lower = self._precision == "bfloat16"
        with torch.autocast(batch.x.device.type, dtype=torch.bfloat16, enabled=is_lower):
            prediction = self.forecaster(batch, step=step)
        loss_sum, count = self._loss(prediction, batch.y, batch.y_mask)
        return loss_sum, count.double()

    def _reduce_gradients(self, stop_signal: int) -> int:
        """Sum gradients over the ranks; the same message agrees on whether to stop."""
        stop, *has_gradient = self._communicator.all_reduce_max(
            [stop_signal, *(int(each.grad is not None) for each in self.parameters)]
        )
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter, is_present in zip(self.parameters, has_gradient, strict=True):
            if not is_present:
                continue  # on no rank: the optimizer leaves it alone
            if parameter.grad is None:  # the rank has no window of the step
                parameter.grad = torch.zeros_like(parameter)
            by_dtype.setdefault(parameter.dtype, []).append(parameter.grad)
        for gradients in by_dtype.values():
            self._communicator.all_reduce_coalesced_(gradients, "gradients")
        return stop


def scale_gradients(parameters: Iterable[nn.Parameter], count: Tensor) -> None:
    """Turn gradients of a summed loss into those of its mean over `count`.

    A count of 0 gives zero gradients, not NaN. The count stays on its device.
    """
    factor = 1.0 / torch.where(count > 0, count, 1).double()
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor.to(parameter.grad.dtype))


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A function of these three alone: a resumed run draws the same, two ranks draw differently."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
