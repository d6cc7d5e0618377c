"""One optimizer step, exact at any number of ranks and however its windows are cut into batches."""

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError
from pgti.forecasting import NetworkForecaster
from pgti.nn import MaskedLoss
from pgti.nn.numerics import deterministic_algorithms, float32_products
from pgti.training.averaging import WeightAverage
from pgti.training.capture import StepGraphs, why_not_recorded
from pgti.training.config import Precision, TrainingConfig
from pgti.training.cuda_graphs import CudaRecorder, GraphRecorder
from pgti.training.curriculum import Curriculum
from pgti.training.freezing import freeze_parameters, frozen_norms
from pgti.training.gradients import GradientReducer, scale_gradients, separate_gradients
from pgti.training.optim import (
    build_loss,
    build_optimizer,
    check_own_loss,
    hold_rate_on,
    load_optimizer,
)
from pgti.training.running_loss import RunningLoss
from pgti.training.seeding import seed_step

__all__ = ["TrainStep"]


class TrainStep:
    """Takes optimizer steps: forward, backward, reduction over ranks, clipping, update.

    The gradient is that of the summed loss over all batches and ranks, divided once by the summed
    count, which is the number of observed targets. `GradientReducer` sums over ranks.

    Args:
        forecaster: the network, on its device and in training mode.
        optimizer: updates its parameters.
        loss: (prediction, target, mask) -> (sum, count).
        communicator: the ranks that step together, with the same parameters.
        precision: of float32 products on a GPU; bfloat16 runs the network alone under autocast.
        clip_norm: largest norm of the gradient; 0 clips nothing.
        seed: of whatever the network draws (dropout).

    Attributes:
        parameters: those that learn.
        average: of the weights; of none by default.
        curriculum: which steps of the horizon the loss sees; all of them by default.
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
        self.average = WeightAverage(forecaster.network, 0.0)
        self.curriculum = Curriculum(0, 0, self.device)
        self._loss = loss
        self._communicator = SingleProcess() if communicator is None else communicator
        self._precision = precision
        self._clip_norm = clip_norm
        self._seed = seed
        self._frozen_norms: list[nn.Module] = []
        self._learning_rate = float(optimizer.param_groups[0]["lr"])
        self._graphs: StepGraphs | None = None
        self._reducer = GradientReducer(self.parameters, self._communicator)

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
        forecaster.deterministic = config.deterministic
        step = cls(
            forecaster,
            build_optimizer(forecaster.network.parameters(), config),
            build_loss(config) if loss is None else check_own_loss(loss),
            communicator,
            precision=config.precision,
            clip_norm=config.clip_norm,
            seed=config.seed,
        )
        step.average = WeightAverage(forecaster.network, config.ema_decay)
        steps = config.curriculum_steps, config.curriculum_warmup_steps
        step.curriculum = Curriculum(*steps, step.device)
        if step.device.type == "cuda":
            hold_rate_on(step.optimizer, step.device)
        if config.freeze:
            step._frozen_norms = frozen_norms(forecaster.network)
        on_gpu = step.device.type == "cuda" and torch.cuda.is_available()
        if config.cuda_graphs == "auto" and on_gpu:
            step.record(CudaRecorder(step.device))
            if config.compile_mode != "default":
                step.take_as_usual("torch.compile records CUDA graphs of its own in this mode")
        return step

    def record(self, recorder: GraphRecorder) -> None:
        """Record steps on the device from now on, as far as they can be; see `StepGraphs`."""
        self._graphs = StepGraphs(recorder, self.forecaster, self.parameters, self.optimizer)
        reason = why_not_recorded(self.forecaster)
        if reason is None and self._reducer.overlaps:
            reason = "gradients of this size are sent to other ranks during the backward pass"
        if reason is not None:
            self.take_as_usual(reason)

    def take_as_usual(self, reason: str) -> None:
        """Record no step on a GPU, for this reason."""
        if self._graphs is not None:
            self._graphs.give_up(reason)

    def explain_to(self, log: Callable[[str], None]) -> None:
        """Write a line for the user, now or later, if steps on a GPU cannot be recorded."""
        if self._graphs is not None:
            self._graphs.explain_to(log)

    def watch_for_changes(self) -> None:
        """Record again whenever something else, such as a callback, has changed the network."""
        if self._graphs is not None:
            self._graphs.watches = True

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return self._learning_rate

    def broadcast_network(self) -> None:
        """Give every rank the parameters and buffers of rank 0."""
        for parameter in self.forecaster.network.parameters():
            self._communicator.broadcast_(parameter.detach())
        self.broadcast_buffers()

    def broadcast_buffers(self) -> None:
        """Give every rank the buffers of rank 0: running statistics differ between ranks."""
        for buffer in (*self.forecaster.network.buffers(), *self.average.buffers):
            self._communicator.broadcast_(buffer)

    def __call__(
        self,
        batches: Iterable[Batch],
        *,
        step: int = 0,
        num_batches: int | None = None,
        learning_rate: float | None = None,
        running: RunningLoss | None = None,
        stop: Callable[[], int] = lambda: 0,
    ) -> int:
        """Take one step; every rank calls it with as many batches as the others.

        It runs `accumulate`, `reduce` and `update`, none of which waits for a GPU.

        Args:
            batches: this rank's windows of the step, with targets; a batch may have none.
            step: optimizer steps done before this one.
            num_batches: how many batches there are; where it is given, gradients are sent during
                the backward pass of the last of them.
            learning_rate: of this step; the optimizer's own if not given.
            running: accumulates the losses of the step.
            stop: why this rank asks all of them to stop, as bits below 2^`STOP_BITS` of
                `pgti.training.gradients`; read after the backward pass.

        Returns:
            The bits of all ranks; of several ranks on GPUs, those of the step before.

        Raises:
            ConfigError: if windows have no targets.
            PeerError: if another rank failed or does not answer.
        """
        self.seed(step)
        self.curriculum.begin_step(step)
        with self._numerics():
            count = self.accumulate(batches, step=step, num_batches=num_batches, running=running)
            count, stopping = self.reduce(count, stop())
            if learning_rate is not None:
                self.set_learning_rate(learning_rate)
            self.update(count)
        self.average.update(step)
        return stopping

    @contextmanager
    def _numerics(self) -> Generator[None]:
        """How a GPU computes products and sums in the block."""
        is_deterministic = self.forecaster.deterministic
        with (
            float32_products(self.device, tf32=self._precision == "tf32"),
            deterministic_algorithms(self.device, enabled=is_deterministic),
        ):
            yield

    def seed(self, step: int) -> None:
        """Seed what the network draws in a step: a function of (seed, step, rank)."""
        seed_step(self._seed, step, self._communicator.rank, self.device)

    def accumulate(
        self,
        batches: Iterable[Batch],
        *,
        step: int = 0,
        num_batches: int | None = None,
        running: RunningLoss | None = None,
    ) -> Tensor:
        """Forward and backward pass of each batch: gradients of the summed loss of this rank.

        Returns:
            The count behind the sum, a float64 scalar on the device.

        Raises:
            ConfigError: if windows have no targets.
        """
        for norm in self._frozen_norms:
            norm.eval()
        if self._graphs is None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self._graphs.begin_step()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for index, batch in enumerate(batches):
            if not batch.num_windows:
                continue
            run = partial(self._run, step=step, is_last=index + 1 == num_batches)
            graphs = self._graphs
            loss_sum, count = run(batch) if graphs is None else graphs.accumulate(batch, run)
            if running is not None:
                running.total += loss_sum
                running.count += count
            total += count
        return total

    def _run(self, batch: Batch, *, step: int, is_last: bool) -> tuple[Tensor, Tensor]:
        """Forward and backward pass of a batch: its summed loss and the count behind it."""
        loss_sum, count = self._loss_of(batch, step)
        if is_last:
            self._reducer.begin()
        loss_sum.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        separate_gradients(self.parameters)
        return loss_sum.detach(), count

    def reduce(self, count: Tensor, stop: int = 0) -> tuple[Tensor, int]:
        """Sum gradients and count over the ranks, and agree on whether to stop.

        Args:
            count: as `accumulate` gives it.
            stop: as the bits of `__call__`.

        Returns:
            The count of all ranks, a float64 scalar on the device, and the bits of all ranks.

        Raises:
            PeerError: if another rank failed or does not answer.
        """
        return self._reducer.reduce(count, stop)

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate of every parameter: in place where the optimizer has it as a tensor."""
        self._learning_rate = rate
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def load_optimizer(self, state: Mapping[str, Any], *, steps: float = math.inf) -> None:
        """Load the optimizer's state and learning rate from a checkpoint.

        Args:
            state: of the optimizer.
            steps: optimizer steps before it.

        Raises:
            RunError: if it does not fit the optimizer.
        """
        # Of the last step, also where none follows before the validation.
        self._learning_rate = load_optimizer(self.optimizer, state, steps=steps)
        if self._graphs is not None:
            self._graphs.forget()

    def update(self, count: Tensor) -> None:
        """Divide the gradients by the count, clip them, and update the parameters.

        Args:
            count: of all ranks, a float64 scalar on the device.
        """
        if self._graphs is None:
            self._update(count)
        else:
            self._graphs.update(count, self._update)

    def _update(self, count: Tensor) -> None:
        scale_gradients(self.parameters, count)
        if self._clip_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        self.optimizer.step()

    def differentiate(self, batch: Batch) -> None:
        """Add the gradients of a batch's summed loss, of one window or more, to the parameters'.

        Raises:
            ConfigError: if the windows have no targets.
        """
        for norm in self._frozen_norms:
            norm.eval()
        with self._numerics():
            loss_sum, _ = self._loss_of(batch, step=0)
            loss_sum.backward()  # type: ignore[no-untyped-call] # torch does not annotate it

    def _loss_of(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch with its graph, and the count behind it, float64."""
        if batch.y is None or batch.y_mask is None:
            raise ConfigError(
                "a batch without targets cannot be trained on: gather it with targets"
            )
        is_lower = self._precision == "bfloat16"
        with torch.autocast(batch.x.device.type, dtype=torch.bfloat16, enabled=is_lower):
            prediction = self.forecaster.outputs(batch, step=step)
        mask = self.curriculum.limit(batch.y_mask)
        loss_sum, count = self._loss(prediction, batch.y, mask)
        added = self.forecaster.take_added_loss(mask)
        return loss_sum if added is None else loss_sum + added, count.double()
