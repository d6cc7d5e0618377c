"""A GPU that computes nothing: finds host waits and mixed devices, and counts kernel launches.

    with FakeGpu() as gpu:
        step = fake_step(FakeStepSpec(model="dcrnn"))  # of pgti_bench.fake_device
        with gpu.checked() as launches:
            step.take()

Inside the block tensors on "cuda" have shapes and no content (they are torch's `meta` tensors), and
code finds what it would find on a GPU: `tensor.device.type == "cuda"`, autocast, foreach kernels,
CSR matrices, cuDNN's recurrent layers and fused attention. What CUDA alone offers (graphs, streams,
memory statistics, NCCL) is missing. torch's fake tensors do not serve: on a build without CUDA they
have no backward pass.

`checked` raises a `FakeGpuError` that names the line of the code which

- waits for the GPU: `.item()`, `float(tensor)`, a copy to the host, one from memory that is not
  pinned, an index or a tensor made of Python numbers;
- gives a kernel a tensor of the host, other than a number that has no dimension;
- asks for a shape that depends on data, where a GPU waits: `nonzero`, an index of booleans.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pgti_bench.fake_kernels import (
    attention,
    cast_arguments,
    gru,
    gru_gradients,
    sparse_product,
)
from pgti_bench.fake_waits import HostWaitError, refuse_waiting
from pgti_bench.launches import Launches

__all__ = ["FAKE_DEVICE", "FakeGpu"]

FAKE_DEVICE = torch.device("cuda", 0)
_MEMORY_BYTES = 80 << 30
_META = torch.device("meta")
_ON_THE_GPU = ("scaled_dot_product_attention", "gru")
"""Functions that have kernels of their own on a GPU."""
_FROM_PYTHON = {"tensor", "new_tensor", "as_tensor"}


class FakeGpu:
    """The block in which "cuda" is a fake GPU.

    Attributes:
        device: cuda:0.
    """

    device = FAKE_DEVICE

    def __init__(self) -> None:
        self._pinned: list[Tensor] = []
        self._face = _Face(self)
        self._stack = ExitStack()
        self.is_checking = False

    def __enter__(self) -> Self:
        stream = type("Stream", (_Stream,), {"gpu": self})
        generator_state = torch.zeros(16, dtype=torch.uint8)
        replaced: dict[str, Any] = {
            # On a machine with a GPU, too, which is another one.
            "torch.cuda.is_available": lambda: False,
            "pgti.nn.limits._memory_gib": lambda _: _MEMORY_BYTES >> 30,
            "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
            "torch.cuda.is_bf16_supported": lambda *_, **__: True,
            "torch.backends.cudnn.is_acceptable": lambda _: False,
            "torch.cuda.device": type("device", (_Current,), {}),
            "torch.cuda.mem_get_info": lambda *_: (_MEMORY_BYTES, _MEMORY_BYTES),
            "torch.cuda.empty_cache": lambda: None,
            "torch.cuda.max_memory_allocated": lambda *_: 0,
            "torch.cuda.reset_peak_memory_stats": lambda *_: None,
            "torch.cuda.memory_allocated": lambda *_: 0,
            "torch.cuda.memory_reserved": lambda *_: 0,
            "torch.cuda.device_count": lambda: 1,
            "torch.cuda.default_generators": (torch.Generator(),),
            "torch.cuda.Stream": stream,
            "torch.cuda.Event": stream,
            "torch.cuda.current_stream": stream,
            "torch.Tensor.record_stream": lambda *_: None,
            "torch.cuda.stream": lambda _: ExitStack(),
            "torch.cuda.synchronize": lambda *_: stream().synchronize(),
            "torch.cuda.get_rng_state": lambda *_: generator_state,
            "torch.cuda.set_rng_state": lambda *_: None,
            "torch.utils._foreach_utils._get_foreach_kernels_supported_devices": lambda: [
                "cuda",
                "meta",
            ],
        }
        run_backward = torch.autograd._engine_run_backward  # type: ignore[attr-defined]
        replaced["torch.autograd._engine_run_backward"] = self._within(run_backward)
        for target, replacement in replaced.items():
            self._stack.enter_context(mock.patch(target, replacement))
        # The pack hooks of activation checkpointing see meta, their unpack hooks see cuda.
        described = {"default": lambda tensor: {"shape": tensor.shape, "dtype": tensor.dtype}}
        checks = "torch.utils.checkpoint._allowed_determinism_checks_to_fns"
        self._stack.enter_context(mock.patch.dict(checks, described))
        self._stack.enter_context(self._face)
        self._stack.enter_context(_Kernels(self, None))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextmanager
    def checked(self, launches: Launches | None = None) -> Generator[Launches]:
        """Count the launches of the block, and raise where it would wait for the GPU.

        Args:
            launches: where to count; new ones by default.

        Raises:
            HostWaitError, HostTensorError, UnknownShapeError: at the line that would.
        """
        launches = Launches() if launches is None else launches
        self.is_checking = True
        try:
            with _Kernels(self, launches):
                yield launches
        finally:
            self.is_checking = False

    def _within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls code of ours, which must see this device too."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._face:
                return function(*args, **kwargs)

        return call

    def pin(self, tensor: Tensor) -> Tensor:
        """The tensor of the host, taken for one in pinned memory."""
        self._pinned.append(tensor)
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether `pin` had it, or a tensor of whose memory it is a part."""
        with torch._C.DisableTorchFunction():
            address = tensor.data_ptr()
            return any(0 <= address - each.data_ptr() < each.nbytes for each in self._pinned)


