"""What the kernels of a step compute and move, and how long a device would take by a simple rule.

    work = Work()
    with FakeGpu() as gpu:
        step = fake_step(FakeStepSpec(model="stid"))
        with gpu.checked(work):
            step.take()
    estimate_seconds(work, DEVICES["a100"])

`Watched` counts what a step computes on this machine in the same way.
"""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pgti_bench.launches import Launches

__all__ = ["DEVICES", "Device", "Watched", "Work", "estimate_seconds"]

_INDEX_BYTES = 4  # of a column of a CSR matrix on a GPU
_FORMULAS: dict[str, Any] = {each.__name__: formula for each, formula in flop_registry.items()}
for _name in ("addmm", "baddbmm"):
    _FORMULAS[f"{_name}_"] = _FORMULAS[_name]
for _name in ("", "_backward"):
    _FORMULAS[f"_scaled_dot_product_flash_attention_for_cpu{_name}"] = _FORMULAS[
        f"_scaled_dot_product_flash_attention{_name}"
    ]
_FORMULAS["_linear_pointwise"] = lambda x, weight, *_, **__: 2.0 * x.numel() * len(weight)
_GATHERS = {"index", "_unsafe_index", "index_select", "gather", "embedding"}
"""Operators that read as much of their first tensor as they write."""
_SCATTERS = {"index_put_", "_index_put_impl_", "index_add_", "scatter_add_", "scatter_"}
"""Operators that change as much of their first tensor as their values have."""
_OVERWRITES = {"copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_"}
"""Operators that write their first tensor, or first tensors, without reading."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What the rule knows of a device.

    Attributes:
        name: of the device.
        flops: float32 operations per second of its data sheet, without tensor cores; or measured.
        bytes_per_second: of its memory, likewise.
        launch_seconds: what the host needs for each kernel, an assumption.
        flops_share: the part of `flops` that products reach, an assumption.
        bytes_share: the part of `bytes_per_second` that kernels reach, likewise.
    """

    name: str
    flops: float
    bytes_per_second: float
    launch_seconds: float = 6e-6
    flops_share: float = 0.5
    bytes_share: float = 0.7


DEVICES = {
    "a100": Device(
        name="NVIDIA A100 80 GB SXM",
        flops=19.5e12,
        bytes_per_second=2.039e12,
    ),
    "a6000": Device(
        name="NVIDIA RTX A6000",
        flops=38.7e12,
        bytes_per_second=0.768e12,
    ),
    "1080ti": Device(
        name="NVIDIA GTX 1080 Ti",
        flops=11.3e12,
        bytes_per_second=0.484e12,
    ),
}
"""GPUs by their data sheets; the last two are those on which sources state seconds per epoch."""


