"""The sum of gradients over ranks, sent in buckets while the backward pass runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pgti.distributed import Communicator, Work
from pgti.errors import ConfigError

__all__ = [
    "STOP_BITS",
    "GradientReducer",
    "message_bytes",
    "scale_gradients",
    "separate_gradients",
]

STOP_BITS = 6
"""Reasons to stop or to save that a step can carry, one bit each."""

_BUCKET_BYTES = 25 * 2**20  # as in DistributedDataParallel; most models are one bucket
_HEADER = 1 + STOP_BITS  # of a step's float64 message: the count, and one number a bit


def message_bytes(num_parameters: int) -> int:
    """Bytes of a step's message that says which parameters have a gradient, as on CPUs."""
    return 8 * (_HEADER + num_parameters)


class _Bucket:
    """Some parameters of one dtype, and the memory in which their gradients are summed.

    Args:
        parameters: by their places among all of them.

    Attributes:
        parameters: the same.
        views: the part of the memory of each.
        num_waiting: how many gradients the backward pass has not completed yet.
        work: the sum in progress, once it is launched.
    """

    def __init__(self, parameters: Mapping[int, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.num_waiting = len(self.parameters)
        self.work: Work | None = None
        each = list(self.parameters.values())
        sizes = [parameter.numel() for parameter in each]
        self._flat = torch.empty(sum(sizes), dtype=each[0].dtype, device=each[0].device)
        parts = torch.split(self._flat, sizes)
        self.views = [part.view_as(parameter) for part, parameter in zip(parts, each, strict=True)]

    def launch(self, communicator: Communicator) -> None:
        """Start summing the gradients over the ranks; zeros where this rank has none."""
        gradients, filled, missing = [], [], []
        for parameter, view in zip(self.parameters.values(), self.views, strict=True):
            if parameter.grad is None:
                missing.append(view)
            else:
                gradients.append(parameter.grad)
                filled.append(view)
        if missing:
            torch._foreach_zero_(missing)
        if filled:
            torch._foreach_copy_(filled, gradients)
        self.work = communicator.all_reduce_async(self._flat, "gradients")


class GradientReducer:
    """Sums gradients, the count behind them and requests to stop over all ranks.

    Every step sends the gradients of all parameters that learn, in buckets whose content never
    changes, and one float64 message behind them. A parameter without a gradient adds zeros, so
    ranks without windows need no forward pass, and a network may use other parameters in each
    step. Buckets are sent in one order, the last parameters first, and a bucket leaves as soon as
    the backward pass has completed it and those before it (Li et al., "PyTorch Distributed",
    VLDB 2020).

    Which parameters have a gradient on no rank, which the optimizer then leaves alone, is read
    from the message: on CPUs in each step. On GPUs the host waits for it in the first step, and
    later only if a parameter had none then. If all of them had one, a gradient that is missing
    later counts as zero.

    Args:
        parameters: those that learn, on their device.
        communicator: the ranks. Of one rank, gradients stay as they are.
        bucket_bytes: size at which a bucket is full.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        communicator: Communicator,
        *,
        bucket_bytes: int = _BUCKET_BYTES,
    ) -> None:
        self._parameters = list(parameters)
        self._communicator = communicator
        self._bucket_bytes = bucket_bytes
        self._buckets: list[_Bucket] = []
        self._num_launched = 0
        self._is_last_batch = False
        self._times_ready: Counter[int] = Counter()
        self._overlaps: bool | None = None  # None until a backward pass has been watched
        self._reads_presence = True
        self._is_on_gpu = self._parameters[0].is_cuda
        self._late: LateCopy | None = None

    @property
    def overlaps(self) -> bool:
        """Whether several ranks send gradients in parts, during the backward pass."""
        if self._communicator.world_size == 1:
            return False
        self._make_buckets()
        return len(self._buckets) > 1

    def begin(self) -> None:
        """Send buckets as the next backward pass, the last one of the step, completes them."""
        if self._communicator.world_size == 1:
            return
        self._make_buckets()
        self._is_last_batch = len(self._buckets) > 1 and self._overlaps is not False

    def reduce(self, count: Tensor, stop: int) -> tuple[Tensor, int]:
        """Replace the gradients by their sums over all ranks.

        Args:
            count: of this rank, a float64 scalar on the device.
            stop: why this rank asks all of them to stop, as bits below 2^`STOP_BITS`.

        Returns:
            The count of all ranks, and the bits of all ranks; where the host does not wait for
            the device, those of the step before.

        Raises:
            PeerError: if another rank failed or does not answer.
        """
        if self._communicator.world_size == 1:
            return count, stop
        self._make_buckets()
        self._end_backward()
        self._launch(len(self._buckets))
        message = self._message(count, stop)
        work = self._communicator.all_reduce_async(message, "counts")
        for bucket in self._buckets:
            assert bucket.work is not None
            bucket.work.wait()
            bucket.work = None
        work.wait()
        self._num_launched = 0
        numbers = self._read(message)
        has_gradient = numbers[_HEADER:]
        for bucket in self._buckets:
            for (place, parameter), view in zip(
                bucket.parameters.items(), bucket.views, strict=True
            ):
                is_present = not has_gradient or has_gradient[place] > 0
                parameter.grad = view if is_present else None
        return message[0], sum(1 << bit for bit in range(STOP_BITS) if numbers[1 + bit] > 0)

    def _make_buckets(self) -> None:
        if self._buckets:
            return
        places: dict[torch.dtype, list[dict[int, nn.Parameter]]] = {}
        full = self._bucket_bytes
        for place, parameter in reversed(list(enumerate(self._parameters))):
            open_and_closed = places.setdefault(parameter.dtype, [{}])
            if sum(each.nbytes for each in open_and_closed[-1].values()) >= full:
                open_and_closed.append({})
            open_and_closed[-1][place] = parameter
        found = [each for several in places.values() for each in several]
        found.sort(key=max, reverse=True)
        self._buckets = [_Bucket(dict(sorted(each.items()))) for each in found]
        if len(self._buckets) > 1:
            for bucket in self._buckets:
                for place, parameter in bucket.parameters.items():
                    hook = partial(self._on_gradient, bucket, place)
                    parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call] # torch does not annotate it

    def _on_gradient(self, bucket: _Bucket, place: int, parameter: nn.Parameter) -> None:
        """A gradient is complete, unless the backward pass adds to it once more."""
        if not self._is_last_batch:
            return
        self._times_ready[place] += 1
        if self._times_ready[place] > 1:
            if bucket.work is not None:
                raise ConfigError(
                    f"a parameter of shape {tuple(parameter.shape)} receives its gradient in "
                    "several parts, and did not in the first step: checkpoint activations of your "
                    "network with use_reentrant=False"
                )
            return
        bucket.num_waiting -= 1
        if self._overlaps:
            num_complete = self._num_launched
            while num_complete < len(self._buckets) and not self._buckets[num_complete].num_waiting:
                num_complete += 1
            self._launch(num_complete)

    def _end_backward(self) -> None:
        """Decide, after the first backward pass, whether gradients come in one part each."""
        if self._overlaps is None and self._times_ready:
            self._overlaps = max(self._times_ready.values()) == 1
        self._is_last_batch = False
        self._times_ready.clear()
        for bucket in self._buckets:
            bucket.num_waiting = len(bucket.parameters)

    def _launch(self, num_buckets: int) -> None:
        for bucket in self._buckets[self._num_launched : num_buckets]:
            bucket.launch(self._communicator)
        self._num_launched = max(self._num_launched, num_buckets)

    def _message(self, count: Tensor, stop: int) -> Tensor:
        """The count, a number for each reason to stop, and one for each parameter if it is read."""
        has_gradient = [each.grad is not None for each in self._parameters]
        size = _HEADER + (len(has_gradient) if self._reads_presence else 0)
        message = count.new_zeros(size)
        message[0].copy_(count)
        for bit in range(STOP_BITS):
            if stop >> bit & 1:
                message[1 + bit].fill_(1.0)
        if self._reads_presence:
            message[_HEADER:].copy_(torch.tensor(has_gradient))
        return message

    def _read(self, message: Tensor) -> list[float]:
        """The numbers of the message; without waiting for a GPU, those of the step before."""
        if self._reads_presence:
            numbers: list[float] = message.tolist()
            if self._late is None and self._is_on_gpu:  # the first step
                self._late = LateCopy(_HEADER)
                self._reads_presence = min(numbers[_HEADER:]) == 0
            return numbers
        assert self._late is not None
        return self._late.exchange(message)


class LateCopy:
    """Copies numbers from a GPU to the host, where they are read one step late.

    Args:
        size: how many numbers a step copies, float64.
    """

    def __init__(self, size: int) -> None:
        self._buffers = [_pinned(size), _pinned(size)]
        self._copied: torch.cuda.Event | None = None

    def exchange(self, numbers: Tensor) -> list[float]:
        """Start copying a step's numbers; gives those of the step before, at first zeros."""
        newest, before = self._buffers
        self._buffers = [before, newest]
        if self._copied is not None:
            self._copied.synchronize()  # the step before: this one is queued behind it
        earlier: list[float] = before.tolist()
        newest.copy_(numbers, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch does not annotate it
        self._copied.record()
        return earlier


def _pinned(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float64, pin_memory=True)


def separate_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give each gradient memory of its own, where autograd has let several be views of one.

    The sum of stacked parameters does that. Changed in place, by the count or another batch, their
    one memory would change once per parameter.
    """
    taken: set[int] = set()
    for parameter in parameters:
        if parameter.grad is None:
            continue
        memory = parameter.grad.untyped_storage().data_ptr()
        if memory in taken:
            parameter.grad = parameter.grad.clone()
        elif memory:  # tensors without data have none
            taken.add(memory)


def scale_gradients(parameters: Iterable[nn.Parameter], count: Tensor) -> None:
    """Turn gradients of a summed loss into those of its mean over `count`.

    A count of 0 gives zero gradients, not NaN. The count stays on its device.
    """
    factor = 1.0 / torch.where(count > 0, count, 1).double()
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for dtype, gradients in by_dtype.items():
        torch._foreach_mul_(gradients, factor.to(dtype))
