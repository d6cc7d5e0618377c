"""A stand-in for CUDA graphs on a CPU: kernels are recorded with their memory, and replayed.

As in a CUDA graph, numbers of Python are those of the recording, tensors stay at their addresses,
recording computes nothing that lasts, draws continue from the generator's present seed, and a read
on the host fails. Python itself runs once.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pgti.training import TrainStep
from pgti.training.optim import hold_rate_on

_ON_THE_HOST = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero"}


class CpuRecorder:
    """Records what a function computes on a CPU.

    Attributes:
        num_recorded: functions so far.
        num_replayed: replays so far.
        num_aside: blocks on the side stream so far.
        memory: why there is no room for recordings.
        used: addresses of the memory that recordings use, other than what they allocate.
    """

    def __init__(self, memory: str | None = None) -> None:
        self.num_recorded = 0
        self.num_replayed = 0
        self.num_aside = 0
        self.memory = memory
        self.used: set[int] = set()

    @contextmanager
    def on_side_stream(self) -> Generator[None]:
        """As `GraphRecorder` says."""
        self.num_aside += 1
        yield

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """As `GraphRecorder` says."""
        kernels = _Kernels()
        state = torch.get_rng_state()
        try:
            with kernels:
                function()
        finally:
            kernels.restore_memory()
            torch.set_rng_state(state)
        self.num_recorded += 1
        self.used |= kernels.used

        def replay() -> None:
            self.num_replayed += 1
            kernels.replay()

        return replay

    def lacks_memory(self) -> str | None:
        """As `GraphRecorder` says."""
        return self.memory


def as_on_a_gpu(step: TrainStep) -> TrainStep:
    """The step with the optimizer of a GPU: all parameters at once, the rate in a tensor."""
    for group in step.optimizer.param_groups:
        group["fused"] = True
    hold_rate_on(step.optimizer, step.device)
    return step


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch does not annotate it
    """Runs each operator and notes it, with the memory that it changes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: set[int] = set()
        self.used: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in _ON_THE_HOST:
            raise RuntimeError(f"{func} reads on the host: operation not permitted in a graph")
        self._save_memory(func, args, kwargs)
        result = func(*args, **kwargs)
        made = _strided(result)
        inputs = {_storage(each) for each in _strided((args, kwargs))}
        if func is torch.ops.aten.lift_fresh.default:  # a number of Python, made a moment ago
            self._made |= inputs
        self.used |= inputs - self._made
        self._made |= {_storage(each) for each in made} - inputs
        self._calls.append((func, args, kwargs, made))
        return result

    def replay(self) -> None:
        """Run the operators again, on the same memory."""
        with torch.no_grad():
            for func, args, kwargs, made in self._calls:
                for then, now in zip(made, _strided(func(*args, **kwargs)), strict=True):
                    if now.data_ptr() != then.data_ptr():
                        then.detach().copy_(now)

    def restore_memory(self) -> None:
        """Undo what the recording has changed."""
        with torch.no_grad():
            for tensor, content in self._before.values():
                tensor.copy_(content)

    def _save_memory(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            # Batch normalization changes its statistics, and its schema does not say so.
            is_statistic = argument.name in ("running_mean", "running_var")
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if not is_written and not is_statistic:
                continue
            for tensor in _strided(given.get(argument.name)):
                key = _storage(tensor)
                if key not in self._made and key not in self._before:
                    whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
                    self._before[key] = whole, whole.clone()


def parts_of(tensor: Tensor) -> list[Tensor]:
    """The tensor, or the arrays of a sparse one."""
    if tensor.layout != torch.sparse_csr:
        return [tensor]
    return [tensor.crow_indices(), tensor.col_indices(), tensor.values().detach()]


def _strided(tree: Any) -> list[Tensor]:
    leaves = [each for each in tree_leaves(tree) if isinstance(each, Tensor)]
    return [part for each in leaves for part in parts_of(each)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