@dataclass(kw_only=True, slots=True)
class Work(Launches):
    """Launches, with the arithmetic and the traffic of each kernel.

    Arithmetic is that of products, convolutions, recurrent layers and attention, two operations for
    a multiplication and an addition. Traffic is what a kernel reads of its tensors and writes to
    its results, as if no cache helped; a product with a sparse matrix reads a row of the other for
    each of its entries. Copies between host and device count as others.

    Attributes:
        kernels: operations and bytes of each launch, in order.
        unknown: dense products whose arithmetic no formula gives, by name.
        peak_bytes: the most that tensors made meanwhile took at once.
    """

    kernels: list[tuple[float, float]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    peak_bytes: int = 0
    _alive: dict[int, int] = field(default_factory=dict)
    _alive_bytes: int = 0

    @property
    def flops(self) -> float:
        """Of all kernels."""
        return sum(flops for flops, _ in self.kernels)

    @property
    def num_bytes(self) -> float:
        """Moved by all kernels."""
        return sum(moved for _, moved in self.kernels)

    def add(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        *,
        is_sparse: bool,
    ) -> None:
        self._track((args, kwargs), result)
        before, dense = self.total, self.by_kind["dense"]
        # A method of a dataclass with slots does not see the class that super() refers to.
        Launches.add(self, func, args, kwargs, result, is_sparse=is_sparse)
        if self.total == before:
            return
        name = func.overloadpacket.__name__
        if is_sparse:
            self.kernels.append(_of_sparse(args, result))
            return
        flops = _flops(name, args, kwargs, result)
        if flops is None and self.by_kind["dense"] > dense:
            self.unknown.add(name)
        self.kernels.append((flops or 0.0, _bytes(name, args, kwargs, result)))

    def _track(self, given: Any, result: Any) -> None:
        old = {each.untyped_storage()._cdata for each in _dense(given)}
        for each in _dense(result):
            storage = each.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in old or key in self._alive or not size:
                continue
            self._alive[key] = size
            self._alive_bytes += size
            self.peak_bytes = max(self.peak_bytes, self._alive_bytes)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._alive_bytes -= self._alive.pop(key)


def estimate_seconds(work: Work, device: Device) -> float:
    """The longer of what the host needs to launch the kernels and the device to compute them.

    A kernel takes the longer of its arithmetic and its traffic, at the shares of the device's
    figures that are assumed.
    """
    flops = device.flops_share * device.flops
    bandwidth = device.bytes_share * device.bytes_per_second
    computing = sum(max(each / flops, moved / bandwidth) for each, moved in work.kernels)
    return max(work.total * device.launch_seconds, computing)


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch does not annotate it
    """The block whose kernels, on a device of this machine, are counted.

    Args:
        work: where to count.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._work = work

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        is_sparse = any(each.layout is torch.sparse_csr for each in _tensors((args, kwargs)))
        self._work.add(func, args, kwargs, result, is_sparse=is_sparse)
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    return (each for each in tree_leaves(values) if isinstance(each, Tensor))


def _dense(values: Any) -> Iterator[Tensor]:
    return (each for each in _tensors(values) if each.layout is torch.strided)


def _size(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors: of one that is expanded, those that are stored."""
    return sum(min(each.nbytes, each.untyped_storage().nbytes()) for each in tensors)


def _flops(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> float | None:
    if name in _FORMULAS:
        return float(_FORMULAS[name](*args, **kwargs, out_val=result))
    if name in ("mv", "dot", "vdot"):
        return 2.0 * int(args[0].numel())
    if name == "addmv":
        return 2.0 * int(args[1].numel())
    if name in ("_cudnn_rnn", "_cudnn_rnn_backward"):
        x, weights = args[0], args[1]
        positions = int(x.numel() // x.shape[-1])
        passes = 1 if name == "_cudnn_rnn" else 2
        numbers = sum(int(each.numel()) for each in weights if each.ndim > 1)
        return 2.0 * passes * positions * numbers
    return None


def _bytes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> float:
    written = _size(_dense(result))
    if name in _SCATTERS:
        values = args[2] if name.startswith(("index_put", "_index_put")) else args[-1]
        return 3.0 * _size(_dense(values))
    if name in _GATHERS:
        return 2.0 * written + _size(_dense(args[1:]))
    if not written and name.endswith("_"):  # of lists, in place
        written = _size(_dense(args[0]))
    inputs = {key: each for key, each in kwargs.items() if key != "out"}
    read: Sequence[Any] = args[1:] if name in _OVERWRITES else args
    return float(written + _size(_dense((read, inputs))))


def _of_sparse(args: tuple[Any, ...], result: Any) -> tuple[float, float]:
    """A product with a CSR matrix, or one sampled at the entries of one."""
    matrices = [each for each in _tensors(args) if each.layout is torch.sparse_csr]
    entries = max((each.values().numel() for each in matrices), default=0)
    others = [each for each in _dense(args) if each.ndim > 1]
    columns = 1 if not others else others[-1].shape[-1]
    dense = [each for each in _dense(result) if each.ndim > 1]
    element = dense[0].element_size() if dense else 4
    if not dense and len(others) > 1:  # sampled: rows of both are read
        columns = others[0].shape[-1]
        return 2.0 * entries * columns, float(entries * (2 * columns * element + _INDEX_BYTES))
    moved = entries * (columns * element + element + _INDEX_BYTES) + _size(dense)
    return 2.0 * entries * columns, float(moved)
