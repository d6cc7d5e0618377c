"""Training steps recorded as CUDA graphs: a replay starts all kernels of a step at once.

A small graph's step is some thousand kernels of a few microseconds, which the host starts one by
one in more time than they take. A CUDA graph holds the kernels with the addresses that they read
and write; so a recorded step reads batches, the count and the learning rate from memory of its own,
and adds to gradients that stay where they are. What Python decides is recorded as it was decided.
"""

import random
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.forecasting import NetworkForecaster
from pgti.models import AbstractModel
from pgti.training.cuda_graphs import GraphRecorder

__all__ = ["StepGraphs", "why_not_recorded"]

WARM_UP_STEPS = 3
"""Steps before the first is recorded: libraries choose algorithms, layers and the optimizer make
what they keep. torch recommends as many."""

_MAX_SHAPES = 8
"""Shapes of batches that are recorded, each in about the memory of its inputs."""

LossAndCount = tuple[Tensor, Tensor]
"""Summed loss and the count behind it, scalars on the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recorded:
    """A recorded forward and backward pass.

    Attributes:
        batch: what it reads.
        sums: where it writes loss and count, float64 [2].
        replay: runs it.
        memory: what its layers use beside parameters and buffers.
    """

    batch: Batch
    sums: Tensor
    replay: Callable[[], None]
    memory: object


class StepGraphs:
    """The recorded parts of training steps: passes of batches of several shapes, and the update.

    After `WARM_UP_STEPS` steps as usual, gradients stay in memory of their own, and the pass of
    each shape of batch is recorded when it occurs again. If that fails, or the network decides
    something on the host, all later steps are as usual, and one line says why. Results are the same
    to the bit: a replay runs the kernels that the step would start.

    Args:
        recorder: of the device.
        forecaster: whose network learns.
        parameters: those that learn.
        optimizer: of them; it can be recorded, with a learning rate in a tensor.

    Attributes:
        reason: why no step is recorded any more; None as long as they can be.
        watches: whether something else may change the network or the optimizer between steps, such
            as a callback: they are then compared, and recorded again after a change.
    """

    def __init__(
        self,
        recorder: GraphRecorder,
        forecaster: NetworkForecaster,
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.watches = False
        self.reason: str | None = None
        self._log: Callable[[str], None] = lambda _: None
        self._recorder = recorder
        self._forecaster = forecaster
        self._parameters = list(parameters)
        self._optimizer = optimizer
        self.forget()

    @property
    def num_recorded(self) -> int:
        """Shapes of batches whose pass is recorded."""
        return len(self._recorded)

    def forget(self) -> None:
        """Drop what is recorded, because the network or the optimizer is another now."""
        self._is_active = False
        self._num_steps = 0
        self._times_seen: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recorded] = {}
        self._gradients: list[Tensor | None] = []
        self._replay_update: Callable[[], None] | None = None
        self._count: Tensor | None = None
        self._updated: list[Tensor | None] = []
        self._state: Any = None
        self._address = self._parameters[0].data_ptr()

    def give_up(self, reason: str) -> None:
        """Take all further steps as usual, and say why."""
        self.forget()
        self.reason = reason
        self.explain_to(self._log)

    def explain_to(self, log: Callable[[str], None]) -> None:
        """Write why steps are not recorded, now or once it is known."""
        self._log = log
        if self.reason is not None:
            log(f"CUDA graphs are not used: {self.reason}")

    def begin_step(self) -> None:
        """Set the gradients to zero; after the warm-up those of recorded passes."""
        if self.reason is None:
            self._look_for_changes()
            self._num_steps += 1
            if self._num_steps == WARM_UP_STEPS + 1:
                self._activate()
        if not self._is_active:
            self._optimizer.zero_grad(set_to_none=True)
            return
        torch._foreach_zero_([each for each in self._gradients if each is not None])
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def accumulate(self, batch: Batch, run: Callable[[Batch], LossAndCount]) -> LossAndCount:
        """Add the gradients of a batch, by a replay where its shape is recorded.

        Args:
            batch: windows with targets.
            run: does it as usual.

        Returns:
            Summed loss and count; valid until the next batch.
        """
        if self.reason is not None:
            return run(batch)
        key = _shape_of(batch)
        self._times_seen[key] = self._times_seen.get(key, 0) + 1
        if not self._is_active:
            return self._warm_up(batch, run)
        if key not in self._recorded:
            if self._times_seen[key] == 1 or len(self._recorded) == _MAX_SHAPES:
                with self._recorder.on_side_stream():
                    return run(batch)
            if not self._record_pass(key, batch, run):
                return run(batch)
        recorded = self._recorded[key]
        torch._foreach_copy_(recorded.batch.tensors, batch.tensors)
        recorded.replay()
        return recorded.sums[0], recorded.sums[1]

    def update(self, count: Tensor, run: Callable[[Tensor], None]) -> None:
        """Update the parameters, by a replay if the gradients are where they were.

        Args:
            count: behind the gradients.
            run: does it as usual.
        """
        if not self._is_active:
            run(count)
            return
        gradients = [parameter.grad for parameter in self._parameters]
        if self._replay_update is None and not self._record_update(count, run, gradients):
            run(count)
            return
        assert self._replay_update is not None
        assert self._count is not None
        if any(now is not then for now, then in zip(gradients, self._updated, strict=True)):
            run(count)  # a parameter has a gradient on no rank
            return
        self._count.copy_(count)
        self._replay_update()

    def _activate(self) -> None:
        reason = self._recorder.lacks_memory()
        if reason is not None:
            self.give_up(reason)
            return
        self._gradients = [
            None if parameter.grad is None else torch.empty_like(parameter)
            for parameter in self._parameters
        ]
        self._is_active = any(each is not None for each in self._gradients)

    def _warm_up(self, batch: Batch, run: Callable[[Batch], LossAndCount]) -> LossAndCount:
        """A pass as usual; after the first, nothing may be drawn or counted on the host."""
        device = batch.x.device
        before = _state_of_host(device), _state_of_modules(self._forecaster)
        with self._recorder.on_side_stream():
            result = run(batch)
        if self._num_steps == 1:
            pass  # layers make what they keep
        elif _state_of_host(device) != before[0]:
            self.give_up("the network draws random numbers on the host")
        elif _state_of_modules(self._forecaster) != before[1]:
            self.give_up("the network changes attributes of its modules in each step")
        return result

    def _record_pass(
        self, key: Hashable, batch: Batch, run: Callable[[Batch], LossAndCount]
    ) -> bool:
        inputs = batch.clone()
        sums = torch.zeros(2, dtype=torch.float64, device=batch.x.device)

        def run_inputs() -> None:
            for into, value in zip(sums, run(inputs), strict=True):
                into.copy_(value)

        replay = self._record(run_inputs)
        if replay is None:
            return False
        self._recorded[key] = _Recorded(
            batch=inputs, sums=sums, replay=replay, memory=self._forecaster.supports.take_memory()
        )
        return True

    def _record_update(
        self, count: Tensor, run: Callable[[Tensor], None], gradients: list[Tensor | None]
    ) -> bool:
        self._count = of_recorded = count.clone()
        self._updated = gradients
        with _recordable(self._optimizer):
            self._replay_update = self._record(lambda: run(of_recorded))
        return self._replay_update is not None

    def _record(self, function: Callable[[], None]) -> Callable[[], None] | None:
        try:
            return self._recorder.record(function)
        except Exception as error:  # noqa: BLE001 - what torch or a network raises is not known
            self.give_up(f"recording failed ({_first_line(error)})")
            return None

    def _look_for_changes(self) -> None:
        """Forget what is recorded where it is not of this network any more."""
        if self._parameters[0].data_ptr() != self._address:
            self.forget()
        if self.watches:
            state = self._state_between_steps()
            if self._state is not None and state != self._state:
                self.forget()
            self._state = state

    def _state_between_steps(self) -> Any:
        groups = self._optimizer.param_groups
        kept = ("params", "lr")
        tensors = (*self._forecaster.parameters(), *self._forecaster.buffers())
        return (
            _state_of_modules(self._forecaster),
            [(each.data_ptr(), each.requires_grad) for each in tensors],
            [{name: value for name, value in each.items() if name not in kept} for each in groups],
        )


def why_not_recorded(forecaster: NetworkForecaster) -> str | None:
    """What in a network cannot be recorded, as far as it is known beforehand; else None."""
    network, supports = forecaster.network, forecaster.supports
    if supports.is_sharded:
        return "sensors are sharded, and ranks exchange states within a pass"
    if isinstance(network, AbstractModel):
        if network.depends_on_step:
            return "the model decides on the host by the step, as scheduled sampling does"
    elif "teacher" in (forecaster.requested or ()):
        return "the network takes the teacher, which changes from step to step"
    for module in network.modules():
        if isinstance(module, nn.RNNBase) and module.dropout > 0:
            return f"dropout inside torch.nn.{type(module).__name__} would repeat itself"
    return None


@contextmanager
def _recordable(optimizer: torch.optim.Optimizer) -> Generator[None]:
    """Tell the optimizer that it may be recorded; it warns where it is told so in usual steps."""
    before = [group["capturable"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, usual in zip(optimizer.param_groups, before, strict=True):
            group["capturable"] = usual


def _shape_of(batch: Batch) -> Hashable:
    return tuple((each.shape, each.dtype) for each in batch.tensors)


def _state_of_host(device: torch.device) -> Any:
    """States of the generators that a network may draw from in place of the device's."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - what others draw from
    of_torch = torch.default_generator.get_state().numpy().tobytes()
    return (
        random.getstate(),
        (name, np.asarray(keys).tobytes(), *rest),
        None if device.type == "cpu" else of_torch,
    )


def _state_of_modules(root: nn.Module) -> Any:
    """What layers may decide by in Python, or carry over to the next pass.

    Numbers and words among the attributes of the modules, and which tensors are among them: one
    that a pass replaces, in place of changing its content, is not where a recording reads it.
    """
    return [
        {
            name: id(value) if isinstance(value, Tensor) else value
            for name, value in (*vars(module).items(), *module.named_buffers(recurse=False))
            if isinstance(value, int | float | str | Tensor)
        }
        for module in root.modules()
    ]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