class _Current(ExitStack):
    """The block in which a GPU is the current one."""

    def __init__(self, *_: object) -> None:
        super().__init__()


class _Stream:
    """A stream or an event of the fake GPU, on which everything is done at once."""

    gpu: FakeGpu

    def __init__(self, *_: object, **__: object) -> None:
        """Take any device and priority."""

    def wait_stream(self, _: object) -> None:
        """Order on the GPU: the host waits for nothing."""

    wait_event = record = wait = wait_stream

    def record_event(self, *_: object) -> Self:
        return self

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """The host waits."""
        if self.gpu.is_checking:
            raise HostWaitError("the host waits for a stream or an event")


class _Face(TorchFunctionMode):
    """Shows meta tensors as tensors of cuda:0, and sends what is asked of cuda to meta."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self._gpu = gpu
        getters: dict[Any, Callable[[Tensor], object]] = {
            Tensor.device: lambda each: FAKE_DEVICE if each.is_meta else each.device,
            Tensor.is_cuda: lambda each: each.is_meta,
            Tensor.is_meta: lambda _: False,
        }
        self._instead: dict[object, Callable[..., object]] = {
            **{attribute.__get__: getter for attribute, getter in getters.items()},
            Tensor.get_device: lambda each: 0 if each.is_meta else -1,
            Tensor.cuda: lambda each, *_, **__: each.to(_META),
            Tensor.pin_memory: lambda each, *_: gpu.pin(each.clone()),
            Tensor.is_pinned: lambda each, *_: gpu.is_pinned(each),
            functional.scaled_dot_product_attention: attention,
            torch.gru: gru,
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = {} if kwargs is None else dict(kwargs)
        if func is torch.device:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        is_made_there = any(_is_cuda(each) for each in (*args, *kwargs.values()))
        args = tuple(_META if _is_cuda(each) else each for each in args)
        kwargs = {key: _META if _is_cuda(each) else each for key, each in kwargs.items()}
        if torch.is_autocast_enabled("cuda"):
            args, kwargs = cast_arguments(name, args, kwargs)
        instead = self._instead.get(func)
        if instead is not None and (args[0].is_meta or not name.startswith(_ON_THE_GPU)):
            return instead(*args, **kwargs)
        if kwargs.pop("pin_memory", False):
            return self._gpu.pin(func(*args, **kwargs))
        if self._gpu.is_checking:
            is_python = name in _FROM_PYTHON and not isinstance(args[-1], Tensor)
            if is_python and is_made_there:
                raise HostWaitError(f"{name} of Python numbers waits for the GPU")
            if name in ("__getitem__", "__setitem__") and args[0].is_meta and _has_numbers(args[1]):
                raise HostWaitError("an index of Python numbers waits for the GPU")
        return func(*args, **kwargs)


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch does not annotate it
    """Sees every kernel: counts it, runs it on shapes alone, and refuses what would wait.

    Args:
        gpu: whose tensors they are.
        launches: where to count; None checks and counts nothing.
    """

    def __init__(self, gpu: FakeGpu, launches: Launches | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._gpu = gpu
        self._launches = launches

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
            on_gpu = any(each.is_meta for each in tensors) or kwargs.get("device") == _META
            name = func.overloadpacket.__name__
            if self._launches is not None and on_gpu:
                refuse_waiting(name, args, kwargs, tensors, self._gpu.is_pinned)
            is_sparse = any(each.layout is torch.sparse_csr for each in tensors)
            if is_sparse and name in ("addmm", "sparse_sampled_addmm"):
                result: Any = sparse_product(name, args, kwargs)
            elif name == "_cudnn_rnn_backward":
                result = gru_gradients(args)
            elif name in ("_fused_adam_", "_fused_adamw_"):
                result = None  # in place; torch has no shapes for it
            else:
                result = func(*args, **kwargs)
            if self._launches is not None:
                made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
                if on_gpu or any(each.is_meta for each in made):
                    self._launches.add(func, args, kwargs, result, is_sparse=is_sparse)
            return result


def _is_cuda(value: object) -> bool:
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and (value == "cuda" or value.startswith("cuda:"))


def _has_numbers(index: object) -> bool:
    """Whether an index has a list or an array, which becomes a tensor of the host first."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list | tuple | range | np.ndarray) for part in parts)
